//! Rate limits of requests: which key a request has, and whether it may pass.
//!
//! The buckets are all cores' (`tables::limit`); a core has leases of them.

use core::hash::Hasher;
use std::net::IpAddr;

use proto::http1::RequestHead;
use tables::{Limit, LimitId, LimitKey, LimitLeases, Snapshot};

use crate::clock::Instant;

/// Limits that a request may have to pass; `control` attaches far fewer to a rule, and more than these are not looked at.
const MOST: usize = 64;

/// A limit that a request does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Which one.
    pub limit: LimitId,
    /// Whole seconds until its key may pass again, at least 1.
    pub retry_after: u32,
}

/// One core's limits.
#[derive(Debug)]
pub struct Limiter {
    leases: LimitLeases,
}

impl Limiter {
    /// Those of the core of this index.
    #[must_use]
    pub fn new(core: u16) -> Self {
        Self { leases: LimitLeases::new(core) }
    }

    /// Whether a request may pass all of `limits`; where one refuses it, it counts for none.
    ///
    /// # Errors
    /// The first limit that refuses it.
    pub fn admit(
        &mut self,
        snapshot: &Snapshot,
        limits: &[LimitId],
        client: IpAddr,
        head: &RequestHead<'_>,
        now: Instant,
    ) -> Result<(), Limited> {
        let limits = limits.get(..MOST).unwrap_or(limits);
        for (position, &id) in limits.iter().enumerate() {
            let Some((limit, hash)) = keyed(snapshot, id, client, head) else { continue };
            if let Err(wait) = self.leases.take(limit, hash, now.0) {
                for &earlier in limits.get(..position).unwrap_or_default() {
                    if let Some((limit, hash)) = keyed(snapshot, earlier, client, head) {
                        self.leases.put(limit, hash);
                    }
                }
                let seconds = wait.nanoseconds.div_ceil(1_000_000_000).max(1);
                return Err(Limited { limit: id, retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) });
            }
        }
        Ok(())
    }
}

/// A limit, and the hash of the key that the request has there. `None` where it has none, and is not limited.
fn keyed<'s>(snapshot: &'s Snapshot, id: LimitId, client: IpAddr, head: &RequestHead<'_>) -> Option<(&'s Limit, u64)> {
    let limit = snapshot.limits.get(id.0 as usize)?;
    let mut hasher = limit.keys.hasher();
    match &limit.by {
        LimitKey::All => {}
        LimitKey::Source { ipv4_prefix, ipv6_prefix } => match client {
            IpAddr::V4(v4) => hasher.write_u32(v4.to_bits() & mask(u128::from(u32::MAX), 32, *ipv4_prefix) as u32),
            IpAddr::V6(v6) => hasher.write_u128(v6.to_bits() & mask(u128::MAX, 128, *ipv6_prefix)),
        },
        LimitKey::Header(name) => hasher.write(head.fields.get(name.as_bytes())?),
        LimitKey::Cookie(name) => hasher.write(cookie(head, name.as_bytes())?),
    }
    Some((limit, hasher.finish()))
}

/// The upper `prefix` of `bits` bits of `all`.
fn mask(all: u128, bits: u8, prefix: u8) -> u128 {
    all.checked_shl(u32::from(bits.saturating_sub(prefix))).unwrap_or(0) & all
}

