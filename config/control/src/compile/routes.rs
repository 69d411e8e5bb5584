//! Routes and their rules.

use std::sync::Arc;

use schema::{
    Expression, Hostname, HttpPathMatch, HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRule, HttpValueMatch,
    Located,
};
use tables::{
    ClusterId, Conditions, HostPattern, PathPattern, RouteTable, RouteTableBuilder, Rule, Target, ValueMatch,
};

use super::conditions::Attachment;
use super::{ListenerInput, Run, by_age, pattern, settings};

impl Run<'_> {
    /// The routes that a listener serves. Where two match equally well, the first inserted wins: the older route, then the
    /// first by name, then the first rule.
    pub(super) fn routes_of(
        &mut self,
        index: usize,
        listener: &ListenerInput<'_>,
        attachments: &[Attachment<'_>],
    ) -> RouteTable {
        let mut routes: Vec<&HttpRoute> = attachments
            .iter()
            .filter(|a| a.parents.iter().any(|p| p.listeners.contains(&index)))
            .map(|a| a.route)
            .collect();
        routes.sort_by(|a, b| by_age(&a.metadata, &b.metadata));
        let mut table = RouteTableBuilder::default();
        for route in routes {
            let hosts = hosts_of(route, listener.listener.hostname.as_deref());
            for (number, rule) in (0u32..).zip(&route.spec.rules) {
                let index = self.rule(listener, route, number, rule);
                for matched in &rule.matches {
                    let path = path_pattern(&matched.path);
                    let conditions = conditions(matched);
                    for host in &hosts {
                        table.insert(host.clone(), &path, conditions.clone(), index);
                        if takes_preflights(rule, matched) {
                            table.insert_preflight(host.clone(), &path, conditions.clone(), index);
                        }
                    }
                }
            }
        }
        table.build()
    }

    fn rule(&mut self, listener: &ListenerInput<'_>, route: &HttpRoute, number: u32, rule: &HttpRouteRule) -> u32 {
        let route_name: Arc<str> = route.metadata.object.joined().into();
        let mut targets = Vec::new();
        for reference in &rule.backend_refs {
            let valid =
                self.references.resolve(route.metadata.namespace(), &reference.kind, &reference.backend).is_ok();
            let cluster = if valid {
                let session = rule.session_persistence.as_ref();
                self.cluster(&reference.kind, &reference.backend, reference.port, session)
            } else {
                ClusterId::INVALID
            };
            let backend = reference.backend.joined().into();
            let series = self.series([Arc::clone(&listener.name), Arc::clone(&route_name), backend]);
            targets.push(Target { cluster, weight: reference.weight, series });
        }
        let unserved = self.series([Arc::clone(&listener.name), Arc::clone(&route_name), "".into()]);
        let mut compiled = Rule::new(route_name, number, targets, unserved);
        compiled.limits = self.limits.of(listener, route, rule);
        compiled.request_timeout = settings::rule_timeout(rule.timeouts.request);
        compiled.backend_timeout = rule.timeouts.backend_request.and_then(schema::Timeout::limit);
        compiled.filters = self.filters(route.metadata.namespace(), rule);
        // The others have no turns to take.
        compiled.cursor = if rule.backend_refs.len() > 1 { self.rule_cursor(listener, route, number, rule) } else { 0 };
        self.rules.push(compiled);
        // A rule is hundreds of bytes: memory ends long before 32 bits do.
        self.rules.len() as u32 - 1
    }
}

/// Whether a match takes preflights of the requests that it takes: with a CORS filter, which answers them, also where it asks for another method
/// than OPTIONS (as Istio and Envoy Gateway have it), or for header fields, which a preflight names and has not.
pub(crate) fn takes_preflights(rule: &HttpRouteRule, matched: &HttpRouteMatch) -> bool {
    let is_cors = |filter: &Located<HttpRouteFilter>| matches!(filter.value, HttpRouteFilter::Cors(_));
    (matched.method.is_some_and(|method| method != "OPTIONS") || !matched.headers.is_empty())
        && matched.method != Some("OPTIONS")
        && (rule.filters.iter().any(is_cors) || rule.backend_refs.iter().any(|b| b.filters.iter().any(is_cors)))
}

pub(crate) fn path_pattern(path: &HttpPathMatch) -> PathPattern {
    match path {
        HttpPathMatch::Exact(path) => PathPattern::Exact(path.as_bytes().into()),
        HttpPathMatch::PathPrefix(path) => PathPattern::Prefix(path.as_bytes().into()),
        HttpPathMatch::RegularExpression(path) => PathPattern::Expression(expression(path)),
    }
}

pub(crate) fn conditions(matched: &HttpRouteMatch) -> Conditions {
    let values = |values: &[Located<HttpValueMatch>], name: fn(&str) -> String| {
        let each = |value: &Located<HttpValueMatch>| {
            let wanted = match &value.value.value {
                schema::ValueMatch::Exact(value) => ValueMatch::Exact(value.as_bytes().into()),
                schema::ValueMatch::RegularExpression(value) => ValueMatch::Expression(expression(value)),
            };
            (name(&value.name).into_bytes().into(), wanted)
        };
        values.iter().map(each).collect()
    };
    Conditions {
        method: matched.method.map(|method| method.as_bytes().into()),
        headers: values(&matched.headers, str::to_ascii_lowercase),
        query: values(&matched.query_params, str::to_owned),
    }
}

fn expression(expression: &Expression) -> tables::Expression {
    tables::Expression::new(Arc::clone(expression.text()), Arc::clone(expression.automaton()))
}

/// The hosts under which a route stands in a listener's table: its own, where they meet the listener's. They need not be
/// narrowed to the listener's, because no other host gets that far; and its own ones decide the precedence among routes.
pub(crate) fn hosts_of(route: &HttpRoute, listener: Option<&Hostname>) -> Vec<HostPattern> {
    if route.spec.hostnames.is_empty() {
        return vec![HostPattern::Any];
    }
    let meets = |host: &&schema::Located<Hostname>| listener.is_none_or(|l| l.intersects(host));
    route.spec.hostnames.iter().filter(meets).map(|h| pattern(h)).collect()
}
