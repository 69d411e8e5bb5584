//! A backend whose every byte a test decides, and which remembers every byte it was sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::PATIENCE;
use super::sandbox::{Ns, Sandbox};

/// A listening backend; dropping it closes it.
#[derive(Debug)]
pub struct Backend {
    record: Arc<Record>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What reached a backend.
#[derive(Debug, Default)]
struct Record {
    connections: AtomicUsize,
    bytes: Mutex<Vec<u8>>,
}

/// One connection as a backend sees it.
#[derive(Debug)]
pub struct Served {
    pub stream: TcpStream,
    /// Which connection of this backend, from 0.
    pub number: usize,
    pending: Vec<u8>,
    record: Arc<Record>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Backend {
    /// Listens on an address of `ns` and serves each connection on a thread of its own.
    pub fn start(
        sandbox: &Sandbox,
        ns: Ns,
        address: &str,
        serve: impl Fn(&mut Served) + Send + Sync + 'static,
    ) -> Self {
        let listener = sandbox.inside(ns, || TcpListener::bind(address)).expect("the address is free");
        listener.set_nonblocking(true).expect("an option");
        let record = Arc::new(Record::default());
        let stop = Arc::new(AtomicBool::new(false));
        let serve = Arc::new(serve);
        let thread = std::thread::spawn({
            let (record, stop) = (Arc::clone(&record), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => accept(stream, &record, &serve),
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            }
        });
        Self { record, stop, thread: Some(thread) }
    }

    /// Answers every request with 200 and what it got: the head, then the length of the body.
    pub fn echo(sandbox: &Sandbox, ns: Ns, address: &str) -> Self {
        Self::start(sandbox, ns, address, |served| {
            while let Some(request) = served.request() {
                let body = format!("{}\nbody: {}\n", request.head, request.body.len());
                served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
            }
        })
    }

    /// Sends the same bytes in answer to each request.
    pub fn canned(sandbox: &Sandbox, ns: Ns, address: &str, reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        Self::start(sandbox, ns, address, move |served| {
            while served.request().is_some() {
                served.send(&reply);
            }
        })
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// All bytes so far, of all connections.
    pub fn bytes(&self) -> Vec<u8> {
        self.record.bytes.lock().expect("no thread panicked").clone()
    }

    /// All bytes so far as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Served {
    /// Reads one request; `None` when the connection ends before it is whole.
    pub fn request(&mut self) -> Option<Request> {
        let head = self.head()?;
        let mut request = Request { head, body: Vec::new(), trailers: String::new() };
        let lower = request.head.to_ascii_lowercase();
        if lower.contains("\r\ntransfer-encoding: chunked") {
            loop {
                let line = self.until(b"\r\n")?;
                let size = line.split(';').next().unwrap_or_default().trim().to_owned();
                let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("not a chunk size: {size:?}"));
                if size == 0 {
                    break;
                }
                request.body.extend(self.exactly(size)?);
                assert_eq!(self.until(b"\r\n")?, "\r\n");
            }
            loop {
                let line = self.until(b"\r\n")?;
                if line == "\r\n" {
                    break;
                }
                request.trailers.push_str(&line);
            }
        } else if let Some((_, rest)) = lower.split_once("\r\ncontent-length:") {
            let length = rest.split("\r\n").next().unwrap_or_default().trim().parse().expect("a length");
            request.body = self.exactly(length)?;
        }
        Some(request)
    }

    /// Reads a head, up to and with its empty line.
    pub fn head(&mut self) -> Option<String> {
        self.until(b"\r\n\r\n")
    }

    /// Reads exactly so many bytes.
    pub fn exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.pending.len() < len {
            self.fill()?;
        }
        Some(self.pending.drain(..len).collect())
    }

    /// Reads whatever comes next.
    pub fn some(&mut self) -> Option<Vec<u8>> {
        if self.pending.is_empty() {
            self.fill()?;
        }
        Some(std::mem::take(&mut self.pending))
    }

    /// Sends; false when the other side is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Closes with a RST when this is dropped.
    pub fn reset(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }

    fn until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.pending.windows(end.len()).position(|window| window == end) {
                let bytes = self.pending.drain(..at + end.len()).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Option<()> {
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => {
                    let mut bytes = self.record.bytes.lock().expect("no thread panicked");
                    // Enough to compare any head with; a body of a gigabyte need not be kept.
                    if bytes.len() < 1 << 20 {
                        bytes.extend_from_slice(&buffer[..len]);
                    }
                    self.pending.extend_from_slice(&buffer[..len]);
                    return Some(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

fn accept(stream: TcpStream, record: &Arc<Record>, serve: &Arc<impl Fn(&mut Served) + Send + Sync + 'static>) {
    stream.set_nonblocking(false).expect("an option");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(6 * PATIENCE)).expect("an option");
    stream.set_write_timeout(Some(6 * PATIENCE)).expect("an option");
    let number = record.connections.fetch_add(1, Ordering::SeqCst);
    let (record, serve) = (Arc::clone(record), Arc::clone(serve));
    std::thread::spawn(move || serve(&mut Served { stream, number, pending: Vec::new(), record }));
}
