//! Which rule serves a host and a path, with the Gateway API's precedence.
//!
//! The most specific hostname wins, then an Exact path, then a RegularExpression, the longer first, then the longest prefix; among
//! matches of the same path, what asks for a method, for more header fields, for more parameters. A rule that wins by host or path but asks
//! for what the request has not, leaves it to the next one, and one of a less specific hostname serves what none of a more
//! specific one does. Looking up costs a hash per label of the host and a hash per segment of the path, whatever the number of
//! rules; where expressions are used, a load per byte of the path and expression of that host.

use core::cell::OnceCell;
use core::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrayvec::ArrayVec;
use hashbrown::HashMap;

use crate::chain::{Candidate, Chain};
use crate::matching::{Conditions, Expression, Fields, Request};
use crate::paths::PathMap;

/// The longest hostname (RFC 1035 §2.3.4), without a trailing dot.
pub const MAX_HOST: usize = 253;

/// A hostname as a listener or a route gives it, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Any host.
    Any,
    /// `*.example.com`: one or more labels before the suffix, which is kept without `*.`.
    Wildcard(Box<str>),
    /// This host.
    Exact(Box<str>),
}

/// A path as a rule gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path, byte for byte.
    Exact(Box<[u8]>),
    /// This path and all below it, by whole segments; a trailing slash does not count.
    Prefix(Box<[u8]>),
    /// The paths that the whole of this expression matches.
    Expression(Expression),
}

/// A request's host, without port: put into lower case when a table needs that, and then only once.
#[derive(Debug)]
pub struct Host<'b> {
    sent: &'b [u8],
    lower: OnceCell<ArrayVec<u8, MAX_HOST>>,
}

impl<'b> Host<'b> {
    /// The host as it was sent, in any case.
    #[must_use]
    pub const fn new(sent: &'b [u8]) -> Self {
        Self { sent, lower: OnceCell::new() }
    }

    /// In lower case and without a trailing dot; empty, which no pattern but [`HostPattern::Any`] matches, where it is too long for a
    /// hostname.
    fn lower(&self) -> &[u8] {
        self.lower.get_or_init(|| {
            let mut lower = ArrayVec::new();
            let _ = lower.try_extend_from_slice(self.sent.strip_suffix(b".").unwrap_or(self.sent));
            lower.make_ascii_lowercase();
            lower
        })
    }
}

/// Maps a request to a rule's index.
#[derive(Debug, Default, Clone)]
pub struct RouteTable {
    hosts: HostMap,
    tables: Box<[PathTable]>,
    chains: Arc<[Chain]>,
}

/// Maps a host to a list of indices, the most specific pattern's first.
#[derive(Debug, Default, Clone)]
struct HostMap {
    exact: HashMap<Box<[u8]>, Box<[u32]>>,
    wildcard: HashMap<Box<[u8]>, Box<[u32]>>,
    any: Box<[u32]>,
}

/// What serves a path: a rule, or the chain of those that ask for more than the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found(u32);

impl Found {
    const CHAIN: u32 = 1 << 31;
}

#[derive(Debug, Default, Clone)]
struct PathTable {
    exact: PathMap<Found>,
    /// Without trailing slashes, and without `/` itself.
    prefix: PathMap<Found>,
    longest_prefix: usize,
    /// The prefix `/`. Not in the map, which it would be asked for by each path that nothing longer matches.
    root: Option<Found>,
    expressions: Option<Box<[(Expression, Candidate)]>>,
}

/// Collects patterns for a [`RouteTable`]. Where two are equal, the one inserted first wins.
#[derive(Debug, Default)]
pub struct RouteTableBuilder {
    hosts: BTreeMap<HostPattern, PathTableBuilder>,
}

#[derive(Debug, Default)]
struct PathTableBuilder {
    exact: BTreeMap<Box<[u8]>, Vec<Candidate>>,
    /// With the length of each pattern as it was given: `/a/` is longer than `/a`.
    prefix: BTreeMap<Box<[u8]>, Vec<(usize, Candidate)>>,
    expressions: Vec<(Expression, Candidate)>,
}

