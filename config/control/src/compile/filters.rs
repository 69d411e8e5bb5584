//! Filters of rules and backend references, worked into what is done with a request and its response.

use schema::{
    BackendObject, Fraction, HttpCorsFilter, HttpHeaderFilter, HttpPathMatch, HttpPathModifier, HttpRouteFilter,
    HttpRouteRule, Located, Name,
};
use tables::filter::{Cors, FieldChanges, Filters, Mirror, OriginPattern, PathChange, Redirect, Retry, RuleFilters};

use super::Run;

impl Run<'_> {
    /// The filters of a rule and of its backend references; `None` where there are none.
    pub(super) fn filters(&mut self, namespace: &Name, rule: &HttpRouteRule) -> Option<Box<RuleFilters>> {
        let with_own = rule.backend_refs.iter().any(|reference| !reference.filters.is_empty());
        if rule.filters.is_empty() && !with_own && rule.retry.is_none() {
            return None;
        }
        // `schema` lets no prefix be replaced where there are several.
        let prefix = rule.matches.iter().find_map(|matched| match &matched.path {
            HttpPathMatch::PathPrefix(path) => Some(&**path),
            HttpPathMatch::Exact(_) | HttpPathMatch::RegularExpression(_) => None,
        });
        let mut whole = Gathered::default();
        let mut mirrors = self.mirrors(namespace, &rule.filters);
        whole.add(&rule.filters, prefix.unwrap_or("/"), &mut mirrors);
        let targets = if with_own {
            let of_target = |reference: &Located<schema::HttpBackendRef>| {
                let mut gathered = whole.clone();
                let mut mirrors = self.mirrors(namespace, &reference.filters);
                gathered.add(&reference.filters, prefix.unwrap_or("/"), &mut mirrors);
                gathered.finish()
            };
            rule.backend_refs.iter().map(of_target).collect()
        } else {
            Box::default()
        };
        let retry = rule.retry.as_ref().map(|retry| {
            let codes = retry.codes.iter().map(|code| code.value).collect();
            Box::new(Retry { codes, attempts: retry.attempts, backoff: retry.backoff })
        });
        Some(Box::new(RuleFilters { rule: whole.finish(), targets, retry }))
    }

    /// The mirrors among `filters`. One whose reference is invalid is left out, as the Gateway API says; the route's conditions tell.
    fn mirrors(&mut self, namespace: &Name, filters: &[Located<HttpRouteFilter>]) -> Vec<Mirror> {
        let mut mirrors = Vec::new();
        for filter in filters {
            let HttpRouteFilter::RequestMirror(mirror) = &filter.value else { continue };
            let BackendObject { kind, object, port } = &mirror.backend_ref.value;
            if self.references.resolve(namespace, kind, object).is_ok() {
                let cluster = self.cluster(kind, object, *port, None);
                let Fraction { numerator, denominator } = mirror.fraction;
                mirrors.push(Mirror { cluster, numerator, denominator });
            }
        }
        mirrors
    }
}

/// Filters one after the other.
#[derive(Clone, Default)]
struct Gathered {
    request: Changes,
    response: Changes,
    mirrors: Vec<Mirror>,
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
    fn add(&mut self, filters: &[Located<HttpRouteFilter>], prefix: &str, mirrors: &mut Vec<Mirror>) {
        self.mirrors.append(mirrors);
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
                HttpRouteFilter::Cors(cors) => self.filters.cors = Some(Box::new(of_cors(cors))),
                // Those come with their clusters.
                HttpRouteFilter::RequestMirror(_) => {}
            }
        }
    }

    fn finish(&self) -> Filters {
        Filters {
            request: self.request.finish(),
            response: self.response.finish(),
            mirrors: self.mirrors.clone().into(),
            ..self.filters.clone()
        }
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

fn of_cors(cors: &HttpCorsFilter) -> Cors {
    let joined = |list: &[Located<Box<str>>]| -> Box<[u8]> {
        let items: Vec<&str> = list.iter().map(|item| &*item.value).collect();
        items.join(", ").into_bytes().into()
    };
    let origin = |origin: &Located<Box<str>>| match origin.value.split_once('*') {
        _ if *origin.value == *"*" => OriginPattern::Any,
        Some((start, end)) => OriginPattern::Between(start.as_bytes().into(), end.as_bytes().into()),
        None => OriginPattern::Exact(origin.value.as_bytes().into()),
    };
    Cors {
        origins: cors.allow_origins.iter().map(origin).collect(),
        credentials: cors.allow_credentials,
        methods: joined(&cors.allow_methods),
        headers: joined(&cors.allow_headers),
        expose: joined(&cors.expose_headers),
        max_age: cors.max_age.to_string().into_bytes().into(),
    }
}
