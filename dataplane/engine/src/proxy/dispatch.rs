//! A routed request on its way to an endpoint: which one, over which connection, and the head sent.

use pmd::Lane;
use proto::http1::parse_request;
use tables::access::Flag;
use tables::{Chooser, Endpoint};

use super::client::Client;
use super::reply::Refusal;
use super::request::limits;
use super::upstream::Upstream;
use super::{Context, Proxy, Role, Step};
use crate::stack::{ConnectError, ConnectionId};

impl Proxy {
    /// Finds an endpoint and a connection to it. `encoded` says that the head lies in `self.out`.
    pub(super) fn dispatch<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, encoded: bool) -> Step {
        let Some((choice, tables)) = client.exchange.choice.and_then(|c| Some((c, cx.tables(c.epoch)?))) else {
            return self.begin_again(cx, client);
        };
        let Some((id, cluster)) = tables.target_cluster(choice.rule, choice.target) else {
            return self.refuse(cx, client, Refusal::new(500, Flag::NoBackend, "no_backend"));
        };
        if let Some(line) = cx.snapshot.series_line(client.exchange.series, choice.epoch, cx.core) {
            // Until it is counted, the request is away for long enough.
            pmd::prefetch(line);
        }
        let failed = client.exchange.endpoint.map(|(id, _)| id);
        let selection = cx.endpoints.selection(choice.epoch, id, cluster);
        let (pools, wish) = (&self.pools, client.exchange.wish);
        let under_way = |endpoint| pools.under_way(endpoint);
        let member = self.balance.member(cluster, selection, wish, failed, cx.net.now, under_way);
        let Some((member, &Endpoint { id: endpoint, address, .. })) =
            member.and_then(|m| Some((m, selection.member(m)?)))
        else {
            return self.refuse(cx, client, Refusal::new(503, Flag::NoEndpoint, "no_endpoint"));
        };
        client.exchange.endpoint = Some((endpoint, address));
        if cluster.affinity.is_some() {
            let tag = selection.sessions().and_then(|sessions| sessions.tag(member)).unwrap_or(0);
            client.exchange.new_session = if tag == wish.session { 0 } else { tag };
        }
        client.exchange.observed = matches!(selection.chooser(), Chooser::PeakEwma(_));
        // A replay goes out on a connection of its own: the idle ones may all have died together.
        let pooled = if client.exchange.attempt == 0 { self.pools.take(endpoint) } else { None };
        if let Some(upstream) = pooled {
            if let Some(Role::Upstream(role)) = self.roles.get_mut(upstream.0 as usize) {
                role.client = Some(client.id);
            }
            client.exchange.upstream = Some(upstream);
            client.exchange.reused = true;
            cx.net.counters.upstream_reused.add(1);
            if encoded {
                self.send_head(cx, client, upstream);
            }
            return Step::Again;
        }
        if !self.pools.admit(endpoint) {
            return self.refuse(cx, client, Refusal::new(503, Flag::Overloaded, "endpoint_connection_limit"));
        }
        match cx.stack.connect(&mut cx.net, address) {
            Ok(upstream) => {
                let role = Upstream {
                    endpoint,
                    client: Some(client.id),
                    established: false,
                    served: 0,
                    idle_since: cx.net.now,
                    armed: false,
                };
                self.set_role(upstream, Role::Upstream(role));
                client.exchange.upstream = Some(upstream);
                client.exchange.reused = false;
                client.exchange.connecting_since = cx.net.now;
                Step::Again
            }
            Err(error) => {
                self.pools.discharge(endpoint);
                cx.net.counters.upstream_failed.add(1);
                let refusal = match error {
                    ConnectError::NoRoute => Refusal::new(502, Flag::ConnectFailed, "no_route_to_endpoint"),
                    ConnectError::NoPort => Refusal::new(503, Flag::Overloaded, "no_source_port"),
                    ConnectError::Limit => Refusal::new(503, Flag::Overloaded, "connection_limit"),
                };
                self.refuse(cx, client, refusal)
            }
        }
    }

    /// Sends the head that lies in `self.out`.
    fn send_head<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, upstream: ConnectionId) {
        cx.stack.send(upstream, &self.out);
        let exchange = &mut client.exchange;
        exchange.head_sent = true;
        exchange.sent_at = cx.net.now;
        exchange.progress = cx.net.now;
        // A request that may be replayed stays where it is until its response begins (RFC 9110 §9.2.2).
        if !(exchange.request_done && exchange.method.is_idempotent()) {
            cx.stack.consume(client.id, exchange.head_held);
            exchange.head_held = 0;
        }
    }

    /// Sends the head once more, or at last: the connection it needs is there now.
    pub(super) fn send_held_head<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, up: ConnectionId) {
        if let Some(changed) = &client.changed {
            self.out.clear();
            self.out.extend_from_slice(&changed.head);
            return self.send_head(cx, client, up);
        }
        cx.stack.copy_front(client.id, &mut self.input);
        let input = core::mem::take(&mut self.input);
        if let Ok(Some(head)) = parse_request(&input, &limits(&cx.snapshot.http)) {
            self.encode(&cx.snapshot.http, client, &head);
            self.send_head(cx, client, up);
        }
        self.input = input;
    }
}