impl RouteTableBuilder {
    /// Lets `rule` serve `path` on `host` where `conditions` hold.
    pub fn insert(&mut self, host: HostPattern, path: &PathPattern, conditions: Conditions, rule: u32) {
        self.add(host, path, Candidate { conditions, rule, preflight: false });
    }

    /// Lets `rule` serve the preflights (Fetch standard, CORS protocol) of requests for `path` on `host` for which `conditions` hold, where no
    /// match of that path asks for OPTIONS.
    pub fn insert_preflight(&mut self, host: HostPattern, path: &PathPattern, conditions: Conditions, rule: u32) {
        self.add(host, path, Candidate { conditions, rule, preflight: true });
    }

    fn add(&mut self, host: HostPattern, path: &PathPattern, candidate: Candidate) {
        let table = self.hosts.entry(host).or_default();
        match path {
            PathPattern::Exact(path) => table.exact.entry(path.clone()).or_default().push(candidate),
            PathPattern::Prefix(path) => {
                table.prefix.entry(trim_slashes(path).into()).or_default().push((path.len(), candidate));
            }
            PathPattern::Expression(path) => table.expressions.push((path.clone(), candidate)),
        }
    }

    /// The finished table.
    #[must_use]
    pub fn build(self) -> RouteTable {
        let (patterns, tables): (Vec<_>, Vec<_>) = self.hosts.into_iter().unzip();
        let mut chains = Vec::new();
        let tables = tables.into_iter().map(|table| table.build(&mut chains)).collect();
        RouteTable { hosts: HostMap::new(&patterns), tables, chains: chains.into() }
    }
}

impl PathTableBuilder {
    fn build(self, chains: &mut Vec<Chain>) -> PathTable {
        let mut chain = |candidates: Vec<Candidate>| match candidates.as_slice() {
            [first, ..] if first.conditions.is_empty() => Found(first.rule),
            _ => {
                chains.push(Chain::new(candidates));
                // A chain is hundreds of bytes: memory ends long before 31 bits do.
                Found((chains.len() as u32 - 1) | Found::CHAIN)
            }
        };
        // Sorting is stable: what was inserted first stays in front of its equals.
        let exact = self.exact.into_iter().map(|(path, mut candidates)| {
            candidates.sort_by_key(Candidate::order);
            (path, chain(candidates))
        });
        let exact = exact.collect();
        let longest_prefix = self.prefix.keys().map(|path| path.len()).max().unwrap_or(0);
        let prefix = self.prefix.into_iter().map(|(path, mut candidates)| {
            candidates.sort_by_key(|(len, candidate)| (Reverse(*len), candidate.order()));
            (path, chain(candidates.into_iter().map(|(_, candidate)| candidate).collect()))
        });
        // The empty path sorts first.
        let mut prefix = prefix.peekable();
        let root = prefix.next_if(|(path, _)| path.is_empty()).map(|(_, found)| found);
        let prefix = prefix.collect();
        let mut expressions = self.expressions;
        expressions.sort_by_key(|(expression, candidate)| (Reverse(expression.text().len()), candidate.order()));
        let expressions = (!expressions.is_empty()).then(|| expressions.into());
        PathTable { exact, prefix, longest_prefix, root, expressions }
    }
}

impl RouteTable {
    /// The rule for a request.
    #[must_use]
    pub fn find<'b, F: Fields<'b>>(&self, host: &Host<'_>, request: &Request<'b, F>) -> Option<u32> {
        let tables = self.hosts.find(host);
        tables.iter().find_map(|&t| self.tables.get(t as usize)?.find(&self.chains, request))
    }
}

impl HostMap {
    /// Indices are positions in `patterns`, which hold no pattern twice.
    fn new(patterns: &[HostPattern]) -> Self {
        // Each pattern's list ends with all less specific patterns that match the same hosts, so that one look-up suffices.
        let positions: HashMap<&HostPattern, u32> = patterns.iter().zip(0u32..).collect();
        let less_specific = |host: &str, own: u32| -> Box<[u32]> {
            let wildcard = |parent: &[u8]| {
                let parent = core::str::from_utf8(parent).ok()?;
                positions.get(&HostPattern::Wildcard(parent.into())).copied()
            };
            let wider = parents(host.as_bytes()).filter_map(wildcard);
            core::iter::once(own).chain(wider).chain(positions.get(&HostPattern::Any).copied()).collect()
        };
        let mut map = Self::default();
        for (pattern, own) in patterns.iter().zip(0u32..) {
            match pattern {
                HostPattern::Exact(host) => {
                    map.exact.insert(host.as_bytes().into(), less_specific(host, own));
                }
                HostPattern::Wildcard(suffix) => {
                    map.wildcard.insert(suffix.as_bytes().into(), less_specific(suffix, own));
                }
                HostPattern::Any => map.any = [own].into(),
            }
        }
        map
    }

