//! Keeps DPDK's last log lines, so that they are neither printed nor lost.

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines kept: start-up of DPDK with every driver logs fewer.
const LINES: usize = 256;

/// Bytes of one line kept; DPDK's own lines are shorter.
const LINE: usize = 1024;

static LOG: Mutex<Log> = Mutex::new(Log { lines: VecDeque::new(), open: String::new(), written: 0 });

struct Log {
    lines: VecDeque<String>,
    /// A line whose end was not written yet.
    open: String,
    /// Lines written since the start of the process.
    written: u64,
}

/// Makes DPDK log into this module. To be called once, before DPDK starts.
pub(super) fn capture() {
    // SAFETY: `write` fits the type and is never unloaded. Where there is no memory, DPDK keeps logging to
    // the console, which is harmless.
    unsafe { dpdk_sys::shim_log_to(Some(write)) };
}

/// A point in the log, for [`since`].
pub(crate) fn mark() -> u64 {
    log().written
}

/// The lines written since `mark`, as far as they are kept, oldest first.
pub(crate) fn since(mark: u64) -> Vec<String> {
    let log = log();
    let new = usize::try_from(log.written.saturating_sub(mark)).unwrap_or(usize::MAX).min(log.lines.len());
    log.lines.iter().skip(log.lines.len() - new).cloned().collect()
}

/// Takes all lines that are kept, oldest first.
pub(super) fn take() -> Vec<String> {
    log().lines.drain(..).collect()
}

fn log() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stdio calls with the bytes of DPDK's log stream.
unsafe extern "C" fn write(_cookie: *mut c_void, text: *const c_char, len: usize) -> isize {
    // SAFETY: stdio passes a buffer of `len` bytes that lives as long as this call.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    log().push(&String::from_utf8_lossy(text));
    isize::try_from(len).unwrap_or(isize::MAX)
}

impl Log {
    fn push(&mut self, text: &str) {
        for part in text.split_inclusive('\n') {
            let line = part.strip_suffix('\n').unwrap_or(part);
            let room = LINE.saturating_sub(self.open.len());
            self.open.push_str(line.get(..line.floor_char_boundary(room)).unwrap_or_default());
            if part.len() > line.len() {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let line = std::mem::take(&mut self.open);
        if line.trim().is_empty() {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.written += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_split_and_bounded() {
        let mut log = Log { lines: VecDeque::new(), open: String::new(), written: 0 };
        log.push("EAL: on");
        log.push("e\nEAL: two\n\nEAL: thr");
        assert_eq!(log.lines, ["EAL: one", "EAL: two"]);
        log.push("ee\n");
        assert_eq!(log.lines[2], "EAL: three");
        log.push(&"é".repeat(LINE));
        log.push("\n");
        assert_eq!(log.lines[3].len(), LINE);
        for i in 0..2 * LINES {
            log.push(&format!("{i}\n"));
        }
        assert_eq!(log.lines.len(), LINES);
        assert_eq!(log.lines.back().unwrap(), "511");
        assert_eq!(log.written, 4 + 512);
    }
}
