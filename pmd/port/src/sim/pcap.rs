//! Capture files in and out: classic libpcap, Ethernet.
//!
//! [`Tap`] wraps any lane, DPDK's too, and writes what passes it; [`Replay`] feeds a file's frames into a lane
//! at their times. Neither reads real time: timestamps are arguments. Writing is blocking I/O and allocates nothing
//! beyond the output's own buffer; it is for tests and for `capture`, never for a core in full flight.
//!
//! Format: draft-ietf-opsawg-pcap (24 bytes of file header, 16 of each record's, either byte order).

use super::send;
use crate::{Burst, Frame, Lane, LaneCounters, Link, TxChecksum, checksum};
use core::time::Duration;
use std::io::{self, Read, Write};

/// The largest record that is read or written, tcpdump's default snap length. What is longer is cut when
/// it is written and refused when it is read.
pub const SNAP_LEN: usize = 262_144;

/// Writes a capture file with nanosecond timestamps.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Writes the file header.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut header = [0u8; FILE_HEADER];
        header[0..4].copy_from_slice(&NANOSECONDS.to_le_bytes());
        header[4..6].copy_from_slice(&MAJOR.to_le_bytes());
        header[6..8].copy_from_slice(&MINOR.to_le_bytes());
        header[16..20].copy_from_slice(&(SNAP_LEN as u32).to_le_bytes());
        header[20..24].copy_from_slice(&ETHERNET.to_le_bytes());
        out.write_all(&header)?;
        Ok(Self { out })
    }

    /// Writes one frame that passed at `at`.
    ///
    /// # Errors
    /// What the output reports; [`io::ErrorKind::InvalidInput`] for times that do not fit 32 bits of seconds.
    pub fn write(&mut self, at: Duration, frame: &[u8]) -> io::Result<()> {
        let Ok(seconds) = u32::try_from(at.as_secs()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "time beyond the format's 32 bits of seconds"));
        };
        let kept = &frame[..frame.len().min(SNAP_LEN)];
        let original = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let mut header = [0u8; RECORD_HEADER];
        header[0..4].copy_from_slice(&seconds.to_le_bytes());
        header[4..8].copy_from_slice(&at.subsec_nanos().to_le_bytes());
        header[8..12].copy_from_slice(&(kept.len() as u32).to_le_bytes());
        header[12..16].copy_from_slice(&original.to_le_bytes());
        self.out.write_all(&header)?;
        self.out.write_all(kept)
    }

    /// Flushes and returns the output.
    ///
    /// # Errors
    /// What the output reports.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// One record of a capture file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its timestamp: since 1970 in most files, since the start in a simulation's.
    pub at: Duration,
    /// What was captured, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// The frame's length on the wire: more than was captured where the capture cut it.
    pub original_len: u32,
}

/// Reads a capture file, record by record. It ends after the first error.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: R,
    swapped: bool,
    nanoseconds: bool,
    done: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the file header.
    ///
    /// # Errors
    /// [`PcapError`]: the file is no classic pcap file of Ethernet frames, or cannot be read.
    pub fn new(mut input: R) -> Result<Self, PcapError> {
        let mut header = [0u8; FILE_HEADER];
        if fill(&mut input, &mut header)? < FILE_HEADER {
            return Err(PcapError::Truncated);
        }
        let magic = word(&header, 0, false);
        let swapped = matches!(magic.swap_bytes(), MICROSECONDS | NANOSECONDS);
        let nanoseconds = match word(&header, 0, swapped) {
            NANOSECONDS => true,
            MICROSECONDS => false,
            _ => return Err(PcapError::Magic(magic)),
        };
        let halves = [u16::from_le_bytes([header[4], header[5]]), u16::from_le_bytes([header[6], header[7]])];
        let [major, minor] = halves.map(|half| if swapped { half.swap_bytes() } else { half });
        if major != MAJOR {
            return Err(PcapError::Version { major, minor });
        }
        match word(&header, 20, swapped) {
            ETHERNET => Ok(Self { input, swapped, nanoseconds, done: false }),
            other => Err(PcapError::LinkType(other)),
        }
    }

    fn record(&mut self) -> Result<Option<Packet>, PcapError> {
        let mut header = [0u8; RECORD_HEADER];
        match fill(&mut self.input, &mut header)? {
            0 => return Ok(None),
            RECORD_HEADER => {}
            _ => return Err(PcapError::Truncated),
        }
        let [seconds, fraction, kept, original_len] = [0, 4, 8, 12].map(|at| word(&header, at, self.swapped));
        let (unit, units) = if self.nanoseconds { (1, 1_000_000_000) } else { (1000, 1_000_000) };
        if fraction >= units {
            return Err(PcapError::Time(fraction));
        }
        let len = kept as usize;
        if len > SNAP_LEN {
            return Err(PcapError::TooLong(kept));
        }
        let mut bytes = vec![0; len];
        if fill(&mut self.input, &mut bytes)? < len {
            return Err(PcapError::Truncated);
        }
        Ok(Some(Packet { at: Duration::new(seconds.into(), fraction * unit), bytes, original_len }))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Packet, PcapError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let record = self.record().transpose();
        self.done = !matches!(record, Some(Ok(_)));
        record
    }
}

