//! What a broken match or filter of an HTTPRoute gets to hear; see `errors.rs`.
#![forbid(unsafe_code)]

mod support;

use support::cases;

#[test]
fn matches() {
    cases(&[
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"method: get, headers: [{ name: "x y", value: 1 }], queryParams: [{ value: a }]"#,
            r#"31:27 spec.rules[0].matches[0].method: unknown value "get"; one of GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH (did you mean GET?)
31:50 spec.rules[0].matches[0].headers[0].name: "x y" is not a token (letters, digits and !#$%&'*+-.^_`|~, as in x-user)
31:64 spec.rules[0].matches[0].headers[0].value: must be a string, is the integer 1 (in quotes it is a string: "1")
31:84 spec.rules[0].matches[0].queryParams[0].name: is missing"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"method: TRACE"#,
            r#"31:27 spec.rules[0].matches[0].method: CONNECT and TRACE are never served (they are answered 405 before any route is looked up)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"headers: [{ name: a, value: b }, { name: A, value: c }], queryParams: [{ name: a, value: " b" }]"#,
            r#"31:52 spec.rules[0].matches[0].headers[1]: a second match of the header field "A" (all matches of a list have to hold: put alternatives into matches of their own)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"headers: [{ type: Prefix, name: a, value: b }, { name: b, value: " c" }, { name: c, value: "ü" }]"#,
            r#"31:37 spec.rules[0].matches[0].headers[0].type: unknown value "Prefix"; one of Exact, RegularExpression
31:84 spec.rules[0].matches[0].headers[1].value: " c" starts or ends with whitespace (whitespace around a value is not part of it)
31:110 spec.rules[0].matches[0].headers[2].value: "ü" has characters that a header field cannot have (visible ASCII, spaces and tabs)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"headers: [{ type: RegularExpression, name: a, value: "(?=x)" }]"#,
            r#"31:72 spec.rules[0].matches[0].headers[0].value: "(?=x)" is no regular expression: look-around, including look-ahead and look-behind, is not supported (the syntax is that of RE2, in ASCII; smaller bounds of repetitions make it smaller)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { type: RegularExpression, value: "[ab]*a[ab]{40}" }"#,
            r#"31:59 spec.rules[0].matches[0].path.value: "[ab]*a[ab]{40}" needs too large an automaton (the syntax is that of RE2, in ASCII; smaller bounds of repetitions make it smaller)"#,
        ),
    ]);
}

#[test]
fn filters() {
    cases(&[
        (
            r#"      backendRefs:"#,
            r#"      filters: [{ type: URLRewrit }]
      backendRefs:"#,
            r#"32:25 spec.rules[0].filters[0].type: unknown value "URLRewrit"; one of RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, RequestRedirect, URLRewrite, CORS (did you mean URLRewrite?)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      filters: [{ type: ExtensionRef, extensionRef: { name: a } }]
      backendRefs:"#,
            r#"32:25 spec.rules[0].filters[0].type: not supported yet: filters of type ExtensionRef (leave it out; a later release takes it)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      filters: [{ type: URLRewrite, requestRedirect: {} }]
      backendRefs:"#,
            r#"32:17 spec.rules[0].filters[0].urlRewrite: is missing
32:54 spec.rules[0].filters[0].requestRedirect: is not of a filter of type URLRewrite (its settings are in urlRewrite)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      filters: [{ type: RequestRedirect, requestRedirect: { scheme: ftp, statusCode: 300, hostname: "*.a.b" } }]
      backendRefs:"#,
            r#"32:17 spec.rules[0].filters[0]: RequestRedirect in a rule with backendRefs (a redirect is answered here: leave out the backendRefs)
32:69 spec.rules[0].filters[0].requestRedirect.scheme: unknown value "ftp"; one of http, https
32:86 spec.rules[0].filters[0].requestRedirect.statusCode: 300 is not one of 301, 302, 303, 307, 308 (302 is the default)
32:101 spec.rules[0].filters[0].requestRedirect.hostname: "*.a.b" has a wildcard (give one host)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      filters:
      - { type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replacePrefixMatch: /a } } }
      - { type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: a } } }
      backendRefs:"#,
            r#"33:49 spec.rules[0].filters[0].urlRewrite.path.replaceFullPath: is missing
33:94 spec.rules[0].filters[0].urlRewrite.path.replacePrefixMatch: is of the other type (the value is in replaceFullPath)
34:9 spec.rules[0].filters[1]: a second URLRewrite (put what both do into one)
34:97 spec.rules[0].filters[1].urlRewrite.path.replacePrefixMatch: "a" does not start with / (did you mean "/a"?)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      filters:
      - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: Host, value: a }, { name: x, value: "a\r\nb: c" }], add: [{ name: Content-Length, value: "1" }, { name: a, value: b }], remove: [A, transfer-encoding] } }
      backendRefs:"#,
            r#"33:79 spec.rules[0].filters[0].requestHeaderModifier.set[0].name: the header field "Host" cannot be changed (a filter of type URLRewrite changes the hostname)
