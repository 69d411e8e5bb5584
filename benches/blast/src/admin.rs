//! What the gateway says about itself: its cores' busy time, read from its admin endpoint by a thread of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;

const BUSY: &str = "millrace_core_busy_nanoseconds_total";
const TOTAL: &str = "millrace_core_nanoseconds_total";

/// The gateway's cores, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    busy: u64,
    total: u64,
}

impl Sample {
    /// The share of their time that the cores were busy since `before`.
    pub(crate) fn share_since(self, before: Self) -> Option<f64> {
        let total = self.total.checked_sub(before.total).filter(|total| *total > 0)?;
        Some(self.busy.saturating_sub(before.busy) as f64 / total as f64)
    }
}

/// Reads a sample while the load goes on.
pub(crate) fn sample(address: &str) -> JoinHandle<Result<Sample, String>> {
    let address = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
    std::thread::spawn(move || read(&address).map_err(|error| format!("{address}: {error}")))
}

fn read(address: &str) -> std::io::Result<Sample> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The rest would take CPU time that one of us needs.
    let query = format!("name[]={BUSY}&name[]={TOTAL}");
    write!(stream, "GET /metrics?{query} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| std::io::Error::other("no busy time in its metrics"))
}

/// The sums over all cores.
fn parse(text: &str) -> Option<Sample> {
    let sum = |name: &str| {
        let mut values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with(['{', ' ']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<u64>().ok()
        });
        let first = values.next()?;
        Some(first + values.sum::<u64>())
    };
    Some(Sample { busy: sum(BUSY)?, total: sum(TOTAL)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_add_up() {
        let text = "# HELP millrace_core_busy_nanoseconds_total x\nmillrace_core_busy_nanoseconds_total{core=\"0\"} 10\n\
                    millrace_core_busy_nanoseconds_total{core=\"1\"} 20\nmillrace_core_nanoseconds_total{core=\"0\"} 100\n";
        let sample = parse(text).unwrap();
        assert_eq!(sample, Sample { busy: 30, total: 100 });
        assert_eq!(Sample { busy: 80, total: 200 }.share_since(sample), Some(0.5));
        assert_eq!(sample.share_since(sample), None);
        assert_eq!(parse("nothing"), None);
    }
}
