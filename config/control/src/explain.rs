//! Why a request would go where it goes: the rules that were considered, the one that is chosen, and what it does.
//!
//! Whether a match holds is asked of the tables that cores read, one match at a time, and the choice of the whole ones: what is said here is what
//! happens there.

mod chosen;
mod pick;
mod question;

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;

use schema::{HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRule, ValueMatch};
use serde::{Deserialize, Serialize};
use tables::inspect::Turn;
use tables::{Bind, Conditions, HostPattern, Listener, PathPattern, Request, RouteTableBuilder, Routed, Selection};

use crate::compile::Compiled;
use crate::compile::routes::{conditions, hosts_of, path_pattern, takes_preflights};
use crate::status::{EndpointStatus, NameStatus};
pub use chosen::{BackendChoice, Chosen, CoreTurn, EndpointShare};
pub use pick::{Candidate as DrawCandidate, Pick};
pub use question::Question;

/// Rules that are shown beside the chosen one, at most.
const SHOWN: usize = 20;

/// What would become of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Method and target.
    pub request: String,
    /// The epoch of the tables that were asked.
    pub epoch: u64,
    /// Where it comes in: address and port, and the listener that takes its host.
    pub listener: Option<ListenerChoice>,
    /// Rules of routes attached to that listener, in the order of precedence: those that match, and then those that nearly do.
    pub considered: Vec<Considered>,
    /// Rules of these routes that are not shown.
    pub passed_over: usize,
    /// The rule that takes it.
    pub chosen: Option<Chosen>,
    /// What becomes of it, in a sentence.
    pub outcome: String,
}

/// The listener that takes a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerChoice {
    /// Address and port.
    pub address: String,
    /// `namespace/gateway/listener`; `None` where none of those at that address takes the host.
    pub name: Option<String>,
    /// Its hostname; `*` for all.
    pub hostname: String,
    /// The others at that address, with their hostnames.
    pub others: Vec<String>,
}

/// A rule that was considered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// `namespace/route`.
    pub route: String,
    /// Position of the rule, from 0.
    pub rule: u32,
    /// Its name.
    pub name: Option<String>,
    /// The route's hostname that counts here; `*` for any.
    pub hostname: String,
    /// Its match, in words.
    pub matching: String,
    /// Whether it matches.
    pub matches: bool,
    /// Why it is not the chosen one; or that it is.
    pub verdict: String,
}

/// How things are in a running Millrace; nothing is known where nothing is said.
#[derive(Clone, Copy, Default)]
pub struct Present<'a> {
    /// The endpoints.
    pub endpoints: &'a [EndpointStatus],
    /// What DNS says.
    pub names: &'a [NameStatus],
    /// Who takes requests, by cluster.
    pub selections: &'a [Arc<Selection>],
    /// Asks cores for their places in the schedules of a rule: those that answer, with their indices, in order.
    pub turns: Option<&'a dyn Fn(u32) -> Vec<(u16, Turn)>>,
}