/// The value of the first cookie of this name (RFC 6265 §4.2.1), over all Cookie fields, without quotes.
fn cookie<'b>(head: &RequestHead<'b>, name: &[u8]) -> Option<&'b [u8]> {
    let fields = head.fields.get_all(b"cookie");
    let mut pairs = fields.flat_map(|field| field.split(|&byte| byte == b';'));
    pairs.find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::sync::Arc;

    use proto::http1::{Limits, parse_request};
    use tables::{HttpSettings, KeyTable, LimitRate};

    use super::*;

    fn snapshot(limits: &[(LimitKey, u32)]) -> Snapshot {
        let limits = (1u64..).zip(limits).map(|(serial, (by, burst))| Limit {
            name: "".into(),
            target: "".into(),
            by: by.clone(),
            rate: LimitRate::new(60, 60, *burst, 1),
            policy_field: "".into(),
            limit_field: "".into(),
            keys: Arc::new(KeyTable::new(64, 1, serial, serial as u32, (serial, 2))),
        });
        Snapshot::new(1, HttpSettings::default(), vec![], vec![], vec![], vec![]).with_limits(limits.collect())
    }

    fn passed(limiter: &mut Limiter, snapshot: &Snapshot, client: &str, fields: &str, tries: usize) -> usize {
        let all: Vec<LimitId> = (0..snapshot.limits.len() as u32).map(LimitId).collect();
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let head = parse_request(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        let now = Instant::default();
        (0..tries).filter(|_| limiter.admit(snapshot, &all, client.parse().unwrap(), &head, now).is_ok()).count()
    }

    #[test]
    fn clients_are_told_apart_by_their_networks() {
        let snapshot = snapshot(&[(LimitKey::Source { ipv4_prefix: 24, ipv6_prefix: 64 }, 3)]);
        let mut limiter = Limiter::new(0);
        assert_eq!(passed(&mut limiter, &snapshot, "192.0.2.1", "", 9), 3);
        assert_eq!(passed(&mut limiter, &snapshot, "192.0.2.200", "", 9), 0, "the same network");
        assert_eq!(passed(&mut limiter, &snapshot, "192.0.3.1", "", 9), 3);
        assert_eq!(passed(&mut limiter, &snapshot, "2001:db8::1", "", 9), 3);
        assert_eq!(passed(&mut limiter, &snapshot, "2001:db8::ffff:1", "", 9), 0);
        assert_eq!(passed(&mut limiter, &snapshot, "2001:db8:0:1::1", "", 9), 3);
    }

    #[test]
    fn requests_are_told_apart_by_header_and_cookie_and_those_without_are_not_limited() {
        let by = snapshot(&[(LimitKey::Header("x-key".into()), 3), (LimitKey::Cookie("sid".into()), 2)]);
        let mut limiter = Limiter::new(0);
        let mut tries = |fields| passed(&mut limiter, &by, "192.0.2.1", fields, 9);
        assert_eq!(tries(""), 9);
        assert_eq!(tries("X-Key: a\r\n"), 3);
        assert_eq!(tries("x-key: b\r\n"), 3);
        assert_eq!(tries("Cookie: a=1; sid=7; b=2\r\n"), 2);
        assert_eq!(tries("Cookie: xsid=7; asid=8\r\n"), 9, "other names");
        assert_eq!(tries("Cookie: a=1\r\nCookie: sid=\"8\"\r\n"), 2);
        assert_eq!(tries("Cookie: sid=8\r\n"), 0, "quotes do not count");
    }

    #[test]
    fn what_a_later_limit_refuses_costs_the_earlier_ones_nothing() {
        let both = snapshot(&[(LimitKey::All, 5), (LimitKey::Header("x-key".into()), 2)]);
        let mut limiter = Limiter::new(0);
        assert_eq!(passed(&mut limiter, &both, "192.0.2.1", "X-Key: a\r\n", 50), 2);
        assert_eq!(passed(&mut limiter, &both, "192.0.2.1", "", 50), 3);
    }

    #[test]
    fn the_wait_is_in_whole_seconds() {
        let one = snapshot(&[(LimitKey::All, 1)]);
        let mut limiter = Limiter::new(0);
        let head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &Limits::default()).unwrap().unwrap();
        let client = "192.0.2.1".parse().unwrap();
        let mut admit =
            |ms| limiter.admit(&one, &[LimitId(0)], client, &head, Instant::default() + Duration::from_millis(ms));
        assert_eq!(admit(0), Ok(()));
        let limited = Err(Limited { limit: LimitId(0), retry_after: 1 });
        assert_eq!((admit(1), admit(999)), (limited, limited));
        assert_eq!(admit(1000), Ok(()));
    }
}