33:115 spec.rules[0].filters[0].requestHeaderModifier.set[1].value: "a\r\nb: c" has characters that a header field cannot have (visible ASCII, spaces and tabs)
33:145 spec.rules[0].filters[0].requestHeaderModifier.add[0].name: the header field "Content-Length" cannot be changed (it belongs to the connection or says where a message ends: Millrace writes it)
33:208 spec.rules[0].filters[0].requestHeaderModifier.remove[0]: a second action for the header field "A" (one action for each field: several values go into one, with commas between)
33:211 spec.rules[0].filters[0].requestHeaderModifier.remove[1]: the header field "transfer-encoding" cannot be changed (it belongs to the connection or says where a message ends: Millrace writes it)"#,
        ),
        (
            r#"    - matches: [{ path: { type: PathPrefix, value: / } }]"#,
            r#"    - matches: [{ path: { type: Exact, value: / } }]
      filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /a } } }]"#,
            r#"32:17 spec.rules[0].filters[0]: ReplacePrefixMatch in a rule without exactly one match, of type PathPrefix (split the rule into one for each prefix)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: hello }, percent: 101, fraction: { numerator: 2, denominator: 1 } } }]
      backendRefs:"#,
            r#"32:77 spec.rules[0].filters[0].requestMirror.backendRef.name: there is no Service default/hello (define a Service)
32:95 spec.rules[0].filters[0].requestMirror.percent: 101 is out of range (it can be 0 to 100)
32:110 spec.rules[0].filters[0].requestMirror.fraction: 2 of 1 are more than all (the numerator is at most the denominator)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      filters: [{ type: RequestMirror, requestMirror: { backendRef: { group: millrace.dev, kind: Backend, name: helo, port: 80 }, percent: 1, fraction: { numerator: 1 } } }]
      backendRefs:"#,
            r#"32:55 spec.rules[0].filters[0].requestMirror: both percent and fraction are given (leave out one of them)
32:113 spec.rules[0].filters[0].requestMirror.backendRef.name: there is no Backend default/helo (did you mean hello?)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      filters: [{ type: CORS, cors: { allowOrigins: ["*", "https://a.b", "ftp://a", "https://a.*"], allowMethods: [get], allowHeaders: ["a b"], maxAge: 0 } }]
      backendRefs:"#,
            r#"32:54 spec.rules[0].filters[0].cors.allowOrigins[0]: * beside others (it stands for all of them: leave the others out)
32:74 spec.rules[0].filters[0].cors.allowOrigins[2]: "ftp://a" is not an origin (*, or such as https://shop.example.com, https://*.example.com:8443)
32:85 spec.rules[0].filters[0].cors.allowOrigins[3]: "https://a.*" is not an origin (*, or such as https://shop.example.com, https://*.example.com:8443)
32:116 spec.rules[0].filters[0].cors.allowMethods[0]: unknown value "get"; one of GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH, * (did you mean GET?)
32:137 spec.rules[0].filters[0].cors.allowHeaders[0]: "a b" is not a token (letters, digits and !#$%&'*+-.^_`|~, as in x-user)
32:153 spec.rules[0].filters[0].cors.maxAge: 0 is out of range (it can be 1 to 2147483647)"#,
        ),
    ]);
}

#[test]
fn a_listener_of_another_port_than_the_named_one_is_no_parent() {
    let listener = "{ name: http, protocol: HTTP, port: 80 }";
    let text = support::HELLO
        .replace(listener, &format!("{listener}, {{ name: other, protocol: HTTP, port: 81 }}"))
        .replacen("parentRefs: [{ name: web }]", "parentRefs: [{ name: web, sectionName: http, port: 81 }]", 1);
    let errors = schema::load_str("x.yaml", &text).unwrap_err().to_string();
    assert!(
        errors.contains("spec.parentRefs[0].port: listener http of Gateway default/web is not on port 81")
            && errors.contains("hint: port: 80; or leave it out, since the listener has a name")
            && errors.ends_with("1 error"),
        "{errors}"
    );
    // Where invalid references are served, the route's conditions say it.
    let tolerant = text.replacen("  cores: [1]", "  invalidReferences: serve500\n  cores: [1]", 1);
    assert!(tolerant != text && schema::load_str("x.yaml", &tolerant).is_ok());
}