/// Explains what would become of a request, with things as they are at `present`.
///
/// # Errors
/// The question cannot be understood, in words.
pub fn explain(compiled: &Compiled, present: &Present<'_>, question: &Question) -> Result<Explanation, String> {
    let asked = question.parse()?;
    let snapshot = &compiled.snapshot;
    let mut explanation = Explanation {
        request: format!("{} {}", question.method, question.url),
        epoch: snapshot.epoch,
        listener: None,
        considered: Vec::new(),
        passed_over: 0,
        chosen: None,
        outcome: String::new(),
    };
    let at_port = || snapshot.binds().iter().filter(|bind| bind.address.port() == asked.port);
    let wanted = asked.address.map(|address| SocketAddr::new(address, asked.port));
    let Some(bind) = at_port().find(|bind| wanted.is_none_or(|wanted| bind.address == wanted)) else {
        let ports: Vec<String> = snapshot.binds().iter().map(|bind| bind.address.to_string()).collect();
        explanation.outcome = match ports.as_slice() {
            [] => "nobody listens anywhere".to_owned(),
            _ => format!("nobody listens there: the connection is refused. Listeners are at {}", ports.join(", ")),
        };
        return Ok(explanation);
    };
    let listener = listener_of(bind, asked.host.as_bytes());
    explanation.listener = Some(listener_choice(bind, listener));
    if let Some(client) = question.client
        && !bind.allows(client)
    {
        explanation.outcome = format!("{client} may not connect (SecurityPolicy): its packets get no answer");
        return Ok(explanation);
    }
    let Some(listener) = listener else {
        explanation.outcome = format!("404: no listener at {} takes the host {}", bind.address, asked.host);
        return Ok(explanation);
    };
    let fields = asked.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let request = Request {
        method: question.method.as_bytes(),
        path: asked.path.as_bytes(),
        query: asked.query.as_deref().map(str::as_bytes),
        fields,
    };
    let routed = snapshot.bind(bind.address).map(|id| snapshot.route(id, asked.host.as_bytes(), &request));
    let (position, chosen) = match routed {
        Some(Routed::Rule(position, rule)) => (position, Some(rule)),
        _ => (0, None),
    };
    let mut candidates = candidates(compiled, listener, &asked.host, &request);
    // Sorting is stable: what stands first among equals, in age, name and position, stays first.
    candidates.sort_by_key(|c| (Reverse(c.matches), c.rank.clone()));
    let rule_of = |candidate: &Candidate<'_>| {
        chosen.is_some_and(|r| *r.route == *candidate.route.metadata.object.to_string() && r.index == candidate.number)
    };
    let winner = candidates.iter().position(|c| c.matches && rule_of(c));
    let best = winner.and_then(|at| candidates.get(at)).map(|c| (c.rank.clone(), c.route, c.number, c.rule));
    explanation.passed_over = candidates.len().saturating_sub(SHOWN);
    for (position, candidate) in candidates.iter().enumerate().take(SHOWN) {
        let verdict = if Some(position) == winner {
            "chosen".to_owned()
        } else if let (true, Some((rank, route, number, _))) = (candidate.matches, &best) {
            if core::ptr::eq(*route, candidate.route) && *number == candidate.number {
                "another match of the chosen rule".to_owned()
            } else {
                format!("matches, but {}", rank.beats(&candidate.rank))
            }
        } else {
            candidate.failed.clone()
        };
        explanation.considered.push(Considered {
            route: candidate.route.metadata.object.to_string(),
            rule: candidate.number,
            name: candidate.rule.name.as_ref().map(ToString::to_string),
            hostname: host_text(&candidate.host),
            matching: match_text(candidate.matched),
            matches: candidate.matches,
            verdict,
        });
    }
    match (chosen, best) {
        (Some(rule), Some((_, _, _, source))) => {
            let mut chosen = chosen::describe(compiled, rule, source);
            chosen.as_they_are(compiled, present);
            chosen.pick(compiled, present, (position, rule), &request, question.client);
            explanation.outcome = chosen.outcome();
            explanation.chosen = Some(chosen);
        }
        (Some(rule), None) => explanation.outcome = format!("taken by rule {} of {}", rule.index, rule.route),
        (None, _) => explanation.outcome = format!("404: no rule of listener {} takes it", listener.name),
    }
    Ok(explanation)
}

/// One match of one rule under one hostname.
struct Candidate<'c> {
    route: &'c HttpRoute,
    rule: &'c HttpRouteRule,
    number: u32,
    host: HostPattern,
    matched: &'c HttpRouteMatch,
    rank: Rank,
    matches: bool,
    failed: String,
}

/// What decides among matches: the smaller comes first (Gateway API `HTTPRouteRule.matches`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    host: Reverse<(u8, usize)>,
    path: Reverse<(u8, usize)>,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
}

