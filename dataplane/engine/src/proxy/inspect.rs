//! What a connection is and does, as `get connections` shows it.

use tables::inspect::{ConnectionRow, PLACES};
use tables::{Rule, Snapshot};

use super::client::Phase;
use super::{Proxy, Role};
use crate::clock::Instant;
use crate::stack::{ConnectionId, Stack};

impl Proxy {
    /// Its places in the schedules of a rule, and of that rule's first targets.
    pub(crate) fn places(&self, snapshot: &Snapshot, rule: &Rule) -> (u32, [u32; PLACES]) {
        self.balance.places(snapshot, rule)
    }

    /// The row of a connection; `None` where there is none in that slot.
    pub(crate) fn inspect(&self, stack: &Stack, id: ConnectionId, now: Instant, ticket: u64) -> Option<ConnectionRow> {
        let (_, local, remote) = stack.addresses(id)?;
        let remote_of = |id: ConnectionId| stack.addresses(id).map(|(_, _, remote)| remote);
        let count = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let row = ConnectionRow {
            ticket,
            local,
            remote,
            state: stack.state_name(id),
            role: "closing",
            doing: "closing",
            other: None,
            age: None,
            request_age: None,
            unread: count(stack.readable(id)),
            unacknowledged: count(stack.unsent(id)),
        };
        Some(match self.roles.get(id.0 as usize) {
            Some(Role::Client(client)) => ConnectionRow {
                role: "client",
                doing: match client.phase {
                    Phase::Head if client.started == Instant::NEVER => "idle",
                    Phase::Head => "head",
                    Phase::Exchange if client.exchange.answered() => "response",
                    Phase::Exchange => "request",
                    Phase::Tunnel => "tunnel",
                },
                other: client.exchange.endpoint.map(|(_, address)| address),
                age: Some(now.since(client.opened())),
                request_age: (client.started != Instant::NEVER).then(|| now.since(client.started)),
                ..row
            },
            Some(Role::Upstream(upstream)) => ConnectionRow {
                role: "upstream",
                doing: match (upstream.established, upstream.client) {
                    (false, _) => "connecting",
                    (true, Some(_)) => "serving",
                    (true, None) => "idle",
                },
                other: upstream.client.and_then(remote_of),
                ..row
            },
            Some(Role::Mirror(_)) => ConnectionRow { role: "mirror", doing: "copying", ..row },
            Some(Role::Check(_)) => ConnectionRow { role: "check", doing: "checking", ..row },
            Some(Role::None) | None => row,
        })
    }
}
