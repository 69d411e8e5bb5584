//! A backend: it answers as the request's path asks.
//!
//! `/get/LEN/SEED`, `/chunked/LEN/SEED`, `/close/LEN/SEED`: a body of `LEN` bytes of `pattern(SEED)`, framed by Content-Length, in
//! chunks, or by the end of the connection. `/hash`: length and hash of the request's body. `/die/N`: a reset after `N` bytes of a
//! longer body. `/cut/N`: the same with a FIN. `/reset`: a reset instead of a response. `/silent`: nothing. `/last`: a response, and
//! then the connection is closed.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::stack::{ConnectionId, Net, Stack, Status};
use pmd::sim::SimLane;

use super::gateway::fnv;
use super::host::App;
use super::http::{Message, Reader, chunked, pattern};

/// Bytes that a reply announces which is cut short.
pub const ANNOUNCED: usize = 200_000;

#[derive(Default)]
pub struct Server {
    live: BTreeMap<u32, Serving>,
    /// Requests that came whole, oldest first.
    pub requests: Vec<Message>,
    /// Connections that were accepted.
    pub accepted: usize,
}

#[derive(Default)]
struct Serving {
    reader: Reader,
    out: Vec<u8>,
    sent: usize,
    then: Then,
}

/// What to do once everything is sent.
#[derive(Debug, Default, PartialEq, Eq)]
enum Then {
    #[default]
    Serve,
    Close,
    Reset,
}

impl App for Server {
    fn ready(&mut self, stack: &mut Stack, net: &mut Net<'_, SimLane>, id: ConnectionId) {
        let status = stack.status(id);
        if let Status::Ended(_) | Status::Unknown = status {
            self.live.remove(&id.0);
            return stack.abort(id);
        }
        let accepted = &mut self.accepted;
        let serving = self.live.entry(id.0).or_insert_with(|| {
            *accepted += 1;
            Serving::default()
        });
        let mut bytes = Vec::new();
        stack.copy_front(id, &mut bytes);
        stack.consume(id, bytes.len());
        serving.reader.feed(&bytes);
        while serving.then == Then::Serve
            && let Some(request) = serving.reader.next()
        {
            serving.answer(&request);
            self.requests.push(request);
        }
        let n = stack.room(id).min(serving.out.len() - serving.sent);
        stack.send(id, &serving.out[serving.sent..serving.sent + n]);
        serving.sent += n;
        if serving.sent < serving.out.len() {
            return;
        }
        serving.out.clear();
        serving.sent = 0;
        match serving.then {
            Then::Serve if status != Status::PeerClosed => {}
            Then::Serve | Then::Close => {
                self.live.remove(&id.0);
                stack.close(id, net.now, Duration::from_secs(2));
            }
            // What is queued goes out first, so that a reset comes behind it.
            Then::Reset if stack.unsent(id) > 0 => {}
            Then::Reset => {
                self.live.remove(&id.0);
                stack.abort(id);
            }
        }
    }
}

impl Serving {
    fn answer(&mut self, request: &Message) {
        let target = request.first_line().split(' ').nth(1).unwrap_or_default();
        let words: Vec<&str> = target.split('/').skip(1).collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok()).unwrap_or(0);
        match words[0] {
            "get" => self.reply("", &pattern(number(2) as u64, number(1))),
            "last" => {
                self.reply("Connection: close\r\n", b"last");
                self.then = Then::Close;
            }
            "chunked" => {
                let body = pattern(number(2) as u64, number(1));
                self.out.extend(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                self.out.extend(chunked(&body, number(2) as u64));
            }
            "close" => {
                self.out.extend(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                self.out.extend(pattern(number(2) as u64, number(1)));
                self.then = Then::Close;
            }
            "hash" => {
                let text = format!("{} {:016x}", request.body.len(), fnv(0, &request.body));
                self.reply("", text.as_bytes());
            }
            "die" | "cut" => {
                self.out.extend(format!("HTTP/1.1 200 OK\r\nContent-Length: {ANNOUNCED}\r\n\r\n").bytes());
                self.out.extend(pattern(1, number(1)));
                self.then = if words[0] == "die" { Then::Reset } else { Then::Close };
            }
            "reset" => self.then = Then::Reset,
            "silent" => {}
            other => panic!("the test asks for {other}"),
        }
    }

    fn reply(&mut self, fields: &str, body: &[u8]) {
        self.out.extend(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).bytes());
        self.out.extend(body);
    }
}