impl Rank {
    fn new(host: &HostPattern, matched: &HttpRouteMatch) -> Self {
        let host = match host {
            HostPattern::Exact(host) => (2, host.len()),
            HostPattern::Wildcard(suffix) => (1, suffix.len()),
            HostPattern::Any => (0, 0),
        };
        let path = match &matched.path {
            // The path is the request's: all exact ones are equally long.
            HttpPathMatch::Exact(_) => (2, 0),
            HttpPathMatch::RegularExpression(expression) => (1, expression.text().len()),
            HttpPathMatch::PathPrefix(prefix) => (0, prefix.len()),
        };
        Self {
            host: Reverse(host),
            path: Reverse(path),
            method: Reverse(matched.method.is_some()),
            headers: Reverse(matched.headers.len()),
            query: Reverse(matched.query_params.len()),
        }
    }

    /// Why this one comes before `other`.
    fn beats(&self, other: &Self) -> &'static str {
        if self.host != other.host {
            "the chosen one's hostname is more specific"
        } else if self.path.0.0 != other.path.0.0 {
            match self.path.0.0 {
                2 => "the chosen one's path is Exact",
                _ => "the chosen one's path is a RegularExpression, which comes before a prefix",
            }
        } else if self.path != other.path {
            "the chosen one's path is longer"
        } else if self.method != other.method {
            "the chosen one asks for a method"
        } else if self.headers != other.headers {
            "the chosen one asks for more header fields"
        } else if self.query != other.query {
            "the chosen one asks for more query parameters"
        } else {
            "the chosen one's route is older, or comes first by name, or its rule stands first"
        }
    }
}

/// All matches of rules attached to `listener` whose hostname fits, the oldest route's first.
fn candidates<'c, 'b, F: tables::matching::Fields<'b>>(
    compiled: &'c Compiled,
    listener: &Listener,
    host: &str,
    request: &Request<'b, F>,
) -> Vec<Candidate<'c>> {
    let configuration = &compiled.configuration;
    let attached = configuration.routes.iter().map(|route| &route.value);
    let mut attached: Vec<&HttpRoute> = attached.filter(|route| is_attached(compiled, route, &listener.name)).collect();
    attached.sort_by(|a, b| crate::compile::by_age(&a.metadata, &b.metadata));
    let listens = configuration.gateways.iter().find_map(|gateway| {
        let own = |l: &&schema::Located<schema::Listener>| {
            *listener.name == *format!("{}/{}", gateway.metadata.object, l.name)
        };
        gateway.spec.listeners.iter().find(own)
    });
    let mut found = Vec::new();
    for route in attached {
        for pattern in hosts_of(route, listens.and_then(|l| l.hostname.as_deref())) {
            if !holds(&pattern, &PathPattern::Prefix((*b"/").into()), Conditions::default(), host, &any_path(request)) {
                continue;
            }
            for (number, rule) in (0u32..).zip(&route.spec.rules) {
                for matched in &rule.matches {
                    let (path, all) = (path_pattern(&matched.path), conditions(matched));
                    let matches = holds(&pattern, &path, all.clone(), host, request)
                        || (takes_preflights(rule, matched)
                            && holds_for_preflight(&pattern, &path, &all, host, request));
                    found.push(Candidate {
                        route,
                        rule,
                        number,
                        host: pattern.clone(),
                        matched,
                        rank: Rank::new(&pattern, matched),
                        matches,
                        failed: if matches { String::new() } else { failed(&path, &all, matched, request) },
                    });
                }
            }
        }
    }
    found
}

/// Whether a table with this one match finds it.
fn holds<'b, F: tables::matching::Fields<'b>>(
    pattern: &HostPattern,
    path: &PathPattern,
    conditions: Conditions,
    host: &str,
    request: &Request<'b, F>,
) -> bool {
    let mut table = RouteTableBuilder::default();
    table.insert(pattern.clone(), path, conditions, 0);
    table.build().find(&tables::route::Host::new(host.as_bytes()), request).is_some()
}

