//! The command line.

use std::net::Ipv4Addr;

use clap::{Parser, ValueEnum};

/// Drives a gateway over DPDK: plays its clients on one port and its backends on another, on one core, and checks every reply.
#[derive(Debug, Parser)]
#[command(name = "blast", version)]
pub(crate) struct Arguments {
    /// What to do.
    #[arg(value_enum)]
    pub(crate) workload: Workload,
    /// DPDK device towards the gateway's clients' side. Needed for all but `machine`.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) north: String,
    /// DPDK device towards its backends' side; without it, the backends are somebody else's.
    #[arg(long)]
    pub(crate) south: Option<String>,
    /// CPU to poll on.
    #[arg(long, default_value_t = 0)]
    pub(crate) core: u16,
    /// The other CPU, of the workload `machine`.
    #[arg(long, default_value_t = 1)]
    pub(crate) other_core: u16,
    /// DPDK's memory, MiB.
    #[arg(long, default_value_t = 384)]
    pub(crate) memory: u32,
    /// Use ordinary pages where there are no hugepages.
    #[arg(long)]
    pub(crate) ordinary_pages: bool,
    /// Name of DPDK's memory files; by default there are none.
    #[arg(long)]
    pub(crate) file_prefix: Option<String>,
    /// Mbufs of each port.
    #[arg(long, default_value_t = 16384)]
    pub(crate) mbufs: u32,

    /// The gateway's address, towards clients.
    #[arg(long, default_value = "10.9.1.1")]
    pub(crate) gateway: Ipv4Addr,
    /// The port that it listens on.
    #[arg(long, default_value_t = 80)]
    pub(crate) port: u16,
    /// The clients' first address.
    #[arg(long, default_value = "10.9.1.10")]
    pub(crate) clients: Ipv4Addr,
    /// How many addresses the clients have; each is good for 64,512 connections.
    #[arg(long, default_value_t = 16)]
    pub(crate) client_addresses: u32,
    /// The gateway's address towards backends.
    #[arg(long, default_value = "10.9.2.1")]
    pub(crate) gateway_south: Ipv4Addr,
    /// The backends' first address.
    #[arg(long, default_value = "10.9.2.2")]
    pub(crate) backends: Ipv4Addr,
    /// How many backends there are.
    #[arg(long, default_value_t = 4)]
    pub(crate) backend_addresses: u32,
    /// The port that they listen on.
    #[arg(long, default_value_t = 8080)]
    pub(crate) backend_port: u16,
    /// `Host` of the requests.
    #[arg(long, default_value = "gateway.test")]
    pub(crate) host: String,
    /// A further field of each request, such as `X-User:7`; may be given several times.
    #[arg(long = "field", value_parser = field)]
    pub(crate) fields: Vec<String>,
    /// Path in front of the nonce.
    #[arg(long, default_value = "/n/")]
    pub(crate) path: String,
    /// Paths, used in turn: {path}r00000/ and so on.
    #[arg(long, default_value_t = 0)]
    pub(crate) routes: u32,
    /// Parts of the run, each with so many of the paths that `--routes` would use, such as 10,10000,10000,10. Each has a warm-up and a
    /// duration of its own, on the same connections.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..), requires = "between", conflicts_with_all = ["routes", "idle", "rate"])]
    pub(crate) parts: Vec<u32>,
    /// A program that is run before each part, when all requests have their replies, with the part's number and its routes; and once more behind
    /// the last one, with its number plus one and 0. What it says stands in the results.
    #[arg(long)]
    pub(crate) between: Option<String>,

