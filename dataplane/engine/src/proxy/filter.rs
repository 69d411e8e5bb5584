//! Requests of routes with filters: redirected, changed, answered for other origins.
//!
//! Whatever the filters say is worked out here, once, when the request is routed, and kept with the request: nothing is looked up in the
//! tables again when it is sent once more, or when its response comes, so a change of tables between does not matter.

use proto::http1::{self, FieldChanges, Method, RequestChanges, RequestHead};
use tables::access::Flag;
use tables::filter::{Cors, Filters, PathChange, Redirect, RuleFilters};
use tables::{EndpointTable, Rule, Snapshot};

use super::Proxy;
use super::client::{Changed, Choice, Client, Retries};
use super::reply::Refusal;
use super::request::{SCHEME, forward_options};

impl Proxy {
    /// Applies the filters of a request's rule: it is answered here, or its target is chosen and it is encoded for the backend.
    #[inline(never)]
    pub(super) fn begin_filtered(
        &mut self,
        (snapshot, endpoints): (&Snapshot, &EndpointTable),
        client: &mut Client,
        head: &RequestHead<'_>,
        (index, rule): (u32, &Rule),
        filters: &RuleFilters,
    ) -> Result<(), Refusal> {
        let mut changed = self.spare_changed.pop().unwrap_or_default();
        let answer = answer(&mut changed, client, head, &filters.rule);
        if let Some(refusal) = answer {
            client.changed = Some(changed);
            return Err(refusal);
        }
        let Some(target) = self.target((snapshot, endpoints), client, head, rule) else {
            client.changed = Some(changed);
            return Err(Refusal::new(500, Flag::NoBackend, "no_backend"));
        };
        let choice = Choice { epoch: snapshot.epoch, rule: index, target: target as u32 };
        client.exchange.choose(choice, rule.backend_timeout, &mut self.pins);
        if let Some(target) = rule.targets.get(target) {
            client.exchange.series = target.series;
        }
        if let Some(of_target) = filters.targets.get(target) {
            changed.clear();
            let answer = self::answer(&mut changed, client, head, of_target);
            if let Some(refusal) = answer {
                client.changed = Some(changed);
                return Err(refusal);
            }
        }
        changed.retries = filters.retry.as_deref().map(Retries::new);
        let filters = filters.of(target);
        for mirror in &filters.mirrors {
            if self.draw.next(mirror) {
                // `schema` bounds how many there are.
                let _ = changed.wanted.try_push(mirror.cluster);
            }
        }
        let changes = RequestChanges {
            path: filters.path.as_ref().map(|change| change.apply(head.path)),
            authority: filters.host.as_deref(),
            fields: FieldChanges { strip: &filters.request.strip, append: &filters.request.append },
        };
        let options = forward_options(&snapshot.http, client.remote.ip(), Some(&changes));
        http1::encode_request(head, &options, &mut changed.head);
        self.out.clear();
        self.out.extend_from_slice(&changed.head);
        client.changed = Some(changed);
        Ok(())
    }
}

/// Notes what is to be done with the response, and answers the request if a filter does that.
fn answer(changed: &mut Changed, client: &Client, head: &RequestHead<'_>, filters: &Filters) -> Option<Refusal> {
    changed.strip.extend_from_slice(&filters.response.strip);
    changed.append.extend_from_slice(&filters.response.append);
    if let Some(cors) = &filters.cors
        && allow_origin(changed, cors, head)
    {
        return Some(Refusal::new(200, Flag::Filter, "preflight"));
    }
    let redirect = filters.redirect.as_ref()?;
    locate(redirect, client, head, &mut changed.append);
    Some(Refusal::new(redirect.status, Flag::Filter, "redirect"))
}

/// Appends the Location of a redirect.
fn locate(redirect: &Redirect, client: &Client, head: &RequestHead<'_>, out: &mut Vec<u8>) {
    let scheme = redirect.scheme.unwrap_or(SCHEME);
    let well_known = if scheme == "https" { 443 } else { 80 };
    // Without a port: the scheme's, if that is given, or the listener's.
    let port = redirect.port.unwrap_or(if redirect.scheme.is_some() { well_known } else { client.local.port() });
    out.extend_from_slice(b"Location: ");
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"://");
    match redirect.host.as_deref().unwrap_or(head.host) {
        // HTTP/1.0 without Host.
        [] => http1::encode_host(client.local.ip(), out),
        host => out.extend_from_slice(host),
    }
    if port != well_known {
        out.push(b':');
        http1::encode_number(port.into(), out);
    }
    // `OPTIONS *` is about no path.
    let path = if head.path == b"*" { b"/" } else { head.path };
    let (start, end) = redirect.path.as_ref().map_or((path, &[][..]), |change: &PathChange| change.apply(path));
    out.extend_from_slice(start);
    out.extend_from_slice(end);
    if let Some(query) = head.query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends what allows scripts of the request's origin to read the response. Returns whether the request is a preflight, which is answered
/// here, whether its origin is allowed or not (Fetch standard, CORS protocol).
fn allow_origin(changed: &mut Changed, cors: &Cors, head: &RequestHead<'_>) -> bool {
    // What the backend says about other origins would contradict it.
    for name in CORS_FIELDS {
        changed.strip.extend_from_slice(name);
        changed.strip.push(b'\n');
    }
    let out = &mut changed.append;
    // A cache must not give one origin's response to another.
    line(out, b"Vary", b"Origin");
    let Some(origin) = head.fields.get("origin") else { return false };
    let method = head.fields.get("access-control-request-method");
    let preflight = head.method == Method::Options && method.is_some();
    if !cors.allows(origin) {
        return preflight;
    }
    line(out, b"Access-Control-Allow-Origin", origin);
    if cors.credentials {
        line(out, b"Access-Control-Allow-Credentials", b"true");
    }
    // With credentials, `*` stands for itself: it is never said, and what was asked for is said instead.
    let expose = if *cors.expose == *b"*" && cors.credentials { b"" } else { &*cors.expose };
    if !expose.is_empty() {
        line(out, b"Access-Control-Expose-Headers", expose);
    }
    if !preflight {
        return false;
    }
    let methods = if *cors.methods == *b"*" { method.unwrap_or_default() } else { &cors.methods };
    if !methods.is_empty() {
        line(out, b"Access-Control-Allow-Methods", methods);
    }
    let headers = if *cors.headers == *b"*" {
        head.fields.get("access-control-request-headers").unwrap_or_default()
    } else {
        &cors.headers
    };
    if !headers.is_empty() {
        line(out, b"Access-Control-Allow-Headers", headers);
    }
    line(out, b"Access-Control-Max-Age", &cors.max_age);
    true
}

/// The response fields that the filter answers for.
const CORS_FIELDS: [&[u8]; 6] = [
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
    b"access-control-expose-headers",
    b"access-control-allow-methods",
    b"access-control-allow-headers",
    b"access-control-max-age",
];

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}