/// Whether a table with this one match finds the rule for a preflight.
fn holds_for_preflight<'b, F: tables::matching::Fields<'b>>(
    pattern: &HostPattern,
    path: &PathPattern,
    conditions: &Conditions,
    host: &str,
    request: &Request<'b, F>,
) -> bool {
    let mut table = RouteTableBuilder::default();
    table.insert_preflight(pattern.clone(), path, conditions.clone(), 0);
    table.build().find(&tables::route::Host::new(host.as_bytes()), request).is_some()
}

fn any_path<'b, F: tables::matching::Fields<'b>>(request: &Request<'b, F>) -> Request<'b, F> {
    Request { path: b"/", ..request.clone() }
}

/// What of a match does not hold.
fn failed<'b, F: tables::matching::Fields<'b>>(
    path: &PathPattern,
    all: &Conditions,
    matched: &HttpRouteMatch,
    request: &Request<'b, F>,
) -> String {
    let holds = |path: &PathPattern, conditions| holds(&HostPattern::Any, path, conditions, "", request);
    let mut wrong = Vec::new();
    if !holds(path, Conditions::default()) {
        wrong.push("its path does not match".to_owned());
    }
    let anywhere = PathPattern::Exact(request.path.into());
    if all.method.is_some() && !holds(&anywhere, Conditions { method: all.method.clone(), ..Conditions::default() }) {
        wrong.push(format!("the method is not {}", matched.method.unwrap_or_default()));
    }
    for (header, given) in all.headers.iter().zip(&matched.headers) {
        if !holds(&anywhere, Conditions { headers: [header.clone()].into(), ..Conditions::default() }) {
            wrong.push(format!("header {} is not {}", given.name, value_text(&given.value.value)));
        }
    }
    for (parameter, given) in all.query.iter().zip(&matched.query_params) {
        if !holds(&anywhere, Conditions { query: [parameter.clone()].into(), ..Conditions::default() }) {
            wrong.push(format!("query parameter {} is not {}", given.name, value_text(&given.value.value)));
        }
    }
    wrong.join("; ")
}

fn is_attached(compiled: &Compiled, route: &HttpRoute, listener: &str) -> bool {
    let name = route.metadata.object.to_string();
    compiled.attached.get(&name).is_some_and(|listeners| listeners.iter().any(|l| **l == *listener))
}

fn listener_of<'b>(bind: &'b Bind, host: &[u8]) -> Option<&'b Listener> {
    bind.listener(host)
}

fn listener_choice(bind: &Bind, listener: Option<&Listener>) -> ListenerChoice {
    let is_it = |l: &&Listener| listener.is_some_and(|chosen| core::ptr::eq(*l, chosen));
    let others = bind.listeners().iter().filter(|l| !is_it(l));
    ListenerChoice {
        address: bind.address.to_string(),
        name: listener.map(|l| l.name.to_string()),
        hostname: listener.map_or_else(String::new, |l| host_text(&l.hostname)),
        others: others.map(|l| format!("{} ({})", l.name, host_text(&l.hostname))).collect(),
    }
}

fn host_text(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Any => "*".to_owned(),
        HostPattern::Wildcard(suffix) => format!("*.{suffix}"),
        HostPattern::Exact(host) => host.to_string(),
    }
}

fn match_text(matched: &HttpRouteMatch) -> String {
    let mut text = match &matched.path {
        HttpPathMatch::Exact(path) => format!("path = {path}"),
        HttpPathMatch::PathPrefix(path) => format!("path {path}…"),
        HttpPathMatch::RegularExpression(path) => format!("path ~ {}", path.text()),
    };
    if let Some(method) = matched.method {
        text = format!("{method}, {text}");
    }
    for header in &matched.headers {
        text += &format!(", header {} {}", header.name, value_text(&header.value.value));
    }
    for parameter in &matched.query_params {
        text += &format!(", query {} {}", parameter.name, value_text(&parameter.value.value));
    }
    text
}

fn value_text(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(value) => format!("= {value}"),
        ValueMatch::RegularExpression(expression) => format!("~ {}", expression.text()),
    }
}

#[cfg(test)]
mod tests;
