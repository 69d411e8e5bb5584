//! What a request says about its endpoint, and what its response says to have the next one come back.

use std::net::{IpAddr, SocketAddr};

use proto::http1::RequestHead;
use tables::selection::request_hash;
use tables::{Affinity, EndpointTable, HashOn, Rule, SessionCookie, Snapshot};

use super::Proxy;
use super::client::Client;
use crate::balance::Wish;

/// Digits of a session cookie's value.
const DIGITS: usize = 16;

/// Targets of a rule that are searched for a session: the Gateway API allows for no more.
const TARGETS: usize = 16;

impl Proxy {
    /// The position of the target that a request goes to. Notes what it says about its endpoint. `None` where no target takes requests.
    #[inline]
    pub(super) fn target(
        &mut self,
        (snapshot, endpoints): (&Snapshot, &EndpointTable),
        client: &mut Client,
        head: &RequestHead<'_>,
        rule: &Rule,
    ) -> Option<usize> {
        let target = self.balance.target(rule)?;
        let cluster = rule.targets.get(target).and_then(|target| snapshot.cluster(target.cluster));
        match cluster.and_then(|cluster| cluster.affinity.as_ref()) {
            None => Some(target),
            Some(affinity) => {
                let wish = wish(affinity, client.remote, head);
                client.exchange.wish = wish;
                // Who has a session keeps it, whosever turn it is.
                let several = affinity.session.is_some() && rule.targets.len() > 1;
                Some(if several { kept(snapshot, endpoints, rule, wish.session).unwrap_or(target) } else { target })
            }
        }
    }
}

/// The target with the endpoint that a session names.
fn kept(snapshot: &Snapshot, endpoints: &EndpointTable, rule: &Rule, session: u64) -> Option<usize> {
    rule.targets.iter().take(TARGETS).position(|target| {
        let cluster = snapshot.cluster(target.cluster);
        let selection = cluster.map(|cluster| endpoints.selection(snapshot.epoch, target.cluster, cluster));
        selection.and_then(|s| s.sessions()).is_some_and(|sessions| sessions.find(session).is_some())
    })
}

/// Reads what `affinity` wants to know of a request.
pub(super) fn wish(affinity: &Affinity, client: SocketAddr, head: &RequestHead<'_>) -> Wish {
    let hash = affinity.hash_on.as_ref().and_then(|on| hash(on, affinity.seed, client.ip(), head)).unwrap_or(0);
    let session = affinity.session.as_ref().and_then(|cookie| session(cookie, head)).unwrap_or(0);
    Wish { hash, session }
}

/// The tag in the session cookie.
pub(super) fn session(session: &SessionCookie, head: &RequestHead<'_>) -> Option<u64> {
    parse_tag(cookie(&session.name, head)?)
}

/// Puts a session cookie into the response's head that `out` ends with.
pub(super) fn set_session(cookie: &SessionCookie, tag: u64, out: &mut Vec<u8>) {
    const END: &[u8] = b"\r\n\r\n";
    if !out.ends_with(END) {
        return;
    }
    out.truncate(out.len() - 2);
    out.extend_from_slice(b"Set-Cookie: ");
    out.extend_from_slice(&cookie.name);
    out.push(b'=');
    out.extend((0..DIGITS).rev().map(|digit| {
        let digit = (tag >> (4 * digit) & 0xf) as u8;
        if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
    }));
    out.extend_from_slice(&cookie.attributes);
    out.extend_from_slice(END);
}

fn hash(on: &HashOn, seed: u64, client: IpAddr, head: &RequestHead<'_>) -> Option<u64> {
    let hash = match on {
        HashOn::SourceIp => match client {
            IpAddr::V4(v4) => request_hash(seed, &v4.octets()),
            IpAddr::V6(v6) => request_hash(seed, &v6.octets()),
        },
        HashOn::Header(name) => request_hash(seed, head.fields.get(name)?),
        HashOn::Cookie(name) => request_hash(seed, cookie(name, head)?),
        HashOn::QueryParam(name) => request_hash(seed, parameter(name, head.query?)?),
    };
    // 0 stands for none.
    Some(hash.max(1))
}

/// The value of a cookie (RFC 6265 §4.2.1); the first of that name.
fn cookie<'b>(name: &[u8], head: &RequestHead<'b>) -> Option<&'b [u8]> {
    let pairs = head.fields.get_all(b"cookie").flat_map(|value| value.split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

/// The value of a query parameter as it is written; the first of that name.
fn parameter<'b>(name: &[u8], query: &'b [u8]) -> Option<&'b [u8]> {
    query.split(|&byte| byte == b'&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

fn parse_tag(value: &[u8]) -> Option<u64> {
    if value.len() != DIGITS {
        return None;
    }
    value.iter().try_fold(0u64, |tag, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(tag << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::http1::{Limits, parse_request};

    fn with_head<R>(head: &str, f: impl FnOnce(&RequestHead<'_>) -> R) -> R {
        f(&parse_request(head.as_bytes(), &Limits::default()).unwrap().unwrap())
    }

    const HEAD: &str = "GET /a?user=7&userid=8 HTTP/1.1\r\nHost: h\r\nX-User: seven\r\nCookie: a=1; sid=00000000000000ff\r\nCookie: b=2\r\n\r\n";

    #[test]
    fn what_is_hashed_is_found() {
        let client = "10.0.0.1:7777".parse().unwrap();
        let read = |on: HashOn| {
            let affinity = Affinity { hash_on: Some(on), seed: 5, session: None };
            with_head(HEAD, |head| wish(&affinity, client, head).hash)
        };
        assert_eq!(read(HashOn::SourceIp), request_hash(5, &[10, 0, 0, 1]));
        assert_eq!(read(HashOn::Header((*b"x-user").into())), request_hash(5, b"seven"));
        assert_eq!(read(HashOn::Cookie((*b"b").into())), request_hash(5, b"2"));
        assert_eq!(read(HashOn::QueryParam((*b"userid").into())), request_hash(5, b"8"));
        for absent in
            [HashOn::Header((*b"x-other").into()), HashOn::Cookie((*b"c").into()), HashOn::QueryParam((*b"use").into())]
        {
            assert_eq!(read(absent), 0);
        }
    }

    #[test]
    fn a_session_comes_back_as_it_was_set() {
        let cookie = SessionCookie { name: (*b"sid").into(), attributes: (*b"; Path=/").into() };
        let mut out = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        set_session(&cookie, 0xff, &mut out);
        assert_eq!(out, b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=00000000000000ff; Path=/\r\n\r\n");
        assert_eq!(with_head(HEAD, |head| session(&cookie, head)), Some(0xff));
        for bad in ["", "ff", "00000000000000FF", "0000000000000000ff", "00000000000000f "] {
            assert_eq!(parse_tag(bad.as_bytes()), None, "{bad}");
        }
    }
}