    /// Connections that ask.
    #[arg(short, long, default_value_t = 256)]
    pub(crate) connections: u32,
    /// Connections that are held idle.
    #[arg(long, default_value_t = 0)]
    pub(crate) idle: u32,
    /// Requests a second, at fixed times (open loop); without it, each connection asks again at once (closed loop).
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Bytes of a reply's body, such as 60, 1KiB, 1MiB.
    #[arg(long, value_parser = size)]
    pub(crate) body: Option<u32>,
    /// Bytes of a request's body.
    #[arg(long, value_parser = size)]
    pub(crate) upload: Option<u32>,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) duration: f64,
    /// Seconds of load before that.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) warm_up: f64,
    /// Seconds after which a reply is missing.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) timeout: f64,
    /// Milliseconds until an unacknowledged segment is sent again; 200 by default, and 10 with `--loss`, so that the generator's own
    /// segments are not what takes long.
    #[arg(long)]
    pub(crate) retransmission: Option<u32>,
    /// The share of TCP frames towards and from clients that vanish, each way, such as 1%. Frames are small, then.
    #[arg(long, value_parser = share, default_value = "0")]
    pub(crate) loss: f64,
    /// Send and receive no segments larger than the MTU allows, also where the wire has them (net_vhost). All runs against one
    /// gateway process have to agree.
    #[arg(long)]
    pub(crate) small_frames: bool,
    /// Bytes under way on a port at most, beside the first segment of each message: what the wire's ring holds.
    #[arg(long, default_value_t = 700_000)]
    pub(crate) in_flight: u64,
    /// How far the offered window of 64 KiB is shifted: a gateway's kernel may have so much under way on each connection.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=14))]
    pub(crate) window_scale: u8,
    /// Bytes of a frame, of the workload `raw`.
    #[arg(long, default_value_t = 60)]
    pub(crate) frame: usize,

    /// The gateway's admin endpoint, as host:port, whose busy time is read before and after measuring.
    #[arg(long)]
    pub(crate) gateway_admin: Option<String>,
    /// The gateway's process, on this machine: its memory, and what its polling threads had to wait, stand in the results.
    #[arg(long)]
    pub(crate) gateway_pid: Option<u32>,
    /// The wires lead to a `blast forward` in place of a gateway: clients talk to the first backend themselves.
    #[arg(long)]
    pub(crate) direct: bool,
    /// Write the results to this file; `-` is the standard output, in place of the summary.
    #[arg(long)]
    pub(crate) json: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Requests on connections that stay; replies of 60 bytes.
    Keepalive,
    /// A connection for each request; replies of 60 bytes.
    Close,
    /// Replies of 1 MiB.
    BulkDown,
    /// Requests of 1 MiB.
    BulkUp,
    /// Idle connections are held while others ask; replies of 60 bytes.
    Idle,
    /// Frames, as fast as they come back from a `reflect` at the other end of the north wire.
    Raw,
    /// Sends every frame back on the port that it came from.
    Reflect,
    /// Sends every frame out of the other port, as it is, until it is ended: what stands in for a gateway that costs nothing.
    Forward,
    /// Neither wire nor frames: how long the machine takes polling CPUs away, and how far they are from each other.
    Machine,
}

impl Arguments {
    /// Bytes of a reply's body.
    pub(crate) fn reply(&self) -> u32 {
        self.body.unwrap_or(if self.workload == Workload::BulkDown { MIB } else { 60 })
    }

    /// Bytes of a request's body.
    pub(crate) fn request(&self) -> u32 {
        self.upload.unwrap_or(if self.workload == Workload::BulkUp { MIB } else { 0 })
    }
}

impl Arguments {
    /// How many paths are used, at most; 0 is one without a number.
    pub(crate) fn paths(&self) -> u32 {
        self.parts.iter().copied().max().unwrap_or(self.routes)
    }

    /// Milliseconds until an unacknowledged segment is sent again.
    pub(crate) fn retransmission(&self) -> u32 {
        self.retransmission.unwrap_or(if self.loss > 0.0 { 10 } else { 200 })
    }

    /// Whether the wires may carry segments of up to 64 KiB. A frame that vanishes has to be one segment.
    pub(crate) fn large(&self) -> bool {
        let frames = matches!(self.workload, Workload::Raw | Workload::Reflect | Workload::Forward | Workload::Machine);
        !(self.small_frames || self.direct || self.loss > 0.0 || frames)
    }
}

const MIB: u32 = 1 << 20;

fn field(text: &str) -> Result<String, String> {
    let (name, value) =
        text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or("a name, a colon and a value")?;
    if text.contains(|c: char| c.is_control()) {
        Err("without control characters".to_owned())
    } else {
        Ok(format!("{name}: {}", value.trim()))
    }
}

fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.parse::<f64>().map_err(|error| error.to_string())? / unit;
    if (0.0..=0.5).contains(&share) { Ok(share) } else { Err("at most 50%".to_owned()) }
}

fn size(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.trim_end_matches(|c: char| c.is_ascii_alphabetic()) {
        number if number.len() == text.len() => (number, 1),
        number if text.ends_with("KiB") => (number, 1 << 10),
        number if text.ends_with("MiB") => (number, MIB),
        _ => return Err("a number, with KiB or MiB or nothing behind it".to_owned()),
    };
    let number: u32 = number.parse().map_err(|error| format!("{error}"))?;
    // Sequence numbers are 32 bits, and a message must not wrap half of them.
    number.checked_mul(unit).filter(|size| *size <= 1 << 30).ok_or_else(|| "at most 1024MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn shares() {
        assert_eq!((share("1%"), share("0.01"), share("0")), (Ok(0.01), Ok(0.01), Ok(0.0)));
        for wrong in ["", "%", "-1%", "51%", "NaN", "1 %%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields() {
        assert_eq!(field("X-User:7"), Ok("X-User: 7".to_owned()));
        for wrong in ["", "a", ":b", "a: b\r\nc: d"] {
            assert!(field(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!((size("60"), size("64KiB"), size("1MiB")), (Ok(60), Ok(65536), Ok(MIB)));
        for wrong in ["", "KiB", "1GB", "1kib", "2048MiB", "-1"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
