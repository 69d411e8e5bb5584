//! What a request says about its endpoint: read by cores that serve it, and by control that explains it.

use std::net::IpAddr;

use crate::cluster::{Affinity, HashOn, SessionCookie};
use crate::matching::Fields;
use crate::selection::request_hash;

/// Digits of a session cookie's value.
pub const SESSION_DIGITS: usize = 16;

/// What a request says about its endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// The hash of what it is balanced by; 0 where it has nothing of that kind.
    pub hash: u64,
    /// The tag in its session cookie; 0 where it has none.
    pub session: u64,
}

/// Reads what `affinity` wants to know of a request.
#[inline]
pub fn wish<'b, F: Fields<'b>>(affinity: &Affinity, client: IpAddr, query: Option<&'b [u8]>, fields: &F) -> Wish {
    let on = affinity.hash_on.as_ref();
    let hash = on.and_then(|on| hash(on, affinity.seed, client, query, fields)).unwrap_or(0);
    let session = affinity.session.as_ref().and_then(|cookie| session(cookie, fields)).unwrap_or(0);
    Wish { hash, session }
}

/// The tag in the session cookie.
pub fn session<'b, F: Fields<'b>>(session: &SessionCookie, fields: &F) -> Option<u64> {
    parse_tag(cookie(&session.name, fields)?)
}

fn hash<'b, F: Fields<'b>>(on: &HashOn, seed: u64, client: IpAddr, query: Option<&'b [u8]>, fields: &F) -> Option<u64> {
    let hash = match on {
        HashOn::SourceIp => match client {
            IpAddr::V4(v4) => request_hash(seed, &v4.octets()),
            IpAddr::V6(v6) => request_hash(seed, &v6.octets()),
        },
        HashOn::Header(name) => request_hash(seed, values(name, fields).next()?),
        HashOn::Cookie(name) => request_hash(seed, cookie(name, fields)?),
        HashOn::QueryParam(name) => request_hash(seed, parameter(name, query?)?),
    };
    // 0 stands for none.
    Some(hash.max(1))
}

/// The values of all fields of that name; names compare without ASCII case.
fn values<'b, 'n, F: Fields<'b>>(name: &'n [u8], fields: &F) -> impl Iterator<Item = &'b [u8]> + use<'b, 'n, F> {
    fields.clone().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The value of a cookie (RFC 6265 §4.2.1); the first of that name.
fn cookie<'b, F: Fields<'b>>(name: &[u8], fields: &F) -> Option<&'b [u8]> {
    let pairs = values(b"cookie", fields).flat_map(|value| value.split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

/// The value of a query parameter as it is written; the first of that name.
fn parameter<'b>(name: &[u8], query: &'b [u8]) -> Option<&'b [u8]> {
    query.split(|&byte| byte == b'&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

fn parse_tag(value: &[u8]) -> Option<u64> {
    if value.len() != SESSION_DIGITS {
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

    const FIELDS: [(&[u8], &[u8]); 4] =
        [(b"Host", b"h"), (b"X-User", b"seven"), (b"Cookie", b"a=1; sid=00000000000000ff"), (b"Cookie", b"b=2")];

    #[test]
    fn what_is_hashed_is_found() {
        let client = "10.0.0.1".parse().unwrap();
        let read = |on: HashOn| {
            let affinity = Affinity { hash_on: Some(on), seed: 5, session: None };
            wish(&affinity, client, Some(b"user=7&userid=8"), &FIELDS.into_iter()).hash
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
    fn a_session_is_sixteen_digits() {
        let cookie = SessionCookie { name: (*b"sid").into(), attributes: (*b"; Path=/").into() };
        assert_eq!(session(&cookie, &FIELDS.into_iter()), Some(0xff));
        for bad in ["", "ff", "00000000000000FF", "0000000000000000ff", "00000000000000f "] {
            assert_eq!(parse_tag(bad.as_bytes()), None, "{bad}");
        }
    }
}