    fn find(&self, host: &Host<'_>) -> &[u32] {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return &self.any;
        }
        let host = host.lower();
        if !self.exact.is_empty()
            && let Some(tables) = self.exact.get(host)
        {
            return tables;
        }
        if !self.wildcard.is_empty()
            && let Some(tables) = parents(host).find_map(|parent| self.wildcard.get(parent))
        {
            return tables;
        }
        &self.any
    }
}

impl PathTable {
    #[inline]
    fn find<'b, F: Fields<'b>>(&self, chains: &[Chain], request: &Request<'b, F>) -> Option<u32> {
        let path = request.path;
        if !self.exact.is_empty()
            && let Some(rule) = self.exact.get(path).and_then(|found| found.rule(chains, request))
        {
            return Some(rule);
        }
        if let Some(expressions) = &self.expressions
            && let Some(rule) = by_expression(expressions, request)
        {
            return Some(rule);
        }
        if !self.prefix.is_empty()
            && let Some(rule) = self.by_prefix(chains, request)
        {
            return Some(rule);
        }
        matches!(path, [] | [b'/', ..]).then_some(self.root?)?.rule(chains, request)
    }

    #[inline]
    fn by_prefix<'b, F: Fields<'b>>(&self, chains: &[Chain], request: &Request<'b, F>) -> Option<u32> {
        let path = request.path;
        // Every candidate ends where a segment ends: at the end of the path or before a slash. Longest first.
        let start = self.longest_prefix.min(path.len());
        if start == path.len()
            && start > 0
            && let Some(rule) = self.prefix.get(path).and_then(|found| found.rule(chains, request))
        {
            return Some(rule);
        }
        let slashes = path.get(..path.len().min(start + 1)).unwrap_or_default();
        slashes
            .iter()
            .enumerate()
            .rev()
            .filter(|&(at, &byte)| byte == b'/' && at > 0)
            .find_map(|(at, _)| self.prefix.get(slashes.get(..at)?)?.rule(chains, request))
    }
}

impl Found {
    #[inline]
    fn rule<'b, F: Fields<'b>>(self, chains: &[Chain], request: &Request<'b, F>) -> Option<u32> {
        if self.0 & Self::CHAIN == 0 {
            return Some(self.0);
        }
        chains.get((self.0 & !Self::CHAIN) as usize)?.find(request)
    }
}

#[inline(never)]
fn by_expression<'b, F: Fields<'b>>(expressions: &[(Expression, Candidate)], request: &Request<'b, F>) -> Option<u32> {
    let matching = |(expression, candidate): &&(Expression, Candidate)| {
        expression.matches(request.path.iter().copied()) && candidate.holds(request)
    };
    expressions.iter().find(matching).map(|(_, candidate)| candidate.rule)
}

/// Maps the hostnames of a socket address's listeners to one of them: the most specific that matches.
#[derive(Debug, Default, Clone)]
pub struct HostTable(HostMap);

impl HostTable {
    /// A table that yields the positions of `patterns`, which hold no pattern twice.
    #[must_use]
    pub fn new(patterns: &[HostPattern]) -> Self {
        Self(HostMap::new(patterns))
    }

    /// The position of the most specific pattern that matches `host`.
    #[must_use]
    pub fn find(&self, host: &Host<'_>) -> Option<u32> {
        self.0.find(host).first().copied()
    }
}

/// What stands behind each dot: `b.c` and `c` for `a.b.c`.
fn parents(host: &[u8]) -> impl Iterator<Item = &[u8]> {
    host.iter().enumerate().filter(|&(_, &byte)| byte == b'.').filter_map(|(at, _)| host.get(at + 1..))
}

