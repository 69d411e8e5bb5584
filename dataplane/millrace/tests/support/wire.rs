//! A host of the tests' own on the client's wire: it has an address and a MAC address that the kernel does not know,
//! so no kernel answers for it, and it sends whatever frames a test builds.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::packets::{ACK, BROADCAST, FIN, Ip, Mac, PSH, RST, SYN, Tcp, arp, ethernet};
use super::sandbox::{Ns, REPOSITORY, Sandbox};

/// Millrace's address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);
/// This host's.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 66);
const HOST_MAC: Mac = [2, 0, 0, 0, 0, 0x66];

const PATIENCE: Duration = Duration::from_secs(3);

/// The host. Dropping it unplugs it.
#[derive(Debug)]
pub struct Wire {
    pipe: Child,
    input: Arc<Mutex<ChildStdin>>,
    frames: Receiver<Vec<u8>>,
    gateway_mac: Mac,
}

impl Wire {
    /// Plugs the host in and asks for the gateway's MAC address.
    pub fn plug(sandbox: &Sandbox) -> Self {
        let mut wire = Self::listen(sandbox);
        wire.gateway_mac = wire.resolve(GATEWAY).expect("the gateway answers ARP");
        wire
    }

    /// Plugs the host in where no gateway answers.
    pub fn listen(sandbox: &Sandbox) -> Self {
        let mut command = sandbox.command(Ns::Client, "python3");
        command.arg(format!("{REPOSITORY}/dataplane/millrace/tests/support/wire.py")).arg("eth0");
        let mut pipe = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 runs");
        sandbox.adopt(pipe.id());
        let input = Arc::new(Mutex::new(pipe.stdin.take().expect("a pipe")));
        let mut output = pipe.stdout.take().expect("a pipe");
        assert_eq!(read_frame(&mut output), Some(Vec::new()), "wire.py says that it listens");
        let (sender, frames) = channel();
        std::thread::spawn({
            let input = Arc::clone(&input);
            move || relay(output, &sender, &input)
        });
        Self { pipe, input, frames, gateway_mac: BROADCAST }
    }

    /// Sends a frame as it is.
    pub fn send_frame(&self, frame: &[u8]) {
        write_frame(&self.input, frame);
    }

    /// Sends an IP packet to the gateway.
    pub fn send_packet(&self, packet: &[u8]) {
        self.send_frame(&ethernet(self.gateway_mac, HOST_MAC, 0x0800, packet));
    }

    /// Sends a segment to the gateway.
    pub fn send(&self, segment: &Tcp) {
        self.send_packet(&Ip::new(HOST, GATEWAY, 6).packet(&segment.segment(HOST, GATEWAY)));
    }

    /// Asks for an address by ARP.
    pub fn resolve(&self, address: Ipv4Addr) -> Option<Mac> {
        let question = arp(1, (HOST_MAC, HOST), ([0; 6], address));
        self.send_frame(&ethernet(BROADCAST, HOST_MAC, 0x0806, &question));
        self.expect_frame(|frame| {
            let arp = frame.get(14..42)?;
            let reply = frame[12..14] == [8, 6] && arp[6..8] == [0, 2] && arp[14..18] == address.octets();
            reply.then(|| Mac::try_from(&arp[8..14]).expect("6 bytes"))
        })
    }

    /// The next frame to this host of which `wanted` makes something; `None` when none comes.
    pub fn expect_frame<T>(&self, wanted: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        self.expect_frame_within(PATIENCE, wanted)
    }

