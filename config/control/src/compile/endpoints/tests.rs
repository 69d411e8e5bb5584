use std::collections::BTreeMap;

use schema::{DnsName, DnsType, LookupFamily};

use super::*;
use crate::names::{Resolutions, Resolved};

const BASE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: { name: edge }
spec:
  cores: [0]
  ports: [{ name: north, device: "net_af_packet0,iface=n", addresses: [10.9.1.1/24], gateway: 10.9.1.254 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: web }
spec: { gatewayClassName: millrace, listeners: [{ name: http, protocol: HTTP, port: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: cart }
spec: { ports: [{ name: web, port: 80 }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r }
spec:
  parentRefs: [{ name: web }]
  rules:
    - matches: [{ path: { type: PathPrefix, value: /cart } }]
      backendRefs: [{ name: cart, port: 80 }]
    - backendRefs:
        - { group: millrace.dev, kind: Backend, name: fixed, port: 80 }
        - { group: millrace.dev, kind: Backend, name: named, port: 80 }
        - { group: millrace.dev, kind: Backend, name: part, port: 80 }
"#;

fn backend(name: &str, spec: &str) -> String {
    format!("---\napiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n")
}

fn slice(name: &str, service: &str, address: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{ name: {name}, \
         labels: {{ kubernetes.io/service-name: {service} }} }}\naddressType: IPv4\n\
         endpoints: [{{ addresses: [{address}] }}]\nports: [{{ name: web, port: 8080 }}]\n"
    )
}

fn backends(fixed: &str) -> [String; 3] {
    [
        backend("fixed", &format!("endpoints: [{{ address: {fixed} }}]")),
        backend("named", "endpoints: [{ fqdn: { hostname: shop.test }, labels: { v: one } }]"),
        backend("part", "subset: { of: named, matchLabels: { v: one } }"),
    ]
}

fn configuration(documents: &[String]) -> Arc<Configuration> {
    let text = format!("{BASE}{}", documents.concat());
    Arc::new(schema::load_str("x.yaml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}")))
}

fn whole(fixed: &str, slices: &[String]) -> Arc<Configuration> {
    configuration(&[&backends(fixed)[..], slices].concat())
}

fn resolutions(addresses: &[[u8; 4]]) -> Resolutions {
    let name =
        DnsName { hostname: "shop.test".into(), kind: DnsType::Address, lookup_family: LookupFamily::Ipv4AndIpv6 };
    let resolved = addresses.iter().map(|&address| Resolved { address: address.into(), service: None }).collect();
    [(name, resolved)].into()
}

/// The addresses of each cluster, with their numbers.
fn endpoints(compiled: &Compiled) -> BTreeMap<String, Vec<(String, u32)>> {
    let of = |cluster: &Cluster| cluster.endpoints.iter().map(|e| (e.address.to_string(), e.id.0)).collect();
    compiled.snapshot.clusters.iter().map(|cluster| (cluster.name.to_string(), of(cluster))).collect()
}

/// The clusters of `new` that were not compiled again since `old`.
fn kept<'c>(old: &Compiled, new: &'c Compiled) -> Vec<&'c str> {
    let pairs = old.clusters.iter().zip(new.clusters.iter());
    pairs.filter(|(old, new)| Arc::ptr_eq(&old.endpoints, &new.endpoints)).map(|(_, plan)| &*plan.name).collect()
}