/// Why a capture file cannot be read. All but `Io` are the file's fault.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The input failed.
    #[error("cannot read the capture: {0}")]
    Io(#[from] io::Error),
    /// The file ends within its header or within a record.
    #[error("the capture ends in the middle of a record")]
    Truncated,
    /// The first four bytes, read as little-endian.
    #[error("not a classic pcap file: magic number {0:#010x} (pcapng files can be converted with `editcap -F pcap`)")]
    Magic(u32),
    /// A version other than 2.x.
    #[error("pcap version {major}.{minor} is not 2.4")]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// The frames are not Ethernet, or carry their FCS.
    #[error("link type {0:#x} is not plain Ethernet (1)")]
    LinkType(u32),
    /// A fraction of a second that is a second or more.
    #[error("a record's time has a fraction of {0}, a second or more")]
    Time(u32),
    /// A record longer than [`SNAP_LEN`], in bytes.
    #[error("a record claims {0} bytes, more than {SNAP_LEN}")]
    TooLong(u32),
}

/// A lane that writes into a capture file what passes another one, in both directions.
///
/// Received frames are written when they are received, sent ones when they are staged, so also those that the
/// device then drops; checksums that the NIC would fill are filled first. `C` gives the timestamps. After the first
/// write error the lane works on and nothing more is written: [`Tap::finish`] reports it.
#[derive(Debug)]
pub struct Tap<L: Lane, W: Write, C: FnMut() -> Duration> {
    lane: L,
    writer: Writer<W>,
    clock: C,
    error: Option<io::Error>,
}

impl<L: Lane, W: Write, C: FnMut() -> Duration> Tap<L, W, C> {
    /// Wraps `lane`, and writes the file header to `out`.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn new(lane: L, out: W, clock: C) -> io::Result<Self> {
        Ok(Self { lane, writer: Writer::new(out)?, clock, error: None })
    }

    /// The lane within.
    pub fn lane(&self) -> &L {
        &self.lane
    }

    /// The lane within. What passes it directly is not written.
    pub fn lane_mut(&mut self) -> &mut L {
        &mut self.lane
    }

    /// Ends the capture: the lane and the flushed output.
    ///
    /// # Errors
    /// The first error of any write.
    pub fn finish(self) -> io::Result<(L, W)> {
        match self.error {
            Some(error) => Err(error),
            None => Ok((self.lane, self.writer.finish()?)),
        }
    }

    fn record(&mut self, frame: &[u8]) {
        if self.error.is_none() {
            self.error = self.writer.write((self.clock)(), frame).err();
        }
    }
}

impl<L: Lane, W: Write, C: FnMut() -> Duration> Lane for Tap<L, W, C> {
    type Frame = L::Frame;

    fn receive(&mut self, burst: &mut Burst<L::Frame>) {
        self.lane.receive(burst);
        for frame in burst.iter() {
            self.record(frame.bytes());
        }
    }

    fn allocate(&mut self) -> Option<L::Frame> {
        self.lane.allocate()
    }

