//! Clients that ask one request after the other and look at every reply: what failed, when, and how.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Connection, Response};
use super::sandbox::{Ns, Sandbox, VIP};

/// A request and what became of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// When it was sent and when it was over, since the load began.
    pub sent: Duration,
    pub over: Duration,
    /// 0 where the connection ended without a reply.
    pub status: u16,
    /// The whole of the reply came.
    pub complete: bool,
    /// Who served it, by `X-Backend` or by its body's first word.
    pub by: String,
}

impl Outcome {
    pub fn is_good(&self) -> bool {
        self.status == 200 && self.complete
    }
}

/// Running clients. Dropping it ends them.
#[derive(Debug)]
pub struct Load {
    began: Instant,
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients, each on a connection of its own, which send `request` again and again.
    pub fn start(sandbox: &Sandbox, clients: usize, request: impl Into<Vec<u8>>) -> Self {
        let request: Arc<[u8]> = request.into().into();
        let began = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let enter = sandbox.entrance(Ns::Client);
        let threads = (0..clients).map(|_| {
            let (request, stop, outcomes) = (Arc::clone(&request), Arc::clone(&stop), Arc::clone(&outcomes));
            let enter = enter.clone();
            std::thread::spawn(move || {
                enter.enter();
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let (outcome, next) = ask(connection, &request, began);
                    connection = next;
                    outcomes.lock().expect("no client panicked").push(outcome);
                }
            })
        });
        let threads = threads.collect();
        Self { began, stop, outcomes, threads }
    }

    /// Since the load began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What was sent since then and is over.
    pub fn since(&self, then: Duration) -> Vec<Outcome> {
        let outcomes = self.outcomes.lock().expect("no client panicked");
        outcomes.iter().filter(|outcome| outcome.sent >= then).cloned().collect()
    }

    /// Ends it. All that was asked, and what became of it.
    pub fn finish(mut self) -> Vec<Outcome> {
        self.end();
        let mut outcomes = self.outcomes.lock().expect("no client panicked");
        outcomes.sort_by_key(|outcome| outcome.sent);
        std::mem::take(&mut outcomes)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let panics = self.threads.drain(..).filter_map(|thread| thread.join().err()).count();
        assert!(panics == 0 || std::thread::panicking(), "{panics} clients panicked");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn ask(connection: Option<Connection>, request: &[u8], began: Instant) -> (Outcome, Option<Connection>) {
    let mut connection = connection.unwrap_or_else(|| Connection::open((VIP, 80)));
    let sent = began.elapsed();
    // Who answers early may not take the rest.
    let whole = connection.try_send(request);
    let response = connection.try_response(false);
    let over = began.elapsed();
    let keeps = whole && response.as_ref().is_some_and(|r| r.complete && r.field("connection") != Some("close"));
    let outcome = match response {
        Some(response) => {
            Outcome { sent, over, status: response.status, complete: response.complete, by: server(&response) }
        }
        None => Outcome { sent, over, status: 0, complete: false, by: String::new() },
    };
    (outcome, keeps.then_some(connection))
}

fn server(response: &Response) -> String {
    let by = response.field("x-backend").map(str::to_owned);
    by.unwrap_or_else(|| response.text().split_whitespace().next().unwrap_or_default().to_owned())
}

/// What failed of them, for messages.
pub fn failures(outcomes: &[Outcome]) -> Vec<&Outcome> {
    outcomes.iter().filter(|outcome| !outcome.is_good()).collect()
}

/// How many of them `name` served.
pub fn served_by(outcomes: &[Outcome], name: &str) -> usize {
    outcomes.iter().filter(|outcome| outcome.is_good() && outcome.by == name).count()
}