#[test]
fn a_name_with_other_addresses_compiles_its_backends_alone() {
    let configuration = whole("10.9.1.2", &[slice("cart-1", "cart", "10.9.1.9")]);
    let (mut compiler, mut fresh) = (Compiler::new(1), Compiler::new(1));
    compiler.resolved(resolutions(&[[10, 9, 1, 3]]));
    fresh.resolved(resolutions(&[[10, 9, 1, 3]]));
    let first = compiler.compile(&configuration);
    fresh.compile(&configuration);
    compiler.resolved(resolutions(&[[10, 9, 1, 3], [10, 9, 1, 4]]));
    fresh.resolved(resolutions(&[[10, 9, 1, 3], [10, 9, 1, 4]]));
    let second = compiler.compile_endpoints(&first, &configuration, Touched::default());
    assert_eq!(kept(&first, &second), ["service/default/cart:80", "default/fixed:80"]);
    assert_eq!(endpoints(&second)["default/named:80"].len(), 2);
    assert_eq!(endpoints(&second)["default/part:80"].len(), 2, "a part of it has them, too");
    assert_eq!(endpoints(&second), endpoints(&fresh.compile(&configuration)), "as if all had been compiled");
    assert_eq!(second.snapshot.epoch, 2);
    assert!(Arc::ptr_eq(&first.snapshot.rules, &second.snapshot.rules), "no rule was");
    let address = second.snapshot.endpoint(tables::EndpointId(endpoints(&second)["default/named:80"][1].1)).unwrap();
    assert_eq!(address.to_string(), "10.9.1.4:80");
    // The same answer again is no news.
    compiler.resolved(resolutions(&[[10, 9, 1, 3], [10, 9, 1, 4]]));
    let third = compiler.compile_endpoints(&second, &configuration, Touched::default());
    assert_eq!(kept(&second, &third).len(), 4);
}

#[test]
fn endpoints_of_slices_and_backends_are_told_from_the_rest() {
    let one = whole("10.9.1.2", &[slice("cart-1", "cart", "10.9.1.9")]);
    let two = whole("10.9.1.2", &[slice("cart-1", "cart", "10.9.1.9"), slice("cart-2", "cart", "10.9.1.10")]);
    let moved = whole("10.9.1.7", &[]);
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let touched = |old, new| {
        let touched = Touched::between(old, new)?;
        let text = |objects: HashSet<ObjectName>| objects.iter().map(ToString::to_string).collect::<Vec<_>>();
        Some((text(touched.backends), text(touched.services)))
    };
    assert_eq!(touched(&one, &one), Some((vec![], vec![])));
    assert_eq!(touched(&one, &two), Some((vec![], names(&["default/cart"]))));
    assert_eq!(touched(&two, &one), Some((vec![], names(&["default/cart"]))));
    assert_eq!(touched(&one, &moved), Some((names(&["default/fixed"]), names(&["default/cart"]))));
    let more =
        configuration(&[&backends("10.9.1.2")[..], &[backend("more", "endpoints: [{ address: 10.9.1.8 }]")]].concat());
    assert_eq!(touched(&moved, &more), None, "a reference may lead to it");

    let mut compiler = Compiler::new(1);
    let first = compiler.compile(&one);
    let second = compiler.compile_endpoints(&first, &two, Touched::between(&one, &two).unwrap());
    assert_eq!(kept(&first, &second), ["default/fixed:80", "default/named:80", "default/part:80"]);
    assert_eq!(endpoints(&second)["service/default/cart:80"].len(), 2);
    let third = compiler.compile_endpoints(&second, &moved, Touched::between(&two, &moved).unwrap());
    assert_eq!(endpoints(&third)["service/default/cart:80"], []);
    assert_eq!(endpoints(&third)["default/fixed:80"][0].0, "10.9.1.7:80");
    assert!(Arc::ptr_eq(&first.snapshot.rules, &third.snapshot.rules));
    // What was compiled under another epoch is nothing to go on from.
    let fourth = compiler.compile_endpoints(&first, &moved, Touched::default());
    assert_eq!((fourth.snapshot.epoch, endpoints(&fourth)), (4, endpoints(&third)));
    assert!(!Arc::ptr_eq(&first.snapshot.rules, &fourth.snapshot.rules));
}

#[test]
fn numbers_of_endpoints_that_come_and_go_are_used_again_and_no_others() {
    let configuration = whole("10.9.1.2", &[]);
    let mut compiler = Compiler::new(1);
    let mut running = compiler.compile(&configuration);
    for round in 0..5_000u16 {
        compiler.swept(u64::from(round));
        let [high, low] = round.to_be_bytes();
        compiler.resolved(resolutions(&[[10, 10, high, low]]));
        running = compiler.compile_endpoints(&running, &configuration, Touched::default());
        let all = endpoints(&running);
        assert_eq!(all["default/fixed:80"], [("10.9.1.2:80".to_owned(), 0)]);
        let [(_, id)] = all["default/named:80"][..] else { panic!("{all:?}") };
        assert!((1..KEPT_ENDPOINTS as u32 + 4).contains(&id), "{id} after {round}");
    }
}
