//! Which rule serves a request, against a reference that goes over all matches and follows the Gateway API's text.
#![cfg(not(loom))]

use proptest::prelude::*;
use tables::route::Host;
use tables::{Conditions, HostPattern, PathPattern, Request, RouteTableBuilder, ValueMatch};

/// One match of a rule.
#[derive(Debug, Clone)]
struct Match {
    host: &'static str,
    exact: bool,
    path: &'static str,
    method: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

#[derive(Debug, Clone)]
struct Asked {
    host: &'static str,
    path: &'static str,
    method: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

const HOSTS: [&str; 6] = ["*", "*.b.c", "*.c", "a.b.c", "x.a.b.c", "c"];
const PATHS: [&str; 7] = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/z"];
const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const NAMES: [&str; 4] = ["x-a", "x-b", "x-c", "x-d"];
const VALUES: [&str; 3] = ["1", "2", "1,2"];

fn values(most: usize) -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let pair = (prop::sample::select(NAMES.to_vec()), prop::sample::select(VALUES.to_vec()));
    prop::collection::vec(pair, 0..=most).prop_map(|mut pairs| {
        pairs.sort();
        pairs.dedup_by_key(|(name, _)| *name);
        pairs
    })
}

prop_compose! {
    fn a_match()(
        host in prop::sample::select(HOSTS.to_vec()),
        exact in any::<bool>(),
        path in prop::sample::select(PATHS.to_vec()),
        method in prop::option::of(prop::sample::select(METHODS.to_vec())),
        headers in values(3),
        query in values(2),
    ) -> Match {
        Match { host, exact, path, method, headers, query }
    }
}

prop_compose! {
    fn asked()(
        host in prop::sample::select(vec!["a.b.c", "x.a.b.c", "y.b.c", "c", "q.c", "other", "A.B.c"]),
        path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d", "/ab", "/q", "/z/z"]),
        method in prop::sample::select(METHODS.to_vec()),
        headers in prop::collection::vec((prop::sample::select(vec!["X-A", "x-b", "X-c", "x-d"]), prop::sample::select(vec!["1", "2"])), 0..5),
        query in values(4),
    ) -> Asked {
        Asked { host, path, method, headers, query }
    }
}

fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

fn matches(m: &Match, asked: &Asked) -> bool {
    let prefix = m.path.trim_end_matches('/');
    let path = if m.exact {
        m.path == asked.path
    } else {
        asked.path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // RFC 9110 §5.3: fields of one name are one, with commas between.
    let field = |name: &str| {
        let same = asked.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
        same.collect::<Vec<_>>().join(",")
    };
    host_matches(m.host, &asked.host.to_ascii_lowercase())
        && path
        && m.method.is_none_or(|method| method == asked.method)
        && m.headers.iter().all(|(name, value)| field(name) == *value)
        && m.query.iter().all(|pair| asked.query.contains(pair))
}

/// What the Gateway API ranks a match by, the hostname first; the greatest wins, and of equals the first.
fn rank(m: &Match) -> impl Ord {
    let host = (!m.host.starts_with('*'), m.host.len());
    let path = (m.exact, m.path.len());
    (host, path, m.method.is_some(), m.headers.len(), m.query.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_table_finds_what_the_specification_says(
        matches_of in prop::collection::vec(a_match(), 1..120),
        requests in prop::collection::vec(asked(), 1..20),
    ) {
        let mut builder = RouteTableBuilder::default();
        for (index, m) in matches_of.iter().enumerate() {
            let host = match m.host.strip_prefix("*.") {
                _ if m.host == "*" => HostPattern::Any,
                Some(suffix) => HostPattern::Wildcard(suffix.into()),
                None => HostPattern::Exact(m.host.into()),
            };
            let path = m.path.as_bytes().into();
            let path = if m.exact { PathPattern::Exact(path) } else { PathPattern::Prefix(path) };
            let pairs = |pairs: &[(&str, &str)]| -> Box<[(Box<[u8]>, ValueMatch)]> {
                let pair = |(n, v): &(&str, &str)| (n.as_bytes().into(), ValueMatch::Exact(v.as_bytes().into()));
                pairs.iter().map(pair).collect()
            };
            let method = m.method.map(|method| method.as_bytes().into());
            let conditions = Conditions { method, headers: pairs(&m.headers), query: pairs(&m.query) };
            builder.insert(host, &path, conditions, index as u32);
        }
        let table = builder.build();
        for asked in &requests {
            let query: Vec<String> = asked.query.iter().map(|(n, v)| format!("{n}={}", v.replace(',', "%2C"))).collect();
            let query = query.join("&");
            let request = Request {
                method: asked.method.as_bytes(),
                path: asked.path.as_bytes(),
                query: (!query.is_empty()).then_some(query.as_bytes()),
                fields: asked.headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())),
            };
            let found = table.find(&Host::new(asked.host.as_bytes()), &request);
            let candidates = matches_of.iter().enumerate().filter(|(_, m)| matches(m, asked));
            let expected = candidates.rev().max_by_key(|(_, m)| rank(m)).map(|(index, _)| index as u32);
            prop_assert_eq!(found, expected, "{:?} of {:?}", asked, matches_of);
        }
    }
}
