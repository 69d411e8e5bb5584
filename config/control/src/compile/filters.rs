//! Filters of rules and backend references, worked into what is done with a request and its response.

use schema::{HttpHeaderFilter, HttpPathMatch, HttpPathModifier, HttpRouteFilter, HttpRouteRule, Located};
use tables::filter::{FieldChanges, Filters, PathChange, Redirect, RuleFilters};

/// The filters of a rule and of its backend references; `None` where there are none.
pub(super) fn of_rule(rule: &HttpRouteRule) -> Option<Box<RuleFilters>> {
    let with_own = rule.backend_refs.iter().any(|reference| !reference.filters.is_empty());
    if rule.filters.is_empty() && !with_own {
        return None;
    }
    // `schema` lets no prefix be replaced where there are several.
    let prefix = rule.matches.iter().find_map(|matched| match &matched.path {
        HttpPathMatch::PathPrefix(path) => Some(&**path),
        HttpPathMatch::Exact(_) | HttpPathMatch::RegularExpression(_) => None,
    });
    let mut whole = Gathered::default();
    whole.add(&rule.filters, prefix.unwrap_or("/"));
    let targets = if with_own {
        let of_target = |reference: &Located<schema::HttpBackendRef>| {
            let mut gathered = whole.clone();
            gathered.add(&reference.filters, prefix.unwrap_or("/"));
            gathered.finish()
        };
        rule.backend_refs.iter().map(of_target).collect()
    } else {
        Box::default()
    };
    Some(Box::new(RuleFilters { rule: whole.finish(), targets }))
}

/// Filters one after the other.
#[derive(Clone, Default)]
struct Gathered {
    request: Changes,
    response: Changes,
    filters: Filters,
}

/// Changes to fields one after the other.
#[derive(Clone, Default)]
struct Changes {
    /// In lower case.
    strip: Vec<String>,
    append: Vec<(String, String)>,
}

impl Gathered {
    fn add(&mut self, filters: &[Located<HttpRouteFilter>], prefix: &str) {
        for filter in filters {
            match &filter.value {
                HttpRouteFilter::RequestHeaderModifier(modifier) => self.request.add(modifier),
                HttpRouteFilter::ResponseHeaderModifier(modifier) => self.response.add(modifier),
                HttpRouteFilter::RequestRedirect(redirect) => {
                    self.filters.redirect = Some(Box::new(Redirect {
                        status: redirect.status_code,
                        scheme: redirect.scheme,
                        host: redirect.hostname.as_ref().map(|host| host.to_string().into_bytes().into()),
                        port: redirect.port.map(u16::from),
                        path: redirect.path.as_ref().map(|path| path_change(path, prefix)),
                    }));
                }
                HttpRouteFilter::UrlRewrite(rewrite) => {
                    if let Some(host) = &rewrite.hostname {
                        self.filters.host = Some(host.to_string().into_bytes().into());
                    }
                    if let Some(path) = &rewrite.path {
                        self.filters.path = Some(path_change(path, prefix));
                    }
                }
            }
        }
    }

    fn finish(&self) -> Filters {
        Filters { request: self.request.finish(), response: self.response.finish(), ..self.filters.clone() }
    }
}

impl Changes {
    fn add(&mut self, modifier: &HttpHeaderFilter) {
        let set = modifier.set.iter().map(|header| &header.name);
        for name in set.chain(modifier.remove.iter().map(|name| &name.value)) {
            let name = name.to_ascii_lowercase();
            self.append.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
            if !self.strip.contains(&name) {
                self.strip.push(name);
            }
        }
        let put_in = modifier.set.iter().chain(&modifier.add);
        self.append.extend(put_in.map(|header| (header.name.to_string(), header.value.value.to_string())));
    }

    fn finish(&self) -> FieldChanges {
        let strip: String = self.strip.iter().flat_map(|name| [name, "\n"]).collect();
        let append: String = self.append.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
        FieldChanges { strip: strip.into_bytes().into(), append: append.into_bytes().into() }
    }
}

fn path_change(modifier: &HttpPathModifier, prefix: &str) -> PathChange {
    match modifier {
        HttpPathModifier::ReplaceFullPath(path) if path.is_empty() => PathChange::Full((*b"/").into()),
        HttpPathModifier::ReplaceFullPath(path) => PathChange::Full(path.as_bytes().into()),
        HttpPathModifier::ReplacePrefixMatch(replacement) => {
            let replacement = replacement.trim_end_matches('/').as_bytes().into();
            PathChange::Prefix(prefix.trim_end_matches('/').len(), replacement)
        }
    }
}
