//! A client that sends exactly the bytes it is given and reads replies strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A reply, as it came.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub version: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body had its length or its last chunk.
    pub complete: bool,
}

impl Response {
    /// All of a reply after which the connection ended.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut connection = Reader { pending: bytes.to_vec(), stream: None };
        connection.response(false)
    }

    /// The first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One TCP connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    reader: Reader,
}

impl Connection {
    /// Connects from the namespace of the calling thread.
    pub fn open(address: impl ToSocketAddrs) -> Self {
        let address: SocketAddr = address.to_socket_addrs().expect("an address").next().expect("an address");
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("it accepts connections");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        let reader = Reader { pending: Vec::new(), stream: Some(stream.try_clone().expect("a socket can be cloned")) };
        Self { stream, reader }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends all of it; panics when the other side does not take it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the connection takes bytes");
    }

    /// Sends what the other side takes: it may have answered and closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// The next reply, interim ones too.
    pub fn response(&mut self) -> Response {
        self.try_response(false).expect("a reply")
    }

    /// The next reply, to a HEAD request.
    pub fn response_to_head(&mut self) -> Response {
        self.try_response(true).expect("a reply")
    }

    /// `None` where the connection ends before a whole head.
    pub fn try_response(&mut self, to_head: bool) -> Option<Response> {
        self.reader.response(to_head)
    }

    /// Exactly `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.reader.pending.len() < len {
            assert!(self.reader.fill(), "ended after {} of {len} bytes", self.reader.pending.len());
        }
        self.reader.pending.drain(..len).collect()
    }

    /// Whether the other side closes within a test's patience, without another byte.
    pub fn closed(&mut self) -> bool {
        self.reader.pending.is_empty() && !self.reader.fill()
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.reader.fill() {}
        std::mem::take(&mut self.reader.pending)
    }

    /// Sends a FIN.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Closes with a RST.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("an option");
    }
}

#[derive(Debug)]
struct Reader {
    pending: Vec<u8>,
    stream: Option<TcpStream>,
}

impl Reader {
    /// Waits for more; false when the connection has ended, in whichever way.
    fn fill(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let mut buffer = [0; 65_536];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(len) => {
                    self.pending.extend_from_slice(&buffer[..len]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing within {PATIENCE:?}; pending: {:?}", String::from_utf8_lossy(&self.pending))
                }
                Err(_) => return false,
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut from = 0;
        loop {
            if let Some(end) = self.pending[from..].windows(2).position(|pair| pair == b"\r\n") {
                let line = self.pending.drain(..from + end + 2).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned());
            }
            from = self.pending.len().saturating_sub(1);
            if !self.fill() {
                return None;
            }
        }
    }

    fn fields(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(fields);
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a field: {line:?}"));
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn take(&mut self, len: usize, into: &mut Vec<u8>) -> bool {
        while self.pending.len() < len {
            if !self.fill() {
                into.append(&mut self.pending);
                return false;
            }
        }
        into.extend(self.pending.drain(..len));
        true
    }

    fn response(&mut self, to_head: bool) -> Option<Response> {
        let line = self.line()?;
        let mut words = line.split(' ');
        let version = words.next().filter(|word| word.starts_with("HTTP/1.")).unwrap_or_else(|| panic!("{line:?}"));
        let status = words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
        let mut response =
            Response { status, version: version.to_owned(), fields: self.fields()?, ..Response::default() };
        if to_head || status < 200 || status == 204 || status == 304 {
            response.complete = true;
        } else if response.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            assert!(response.field("content-length").is_none(), "two framings: {response:?}");
            response.complete = self.chunks(&mut response).is_some();
        } else if let Some(length) = response.field("content-length") {
            let length = length.parse().unwrap_or_else(|_| panic!("{response:?}"));
            response.complete = self.take(length, &mut response.body);
        } else {
            while self.fill() {}
            response.body = std::mem::take(&mut self.pending);
        }
        Some(response)
    }

    fn chunks(&mut self, response: &mut Response) -> Option<()> {
        loop {
            let size = self.line()?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("not a chunk size: {size:?}"));
            if size == 0 {
                response.trailers = self.fields()?;
                return Some(());
            }
            if !self.take(size, &mut response.body) {
                return None;
            }
            let end = self.line()?;
            assert!(end.is_empty(), "a chunk of {size} bytes does not end where it should");
        }
    }
}
