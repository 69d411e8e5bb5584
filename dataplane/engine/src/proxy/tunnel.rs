//! A connection after a switch of protocols (RFC 9110 §7.8): bytes pass both ways as they are.

use pmd::Lane;
use tables::access::Flag;

use super::client::Client;
use super::{Context, Proxy, Step};
use crate::stack::{ConnectionId, Status};

/// Bytes moved each way in one step at most, so that a tunnel takes no longer turns than a request.
const BYTES_A_STEP: usize = 64 << 10;

impl Proxy {
    /// Moves what can be moved.
    pub(super) fn tunnel<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        let Some(up) = client.exchange.upstream else { return self.end_tunnel(cx, client, false) };
        let sent = pass(cx, client.id, up);
        let received = pass(cx, up, client.id);
        client.exchange.request_bytes += sent;
        client.exchange.response_bytes += received;
        if sent + received > 0 {
            client.exchange.progress = cx.net.now;
        }
        let (client_status, up_status) = (cx.stack.status(client.id), cx.stack.status(up));
        let reset = |status| matches!(status, Status::Ended(Some(_)) | Status::Unknown);
        if reset(client_status) || reset(up_status) {
            return self.end_tunnel(cx, client, true);
        }
        let client_done = finished(cx, client.id, client_status);
        let up_done = finished(cx, up, up_status);
        match (client_done, up_done) {
            (true, true) => return self.end_tunnel(cx, client, false),
            // A half-closed tunnel goes on in the other direction.
            (true, false) => cx.stack.shut_down(up),
            (false, true) => cx.stack.shut_down(client.id),
            (false, false) => {}
        }
        Step::Wait(client.exchange.progress + cx.snapshot.http.tunnel_timeout)
    }

    pub(super) fn expire_tunnel<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client) -> Step {
        if cx.net.now < client.exchange.progress + cx.snapshot.http.tunnel_timeout {
            return Step::Again;
        }
        self.end_tunnel(cx, client, false)
    }

    fn end_tunnel<L: Lane>(&mut self, cx: &mut Context<'_, L>, client: &mut Client, reset: bool) -> Step {
        if let Some(up) = client.exchange.upstream.take() {
            self.let_go(cx, up, reset);
        }
        self.finish(cx, client, Flag::Tunnel, if reset { "reset" } else { "" });
        if reset {
            cx.stack.abort(client.id);
        } else {
            cx.stack.close(client.id, cx.net.now, cx.snapshot.http.linger_timeout);
        }
        Step::Gone
    }
}

/// Moves bytes from one connection to the other.
fn pass<L: Lane>(cx: &mut Context<'_, L>, from: ConnectionId, to: ConnectionId) -> u64 {
    let n = cx.stack.room(to).min(BYTES_A_STEP);
    if n == 0 || cx.stack.readable(from) == 0 {
        return 0;
    }
    cx.stack.transfer(from, to, n) as u64
}

/// Nothing more will come from `id`, and all that came was passed on.
fn finished<L: Lane>(cx: &Context<'_, L>, id: ConnectionId, status: Status) -> bool {
    status != Status::Open && cx.stack.readable(id) == 0
}