    /// The same, with how long to wait.
    pub fn expect_frame_within<T>(&self, limit: Duration, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            let frame = self.frames.recv_timeout(left).ok()?;
            if let Some(found) = wanted(&frame) {
                return Some(found);
            }
        }
    }

    /// The next segment from the gateway to one of our ports.
    pub fn segment(&self, port: u16) -> Option<Tcp> {
        self.segment_within(PATIENCE, port)
    }

    /// The same, with how long to wait.
    pub fn segment_within(&self, limit: Duration, port: u16) -> Option<Tcp> {
        self.expect_frame_within(limit, |frame| {
            if frame.get(12..14)? != [8, 0] {
                return None;
            }
            let (_, _, segment) = Tcp::parse(&frame[14..])?;
            (segment.destination == port).then_some(segment)
        })
    }

    /// Nothing comes to a port for a while.
    pub fn silent(&self, port: u16) -> bool {
        self.segment_within(Duration::from_millis(300), port).is_none()
    }

    /// Shakes hands with the gateway's port 80.
    pub fn connect(&self, port: u16) -> Peer<'_> {
        let seq = 0x1000_0000 + u32::from(port) * 7919;
        let mut syn = Tcp::new(port, 80, SYN, seq, 0);
        syn.options = vec![2, 4, 0x05, 0xb4];
        self.send(&syn);
        let answer = self.segment(port).expect("the gateway answers a SYN");
        assert_eq!(answer.flags & (SYN | ACK | RST), SYN | ACK, "{answer:?}");
        assert_eq!(answer.ack, seq.wrapping_add(1));
        let peer = Peer { wire: self, port, seq: answer.ack, ack: answer.seq.wrapping_add(1) };
        peer.send(ACK, &[]);
        peer
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.pipe.kill();
        let _ = self.pipe.wait();
    }
}

/// A hand-made TCP connection. It sends nothing that a test does not ask for.
#[derive(Debug)]
pub struct Peer<'a> {
    pub wire: &'a Wire,
    pub port: u16,
    /// What we send next.
    pub seq: u32,
    /// What we expect next.
    pub ack: u32,
}

impl Peer<'_> {
    /// A segment at the place where this connection is.
    pub fn segment(&self, flags: u8, payload: &[u8]) -> Tcp {
        Tcp::new(self.port, 80, flags, self.seq, self.ack).payload(payload)
    }

    pub fn send(&self, flags: u8, payload: &[u8]) {
        self.wire.send(&self.segment(flags, payload));
    }

    /// The next segment from the gateway, which is not noted.
    pub fn next(&self) -> Option<Tcp> {
        self.wire.segment(self.port)
    }

    /// Sends a request and reads the reply, acknowledging as a TCP does: the connection works.
    pub fn exchange(&mut self, request: &[u8]) -> String {
        self.send(ACK | PSH, request);
        self.seq = self.seq.wrapping_add(u32::try_from(request.len()).expect("short"));
        let mut reply = Vec::new();
        while !reply.windows(4).any(|window| window == b"\r\n\r\n") {
            let segment = self.next().unwrap_or_else(|| panic!("no reply after {reply:?}"));
            assert_eq!(segment.flags & RST, 0, "reset: {segment:?}");
            if segment.seq == self.ack && !segment.payload.is_empty() {
                self.ack = self.ack.wrapping_add(u32::try_from(segment.payload.len()).expect("short"));
                reply.extend(&segment.payload);
                self.send(ACK, &[]);
            }
            assert_eq!(segment.flags & FIN, 0, "closed after {reply:?}");
        }
        String::from_utf8_lossy(&reply).into_owned()
    }
}

fn relay(mut output: ChildStdout, frames: &Sender<Vec<u8>>, input: &Mutex<ChildStdin>) {
    while let Some(frame) = read_frame(&mut output) {
        // Who has this host's address? This host, not a kernel.
        if let Some(arp_request) = frame.get(14..42)
            && frame[12..14] == [8, 6]
            && arp_request[6..8] == [0, 1]
            && arp_request[24..28] == HOST.octets()
        {
            let asker = Mac::try_from(&arp_request[8..14]).expect("6 bytes");
            let address = <[u8; 4]>::try_from(&arp_request[14..18]).expect("4 bytes");
            let answer = arp(2, (HOST_MAC, HOST), (asker, address.into()));
            write_frame(input, &ethernet(asker, HOST_MAC, 0x0806, &answer));
        }
        if frames.send(frame).is_err() {
            return;
        }
    }
}

fn read_frame(output: &mut ChildStdout) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    output.read_exact(&mut length).ok()?;
    let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
    output.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn write_frame(input: &Mutex<ChildStdin>, frame: &[u8]) {
    let mut bytes = u16::try_from(frame.len()).expect("fits").to_be_bytes().to_vec();
    bytes.extend(frame);
    let mut input = input.lock().expect("no thread panicked");
    let _ = input.write_all(&bytes);
    let _ = input.flush();
}