    fn transmit(&mut self, mut frame: L::Frame, checksum: TxChecksum) {
        if let TxChecksum::Tcp { l2_len, l3_len } | TxChecksum::TcpSegments { l2_len, l3_len, .. } = checksum {
            // For the file only: the lane still does what it was asked for. A malformed frame is written as it is, and one that is to be
            // cut as it is before that.
            let _ = checksum::finish_tcp(frame.bytes_mut(), l2_len.into(), l3_len.into());
        }
        self.record(frame.bytes());
        self.lane.transmit(frame, checksum);
    }

    fn flush(&mut self) {
        self.lane.flush();
    }

    fn mac(&self) -> [u8; 6] {
        self.lane.mac()
    }

    fn mtu(&self) -> u16 {
        self.lane.mtu()
    }

    fn link(&self) -> Link {
        self.lane.link()
    }

    fn counters(&self) -> LaneCounters {
        self.lane.counters()
    }

    fn allocate_reserved(&mut self) -> Option<L::Frame> {
        self.lane.allocate_reserved()
    }

    fn allocate_large(&mut self) -> Option<L::Frame> {
        self.lane.allocate_large()
    }

    fn largest(&self) -> u16 {
        self.lane.largest()
    }

    fn frames_in_use(&self) -> usize {
        self.lane.frames_in_use()
    }
}

/// Feeds the frames of a capture file into a lane at their times.
#[derive(Debug)]
pub struct Replay<R: Read> {
    reader: Reader<R>,
    start: Duration,
    towards: Option<[u8; 6]>,
    /// Timestamp of the file's first frame.
    base: Option<Duration>,
    due: Duration,
    next: Option<Packet>,
    fed: u64,
    refused: u64,
}

impl<R: Read> Replay<R> {
    /// A replay in which the file's first frame is due at `start`, and each other one as much later as its timestamp says; one
    /// that is stamped earlier than the one before it is due with that one. With `towards`, only frames are fed
    /// whose destination is that MAC address or a group: one side of what a [`Tap`] wrote.
    ///
    /// # Errors
    /// [`PcapError`] of the first frame.
    pub fn new(reader: Reader<R>, start: Duration, towards: Option<[u8; 6]>) -> Result<Self, PcapError> {
        let mut replay = Self { reader, start, towards, base: None, due: start, next: None, fed: 0, refused: 0 };
        replay.load()?;
        Ok(replay)
    }

    /// When the next frame is due; `None` after the last one.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.next.as_ref().map(|_| self.due)
    }

    /// Sends on `lane` all frames that are due by `now`.
    ///
    /// # Errors
    /// [`PcapError`] of the frame behind the last one sent. The replay has then ended.
    pub fn feed<L: Lane>(&mut self, lane: &mut L, now: Duration) -> Result<(), PcapError> {
        while self.due <= now {
            let Some(packet) = self.next.take() else {
                break;
            };
            let whole = packet.original_len as usize == packet.bytes.len();
            if whole && send(lane, &packet.bytes) {
                self.fed += 1;
            } else {
                self.refused += 1;
            }
            self.load()?;
        }
        Ok(())
    }

    /// Frames sent so far.
    #[must_use]
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// Frames not sent: the capture had cut them, they did not fit the lane's buffers, or its pool was empty.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn load(&mut self) -> Result<(), PcapError> {
        // Bounded by the file.
        while let Some(packet) = self.reader.next() {
            let packet = packet?;
            let base = *self.base.get_or_insert(packet.at);
            if self.wanted(&packet.bytes) {
                self.due = self.due.max(self.start.saturating_add(packet.at.saturating_sub(base)));
                self.next = Some(packet);
                break;
            }
        }
        Ok(())
    }

    fn wanted(&self, frame: &[u8]) -> bool {
        let group = frame.first().is_some_and(|first| first & 1 == 1);
        self.towards.is_none_or(|mac| group || frame.starts_with(&mac))
    }
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const MAJOR: u16 = 2;
const MINOR: u16 = 4;
const ETHERNET: u32 = 1;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Four bytes of a header, little-endian, or big-endian where `swapped`.
fn word(header: &[u8], at: usize, swapped: bool) -> u32 {
    let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    if swapped { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

/// Reads until `buffer` is full or the input ends, and says how far it came.
fn fill<R: Read>(input: &mut R, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
