//! Queries and fields in a route's decision: candidates found by their key are those found one after the other.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use proto::http1::{Limits, parse_request};
use tables::route::Host;
use tables::{Conditions, Expression, HostPattern, PathPattern, Request, RouteTable, RouteTableBuilder, ValueMatch};

const NAMES: [&str; 3] = ["a", "b b", "%"];
const VALUES: [&str; 4] = ["1", "2,3", "+", "a=b"];

/// One table of all matches, and one of each match alone.
fn tables() -> &'static (RouteTable, Vec<RouteTable>) {
    static TABLES: OnceLock<(RouteTable, Vec<RouteTable>)> = OnceLock::new();
    TABLES.get_or_init(|| {
        let expression = schema::Expression::parse("[a-c]*1").expect("it is one");
        let expression = Expression::new(Arc::clone(expression.text()), Arc::clone(expression.automaton()));
        let mut all = Vec::new();
        for name in NAMES {
            let exact = VALUES.map(|value| ValueMatch::Exact(value.as_bytes().into()));
            for value in exact.into_iter().chain([ValueMatch::Expression(expression.clone())]) {
                let pair = (name.as_bytes().into(), value);
                all.push(Conditions { query: [pair.clone()].into(), ..Conditions::default() });
                all.push(Conditions { headers: [pair].into(), ..Conditions::default() });
            }
        }
        let prefix = PathPattern::Prefix((*b"/").into());
        let (mut whole, mut each) = (RouteTableBuilder::default(), Vec::new());
        for (rule, conditions) in (0..).zip(all) {
            whole.insert(HostPattern::Any, &prefix, conditions.clone(), rule);
            let mut alone = RouteTableBuilder::default();
            alone.insert(HostPattern::Any, &prefix, conditions, rule);
            each.push(alone.build());
        }
        (whole.build(), each)
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(head)) = parse_request(bytes, &Limits::default()) else { return };
    let request = Request {
        method: head.method_bytes,
        path: head.path,
        query: head.query,
        fields: head.fields.iter().map(|field| (field.name, field.value)),
    };
    let host = Host::new(head.host);
    let (whole, each) = tables();
    // Those that ask for header fields go before those that ask for as many parameters.
    let (headers, queries): (Vec<_>, Vec<_>) =
        each.iter().filter_map(|table| table.find(&host, &request)).partition(|rule| rule % 2 == 1);
    assert_eq!(whole.find(&host, &request), headers.into_iter().chain(queries).next());
});
