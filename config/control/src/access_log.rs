//! Writes what cores say about requests: one JSON object a line.
//!
//! A thread of its own takes records from the cores' queues, so that a slow disk holds up nobody: a full queue loses
//! records on the core's side, a failed write loses them here, and both are counted. What clients sent is
//! bytes: whatever is not UTF-8 appears as `\xNN`, so that lines are always valid JSON.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tables::Snapshot;
use tables::access::{AccessQueue, AccessRecord};

/// How long records wait at most when nothing else wakes the writer.
const INTERVAL: Duration = Duration::from_millis(100);

/// Records that one round takes from a queue at most, so that each queue has its turn.
const ROUND: usize = 4096;

/// What the writer gets at the end to write what is queued.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Bytes written at once, at most a line more.
const BATCH: usize = 64 << 10;

/// The running writer. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    stop: AtomicBool,
}

impl AccessLog {
    /// Opens `path` for appending and starts to write what comes by `queues`. `snapshot` yields the newest snapshot, whose
    /// series give records their names.
    ///
    /// # Errors
    /// The path cannot be opened, or no thread can be started.
    pub fn start(
        path: &Path,
        queues: Vec<AccessQueue>,
        mut snapshot: impl FnMut() -> Arc<Snapshot> + Send + 'static,
    ) -> io::Result<Self> {
        let mut sink = Sink::open(path)?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let run = move || {
            loop {
                let stop = theirs.stop.load(Ordering::Acquire);
                let once = AssertUnwindSafe(|| drain(&queues, &snapshot(), &mut sink));
                let Ok((written, lost)) = std::panic::catch_unwind(once) else {
                    // The panic hook has said where. What was taken from the queues is lost.
                    tracing::error!("access log panicked; it goes on with the next records");
                    std::thread::park_timeout(INTERVAL);
                    continue;
                };
                theirs.lost.fetch_add(lost, Ordering::Relaxed);
                if written + lost == 0 {
                    if stop {
                        return;
                    }
                    std::thread::park_timeout(INTERVAL);
                }
            }
        };
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Records lost because they could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else {
            return;
        };
        thread.thread().unpark();
        // Not joined: a write to a pipe that nobody reads would hold up the exit for ever.
        let deadline = Instant::now() + LAST_WRITE;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Where lines go.
#[derive(Debug)]
struct Sink {
    path: PathBuf,
    output: Output,
    failing: bool,
}

#[derive(Debug)]
enum Output {
    Stdout,
    Stderr,
    File(File),
}

impl Sink {
    fn open(path: &Path) -> io::Result<Self> {
        // Opening /dev/stdout anew fails where it is a socket (as under systemd), and starts at its beginning where it is a file.
        let output = match path.to_str() {
            Some("/dev/stdout") => Output::Stdout,
            Some("/dev/stderr") => Output::Stderr,
            _ => Output::File(OpenOptions::new().append(true).create(true).open(path)?),
        };
        Ok(Self { path: path.to_owned(), output, failing: false })
    }

    /// Writes whole lines. Says in the log when it starts to fail and when it no longer does, and nothing between.
    fn write(&mut self, lines: &[u8]) -> bool {
        let result = match &mut self.output {
            Output::Stdout => io::stdout().lock().write_all(lines).and_then(|()| io::stdout().flush()),
            Output::Stderr => io::stderr().lock().write_all(lines),
            Output::File(file) => file.write_all(lines),
        };
        match (&result, self.failing) {
            (Err(error), false) => {
                tracing::error!(path = %self.path.display(), %error, "access log cannot be written; records are lost");
            }
            (Ok(()), true) => tracing::info!(path = %self.path.display(), "access log can be written again"),
            _ => {}
        }
        self.failing = result.is_err();
        result.is_ok()
    }
}

/// Takes a round of records from each queue; how many were written, and how many lost.
fn drain(queues: &[AccessQueue], snapshot: &Snapshot, sink: &mut Sink) -> (u64, u64) {
    let (mut written, mut lost) = (0, 0);
    let mut lines = Vec::new();
    let mut pending = 0;
    let now = SystemTime::now();
    let mut flush = |lines: &mut Vec<u8>, pending: &mut u64| {
        if *pending > 0 {
            let counter = if sink.write(lines) { &mut written } else { &mut lost };
            *counter += core::mem::take(pending);
            lines.clear();
        }
    };
    for queue in queues {
        for record in core::iter::from_fn(|| queue.pop()).take(ROUND) {
            line(&record, snapshot, now, &mut lines);
            pending += 1;
            if lines.len() >= BATCH {
                flush(&mut lines, &mut pending);
            }
        }
    }
    flush(&mut lines, &mut pending);
    (written, lost)
}

/// One line of the log. Durations are in seconds; the time is that of writing, at most [`INTERVAL`] after the request's end.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    core: u16,
    listener: &'a str,
    route: &'a str,
    backend: &'a str,
    endpoint: Option<std::net::SocketAddr>,
    client: std::net::SocketAddr,
    method: String,
    host: String,
    path: String,
    status: u16,
    flag: &'a str,
    detail: &'a str,
    attempt: u8,
    request_bytes: u64,
    response_bytes: u64,
    duration: f64,
    backend_duration: f64,
}

fn line(record: &AccessRecord, snapshot: &Snapshot, now: SystemTime, out: &mut Vec<u8>) {
    let series = snapshot.series_since(record.series, record.epoch);
    let start = out.len();
    let line = Line {
        time: rfc3339(now),
        core: record.core,
        listener: series.map_or("", |s| &s.listener),
        route: series.map_or("", |s| &s.route),
        backend: series.map_or("", |s| &s.backend),
        endpoint: record.endpoint.map(|(_, address)| address),
        client: record.client,
        method: printable(&record.method),
        host: printable(&record.authority),
        path: printable(&record.target),
        status: record.status,
        flag: record.flag.token(),
        detail: record.detail,
        attempt: record.attempt,
        request_bytes: record.request_bytes,
        response_bytes: record.response_bytes,
        duration: seconds(record.duration_ns),
        backend_duration: seconds(record.backend_ns),
    };
    match serde_json::to_writer(&mut *out, &line) {
        Ok(()) => out.push(b'\n'),
        // Cannot happen: the line has string keys only, and memory does not refuse a write.
        Err(_) => out.truncate(start),
    }
}

/// The bytes as text; what is not UTF-8, and what a terminal would act upon, as `\xNN`. A backslash is doubled, so that what was
/// escaped can be told from what was sent.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let hex = |text: &mut String, byte: u8| text.push_str(&format!("\\x{byte:02x}"));
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => c.to_string().bytes().for_each(|b| hex(&mut text, b)),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|&b| hex(&mut text, b));
    }
    text
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// UTC with milliseconds (RFC 3339), by Howard Hinnant's civil-from-days.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use crossbeam_queue::ArrayQueue;
    use serde_json::Value;
    use tables::access::{Flag, cut};
    use tables::{Series, SeriesId};

    use super::*;

    fn record(target: &[u8]) -> AccessRecord {
        AccessRecord {
            core: 0,
            series: SeriesId(0),
            epoch: 1,
            client: "10.9.1.9:4711".parse().unwrap(),
            endpoint: None,
            method: cut(b"GET"),
            authority: cut(b"a.example"),
            target: cut(target),
            status: 400,
            flag: Flag::Rejected,
            detail: "target_invalid",
            request_bytes: 10,
            response_bytes: 20,
            duration_ns: 1_500_000,
            backend_ns: 0,
            attempt: 0,
        }
    }

    fn snapshot() -> Snapshot {
        let series = vec![Arc::new(Series::new("d/g/http".into(), "d/r".into(), "d/b".into(), 1))];
        Snapshot::new(1, tables::HttpSettings::default(), vec![], vec![], vec![], series)
    }

    #[test]
    fn every_line_is_json_whatever_was_sent() {
        let all: Vec<u8> = (0..=255).collect();
        for target in [&b"/\xff\xfe\"\n\x1b[31m"[..], &all[..128], &all[128..], "/\u{202e}ü\\".as_bytes(), b"/\xe2\x82"]
        {
            let mut out = Vec::new();
            line(&record(target), &snapshot(), UNIX_EPOCH, &mut out);
            assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), 1);
            assert!(out.iter().all(|&b| b >= b' ' || b == b'\n'));
            let value: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value["listener"], "d/g/http");
            assert_eq!(value["flag"], "rejected");
            assert_eq!(value["duration"], 0.0015);
            assert_eq!(value["time"], "1970-01-01T00:00:00.000Z");
        }
        assert_eq!(printable(b"/\xff\\xff\n"), "/\\xff\\\\xff\\x0a");
    }

    #[test]
    fn time_is_utc() {
        let at = |seconds, ms| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms));
        assert_eq!(at(951_827_696, 7), "2000-02-29T12:34:56.007Z");
        assert_eq!(at(1_785_023_999, 999), "2026-07-25T23:59:59.999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_full_disk_loses_records_and_counts_them() {
        let queue: AccessQueue = Arc::new(ArrayQueue::new(8));
        for _ in 0..5 {
            queue.push(record(b"/")).unwrap();
        }
        let mut sink = Sink::open(Path::new("/dev/full")).unwrap();
        assert_eq!(drain(std::slice::from_ref(&queue), &snapshot(), &mut sink), (0, 5));
        assert!(sink.failing && queue.is_empty());
    }

    #[test]
    fn what_is_queued_at_the_end_is_written() {
        let path = std::env::temp_dir().join(format!("millrace-access-{}", std::process::id()));
        let queue: AccessQueue = Arc::new(ArrayQueue::new(20_000));
        let snapshot = Arc::new(snapshot());
        let log = AccessLog::start(&path, vec![Arc::clone(&queue)], move || Arc::clone(&snapshot)).unwrap();
        for _ in 0..10_000 {
            queue.push(record(b"/x")).unwrap();
        }
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 10_000);
        assert!(text.lines().all(|l| l.contains("\"path\":\"/x\"")));
    }
}
