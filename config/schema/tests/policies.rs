//! `RoutePolicy` and `SecurityPolicy`: what they take, and what a wrong one gets to hear.
#![forbid(unsafe_code)]

mod support;

use schema::{RateLimitKey, RateLimitUnit, RouteTargetKind, load_str};
use support::{HELLO, brief};

const POLICY: &str = "
---
apiVersion: millrace.dev/v1alpha1
kind: RoutePolicy
metadata: { name: limits }
spec:
  targetRefs:
    - { group: gateway.networking.k8s.io, kind: HTTPRoute, name: hello }
    - { group: gateway.networking.k8s.io, kind: Gateway, name: web, sectionName: http }
  rateLimit:
    rules:
      - { name: all, limit: { requests: 1000, unit: Second, burst: 50 } }
      - { name: client, limit: { requests: 10, unit: Minute }, by: { type: SourceIP, ipv4Prefix: 24 }, maxKeys: 100 }
      - { name: key, limit: { requests: 3, unit: Hour }, by: { type: Header, name: X-Api-Key } }
      - { name: session, limit: { requests: 5, unit: Second }, by: { type: Cookie, name: SID } }
---
apiVersion: millrace.dev/v1alpha1
kind: SecurityPolicy
metadata: { name: doors }
spec:
  targetRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: web }]
  sources:
    allow: [10.0.0.0/8, 192.0.2.7]
    deny: [10.66.0.0/16, \"2001:db8::/32\"]
";

fn errors(from: &str, to: &str) -> String {
    assert_eq!(POLICY.matches(from).count(), 1, "{from:?}");
    let text = format!("{HELLO}{}", POLICY.replace(from, to));
    match load_str("x.yaml", &text) {
        Ok(_) => "it loads".to_owned(),
        // Lines depend on the length of hello.yaml.
        Err(errors) => brief(&errors)
            .lines()
            .filter_map(|line| Some(line.split_once(' ')?.1.to_owned()))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

#[test]
fn policies_are_taken_with_their_defaults() {
    let configuration = load_str("x.yaml", &format!("{HELLO}{POLICY}")).unwrap();
    let policy = &configuration.route_policies[0].spec;
    assert_eq!(policy.target_refs[0].kind, RouteTargetKind::HttpRoute);
    assert_eq!(policy.target_refs[1].section_name.as_ref().unwrap().as_str(), "http");
    let [all, client, key, session] = policy.rate_limit.rules.as_slice() else { panic!() };
    assert_eq!((all.limit.requests.get(), all.limit.unit, all.limit.burst.get()), (1000, RateLimitUnit::Second, 50));
    assert_eq!((&all.by, all.max_keys.get()), (&RateLimitKey::All, 65_536));
    assert_eq!((client.limit.burst.get(), client.max_keys.get()), (10, 100));
    let RateLimitKey::SourceIp { ipv4_prefix, ipv6_prefix } = client.by else { panic!() };
    assert_eq!((ipv4_prefix.get(), ipv6_prefix.get()), (24, 64));
    assert_eq!(key.by, RateLimitKey::Header { name: "x-api-key".into() });
    assert_eq!(session.by, RateLimitKey::Cookie { name: "SID".into() });
    let sources = &configuration.security_policies[0].spec.sources;
    assert_eq!(sources.allow[1].value.to_string(), "192.0.2.7/32");
    assert_eq!(sources.deny.len(), 2);
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (
            "kind: HTTPRoute, name: hello",
            "kind: HTTPRoute, name: hallo",
            "spec.targetRefs[0].name: there is no HTTPRoute default/hallo (did you mean hello?)",
        ),
        (
            "sectionName: http }",
            "sectionName: htp }",
            "spec.targetRefs[1].sectionName: Gateway default/web has no listener named htp (did you mean http?)",
        ),
        (
            "name: hello }",
            "name: hello, sectionName: cart }",
            "spec.targetRefs[0].sectionName: HTTPRoute default/hello has no rule named cart (give its rules names)",
        ),
        (
            "requests: 1000",
            "requests: 0",
            "spec.rateLimit.rules[0].limit.requests: 0 is out of range (it can be 1 to 1000000000)",
        ),
        (
            "unit: Minute",
            "unit: Day",
            "spec.rateLimit.rules[1].limit.unit: unknown value \"Day\"; one of Second, Minute, Hour",
        ),
        (
            "ipv4Prefix: 24",
            "ipv4Prefix: 33",
            "spec.rateLimit.rules[1].by.ipv4Prefix: 33 is out of range (it can be 1 to 32)",
        ),
        (
            "type: Header, name: X-Api-Key",
            "type: Header, name: \"X Api\"",
            "spec.rateLimit.rules[2].by.name: \"X Api\" is not a name of a header field or cookie (letters, digits and any of !#$%&'*+-.^_`|~, at most 256)",
        ),
        ("type: Header, name: X-Api-Key", "type: Header", "spec.rateLimit.rules[2].by.name: is missing"),
        (
            "type: Cookie, name: SID",
            "type: Cooky, name: SID",
            "spec.rateLimit.rules[3].by.type: unknown value \"Cooky\"; one of All, SourceIP, Header, Cookie (did you mean Cookie?)",
        ),
        (
            "192.0.2.7",
            "192.0.2.7/24",
            "spec.sources.allow[1]: 192.0.2.7/24 has bits behind its prefix (did you mean 192.0.2.0/24?)",
        ),
        ("10.66.0.0/16", "10.0.0.0/8", "spec.sources.deny[0]: a second 10.0.0.0/8 (the first is at x.yaml:61:13)"),
        (
            "10.66.0.0/16",
            "office",
            "spec.sources.deny[0]: \"office\" is not a network (such as 192.0.2.0/24 or 2001:db8::/32)",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(errors(from, to), expected, "{to}");
    }
    assert!(errors("name: session,", "name: all,").contains("a second rule named all"));
}

#[test]
fn two_security_policies_of_one_gateway_are_refused() {
    let second = POLICY.replace("name: doors", "name: more-doors").replace("name: limits", "name: more-limits");
    let errors = load_str("x.yaml", &format!("{HELLO}{POLICY}{second}")).unwrap_err();
    assert!(brief(&errors).contains("a second SecurityPolicy of Gateway default/web"), "{}", brief(&errors));
}

/// A Backend of so many endpoints, balanced by Maglev.
fn maglev(endpoints: u32) -> String {
    let each: Vec<String> = (0..endpoints)
        .map(|n| format!("{{ address: {}, port: 80 }}", std::net::Ipv4Addr::from_bits(0x0a10_0000 + n)))
        .collect();
    let hello = HELLO
        .replace("10.9.2.1/24", "10.9.2.1/8")
        .replace("10.9.1.1/24", "192.0.2.1/24")
        .replace("10.9.1.1", "192.0.2.1");
    format!(
        "{hello}---\napiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: many }}\nspec: {{ endpoints: [{}] }}\n\
         ---\napiVersion: millrace.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{ name: many }}\nspec:\n  \
         targetRefs: [{{ group: millrace.dev, kind: Backend, name: many }}]\n  \
         loadBalancer: {{ type: ConsistentHash, consistentHash: {{ type: SourceIP }} }}\n",
        each.join(", ")
    )
}

#[test]
fn nobody_is_left_out_of_maglevs_table_without_a_word() {
    if let Err(errors) = load_str("x.yaml", &maglev(65_535)) {
        panic!("{errors}");
    }
    let errors = load_str("x.yaml", &maglev(65_536)).unwrap_err();
    let brief = brief(&errors);
    let expected = "spec.targetRefs[0].name: Backend default/many has 65536 endpoints, and Maglev's table takes 65535 (balance by ringHash, \
                    or give the backend fewer endpoints)\n";
    assert!(errors.iter().count() == 1 && brief.ends_with(expected), "{brief}");
}