fn trim_slashes(mut path: &[u8]) -> &[u8] {
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rules: &[(&str, &str)]) -> RouteTable {
        let mut builder = RouteTableBuilder::default();
        for (index, (host, path)) in rules.iter().enumerate() {
            let host = match host.strip_prefix("*.") {
                Some(suffix) => HostPattern::Wildcard(suffix.into()),
                None if *host == "*" => HostPattern::Any,
                None => HostPattern::Exact((*host).into()),
            };
            let path = match path.strip_prefix('=') {
                Some(exact) => PathPattern::Exact(exact.as_bytes().into()),
                None => PathPattern::Prefix(path.as_bytes().into()),
            };
            builder.insert(host, &path, Conditions::default(), index as u32);
        }
        builder.build()
    }

    fn find(table: &RouteTable, host: &str, path: &str) -> Option<u32> {
        table.find(&Host::new(host.as_bytes()), &get(path.as_bytes()))
    }

    fn get(path: &[u8]) -> Request<'_, core::iter::Empty<(&[u8], &[u8])>> {
        Request { method: b"GET", path, query: None, fields: core::iter::empty() }
    }

    #[test]
    fn prefixes_match_by_segment_and_the_longest_wins() {
        let t = table(&[("*", "/"), ("*", "/foo"), ("*", "/foo/bar/"), ("*", "=/foo/bar")]);
        assert_eq!(find(&t, "x", "/"), Some(0));
        assert_eq!(find(&t, "x", "/foobar"), Some(0));
        assert_eq!(find(&t, "x", "/foo"), Some(1));
        assert_eq!(find(&t, "x", "/foo/"), Some(1));
        assert_eq!(find(&t, "x", "/foo/ba"), Some(1));
        assert_eq!(find(&t, "x", "/foo/bar"), Some(3));
        assert_eq!(find(&t, "x", "/foo/bar/"), Some(2));
        assert_eq!(find(&t, "x", "/foo/bar/baz/1"), Some(2));
        assert_eq!(find(&t, "x", "*"), None);
        assert_eq!(find(&t, "x", ""), Some(0));
    }

    #[test]
    fn without_a_root_prefix_the_rest_is_not_served() {
        let t = table(&[("*", "/foo"), ("*", "=/bar")]);
        assert_eq!(find(&t, "x", "/"), None);
        assert_eq!(find(&t, "x", "/fo"), None);
        assert_eq!(find(&t, "x", "/bar/"), None);
        assert_eq!(find(&t, "x", "/foo/a-path-longer-than-any-prefix"), Some(0));
    }

    #[test]
    fn the_most_specific_hostname_comes_first_and_wider_ones_serve_the_rest() {
        let t =
            table(&[("*", "/"), ("*.example.com", "/w"), ("*.shop.example.com", "/s"), ("a.shop.example.com", "/e")]);
        assert_eq!(find(&t, "a.shop.example.com", "/e"), Some(3));
        assert_eq!(find(&t, "A.Shop.Example.COM.", "/e"), Some(3));
        assert_eq!(find(&t, "a.shop.example.com", "/s"), Some(2));
        assert_eq!(find(&t, "a.shop.example.com", "/w"), Some(1));
        assert_eq!(find(&t, "a.shop.example.com", "/x"), Some(0));
        assert_eq!(find(&t, "b.shop.example.com", "/e"), Some(0));
        assert_eq!(find(&t, "b.c.shop.example.com", "/s"), Some(2));
        assert_eq!(find(&t, "example.com", "/w"), Some(0), "a wildcard needs a label");
        assert_eq!(find(&t, "notexample.com", "/w"), Some(0));
    }

    #[test]
    fn equal_patterns_leave_the_first_in_place() {
        let t = table(&[("a.b", "/x"), ("a.b", "/x"), ("a.b", "=/x"), ("a.b", "=/x")]);
        assert_eq!(find(&t, "a.b", "/x"), Some(2));
        assert_eq!(find(&t, "a.b", "/x/y"), Some(0));
        assert_eq!(find(&t, "other", "/x"), None);
    }

    #[test]
    fn hosts_that_are_none_match_only_any() {
        let t = table(&[("*", "/"), ("a.b", "/")]);
        assert_eq!(find(&t, "", "/"), Some(0));
        assert_eq!(find(&t, &"a".repeat(300), "/"), Some(0));
        assert_eq!(t.find(&Host::new(&[0xff, 0xfe]), &get(b"/")), Some(0));
        assert_eq!(find(&t, "[::1]", "/"), Some(0));
    }

    #[test]
    fn preflights_go_where_their_requests_go_unless_somebody_asks_for_options() {
        let method = |method: &str| Conditions { method: Some(method.as_bytes().into()), ..Conditions::default() };
        let mut builder = RouteTableBuilder::default();
        let any = PathPattern::Prefix((*b"/").into());
        let api = PathPattern::Prefix((*b"/api").into());
        builder.insert(HostPattern::Any, &any, Conditions::default(), 0);
        builder.insert(HostPattern::Any, &api, method("GET"), 1);
        builder.insert_preflight(HostPattern::Any, &api, method("GET"), 1);
        let other = PathPattern::Exact((*b"/own").into());
        builder.insert_preflight(HostPattern::Any, &other, method("GET"), 1);
        builder.insert(HostPattern::Any, &other, method("OPTIONS"), 2);
        let table = builder.build();
        let ask = |method: &'static str, path: &'static str, fields: &[(&'static str, &'static str)]| {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let request = Request {
                method: method.as_bytes(),
                path: path.as_bytes(),
                query: None,
                fields: fields.iter().copied(),
            };
            table.find(&Host::new(b"x"), &request)
        };
        let (origin, get) = (("Origin", "https://a"), ("Access-Control-Request-Method", "GET"));
        assert_eq!(ask("OPTIONS", "/api/x", &[origin, get]), Some(1));
        assert_eq!(ask("GET", "/api/x", &[]), Some(1));
        // What is no preflight, or one for something else, is like any other OPTIONS.
        for fields in [&[][..], &[origin], &[get], &[origin, ("Access-Control-Request-Method", "PUT")]] {
            assert_eq!(ask("OPTIONS", "/api/x", fields), Some(0), "{fields:?}");
        }
        assert_eq!(ask("POST", "/api/x", &[origin, get]), Some(0));
        assert_eq!(ask("OPTIONS", "/own", &[origin, get]), Some(2));
    }

    #[test]
    fn keys_of_any_length_are_found() {
        let paths: Vec<String> = (1..80).map(|len| format!("/{}", "p".repeat(len))).collect();
        let rules: Vec<(&str, &str)> = paths.iter().map(|path| ("*", path.as_str())).collect();
        let t = table(&rules);
        for (at, path) in (0..).zip(&paths) {
            assert_eq!(find(&t, "x", path), Some(at));
            assert_eq!(find(&t, "x", &format!("{path}/x")), Some(at));
        }
        assert_eq!(find(&t, "x", "/"), None);
    }

    #[test]
    fn listeners_by_hostname() {
        let hosts = HostTable::new(&[
            HostPattern::Any,
            HostPattern::Wildcard("example.com".into()),
            HostPattern::Exact("a.example.com".into()),
        ]);
        assert_eq!(hosts.find(&Host::new(b"a.example.com")), Some(2));
        assert_eq!(hosts.find(&Host::new(b"b.example.com")), Some(1));
        assert_eq!(hosts.find(&Host::new(b"example.com")), Some(0));
        assert_eq!(HostTable::new(&[HostPattern::Exact("a".into())]).find(&Host::new(b"b")), None);
    }

    #[test]
    fn ten_thousand_rules_are_found_like_ten() {
        let rules: Vec<_> = (0..10_000).map(|i| (format!("h{i}.example.com"), format!("/p{i}"))).collect();
        let mut builder = RouteTableBuilder::default();
        for (i, (host, path)) in rules.iter().enumerate() {
            let path = PathPattern::Prefix(path.as_bytes().into());
            builder.insert(HostPattern::Exact(host.as_str().into()), &path, Conditions::default(), i as u32);
        }
        let t = builder.build();
        for (i, (host, path)) in rules.iter().enumerate() {
            assert_eq!(find(&t, host, &format!("{path}/x")), Some(i as u32));
            assert_eq!(find(&t, host, "/other"), None);
        }
    }
}
