//! What a request says about its endpoint, and what its response says to have the next one come back.

use proto::http1::RequestHead;
use tables::affinity::{SESSION_DIGITS, wish};
use tables::{EndpointTable, Rule, SessionCookie, Snapshot};

use super::Proxy;
use super::client::Client;

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
                let fields = head.fields.iter().map(|field| (field.name, field.value));
                let wish = wish(affinity, client.remote.ip(), head.query, &fields);
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
    out.extend((0..SESSION_DIGITS).rev().map(|digit| {
        let digit = (tag >> (4 * digit) & 0xf) as u8;
        if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
    }));
    out.extend_from_slice(&cookie.attributes);
    out.extend_from_slice(END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_set_in_front_of_the_end() {
        let cookie = SessionCookie { name: (*b"sid").into(), attributes: (*b"; Path=/").into() };
        let mut out = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        set_session(&cookie, 0xff, &mut out);
        assert_eq!(out, b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=00000000000000ff; Path=/\r\n\r\n");
    }
}
