//! Which rule takes a preflight (Fetch standard, CORS protocol): the one that takes what it says will be asked.

use tables::route::Host;
use tables::{Conditions, HostPattern, PathPattern, Request, RouteTable, RouteTableBuilder, ValueMatch};

fn conditions(method: Option<&str>, headers: &[(&str, &str)]) -> Conditions {
    let bytes = |text: &str| text.as_bytes().into();
    let headers = headers.iter().map(|(name, value)| (bytes(name), ValueMatch::Exact(bytes(value)))).collect();
    Conditions { method: method.map(bytes), headers, query: Box::default() }
}

/// A method, header fields, and whether there is a CORS filter.
type Match<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], bool);

/// Matches of `/`, rule by rule; those of rules with a CORS filter take preflights, too.
fn table(rules: &[Match<'_>]) -> RouteTable {
    let mut table = RouteTableBuilder::default();
    let path = PathPattern::Prefix((*b"/").into());
    for ((method, headers, cors), rule) in rules.iter().zip(0..) {
        table.insert(HostPattern::Any, &path, conditions(*method, headers), rule);
        if *cors && (method.is_some() || !headers.is_empty()) {
            table.insert_preflight(HostPattern::Any, &path, conditions(*method, headers), rule);
        }
    }
    table.build()
}

fn ask(table: &RouteTable, method: &str, fields: &[(&str, &str)]) -> Option<u32> {
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    table.find(&Host::new(b"x"), &Request { method: method.as_bytes(), path: b"/a", query: None, fields })
}

const ORIGIN: (&str, &str) = ("Origin", "https://a.example");
const GET: (&str, &str) = ("Access-Control-Request-Method", "GET");

/// A preflight that asks for a GET with these fields.
fn preflight(table: &RouteTable, named: &str) -> Option<u32> {
    ask(table, "OPTIONS", &[ORIGIN, GET, ("access-control-request-headers", named)])
}

#[test]
fn a_preflight_that_names_a_header_is_taken_by_the_rule_that_asks_for_it() {
    let table = table(&[(None, &[], true), (None, &[("x-version", "2")], true), (Some("PUT"), &[("x-a", "1")], true)]);
    for named in ["x-version", "content-type,x-version", "Content-Type, X-Version ,x-b"] {
        assert_eq!(preflight(&table, named), Some(1), "{named}");
    }
    for named in ["", "content-type", "x-versions", "x-a"] {
        assert_eq!(preflight(&table, named), Some(0), "{named}");
    }
    let put = ("Access-Control-Request-Method", "PUT");
    assert_eq!(ask(&table, "OPTIONS", &[ORIGIN, put, ("Access-Control-Request-Headers", "x-a")]), Some(2));
    // The request itself, and what is no preflight.
    assert_eq!(ask(&table, "GET", &[("x-version", "2")]), Some(1));
    assert_eq!(ask(&table, "GET", &[("x-version", "3"), ("Access-Control-Request-Headers", "x-version")]), Some(0));
    assert_eq!(ask(&table, "OPTIONS", &[GET, ("Access-Control-Request-Headers", "x-version")]), Some(0), "no origin");
}

#[test]
fn all_fields_of_a_match_have_to_be_named_or_there_and_the_most_specific_wins() {
    let both: &[(&str, &str)] = &[("x-a", "1"), ("x-b", "1")];
    let table = table(&[(None, &[("x-a", "1")], true), (None, both, true), (None, &[("user-agent", "me")], true)]);
    assert_eq!(
        [preflight(&table, "x-a,x-b"), preflight(&table, "x-a"), preflight(&table, "x-b")],
        [Some(1), Some(0), None]
    );
    // What a browser sends with every request, it sends with this one.
    assert_eq!(ask(&table, "OPTIONS", &[ORIGIN, GET, ("User-Agent", "me")]), Some(2));
}

#[test]
fn rules_without_the_filter_and_such_that_ask_for_options_keep_theirs() {
    let options = Some("OPTIONS");
    let t =
        table(&[(None, &[("x-a", "1")], false), (None, &[], false), (options, &[], false), (Some("GET"), &[], true)]);
    assert_eq!(preflight(&t, "x-a"), Some(2), "whoever asks for OPTIONS takes it");
    let t = table(&[(None, &[("x-a", "1")], false), (None, &[], false)]);
    assert_eq!(preflight(&t, "x-a"), Some(1));
}

/// So many that they are found by what they ask for, which a preflight has not.
#[test]
fn a_preflight_is_found_among_many() {
    let names: Vec<String> = (0..200).map(|n| format!("x-{n}")).collect();
    let headers: Vec<[(&str, &str); 1]> = names.iter().map(|name| [(name.as_str(), "1")]).collect();
    let mut rules: Vec<Match<'_>> =
        headers.iter().zip(0..).map(|(headers, at)| (None, &headers[..], at % 2 == 0)).collect();
    rules.push((None, &[], false));
    let table = table(&rules);
    assert_eq!(
        [preflight(&table, "x-8"), preflight(&table, "x-9"), preflight(&table, "x-0,x-198")],
        [Some(8), Some(200), Some(0)]
    );
    assert_eq!(ask(&table, "GET", &[("x-9", "1")]), Some(9));
    assert_eq!(ask(&table, "OPTIONS", &[("x-9", "1"), ORIGIN, GET]), Some(9));
}
