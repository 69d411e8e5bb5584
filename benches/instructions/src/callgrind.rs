//! Counting by valgrind's callgrind: this program runs itself under it, one case at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Keeps memcpy from `rep movsb`, of which valgrind counts an instruction for each byte.
const NO_REP_MOVSB: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1000000000");

/// Instructions of `n` operations of `case`, as counted within [`crate::collect_here`]. callgrind's own file goes to
/// `file`.
///
/// # Errors
/// valgrind is missing, the case failed, or valgrind's file has no sum.
pub(crate) fn count(case: &str, n: u64, file: &Path) -> io::Result<u64> {
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(file);
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*collect_here*"])
        .arg(out)
        .arg(std::env::current_exe()?)
        .args(["case", case, &n.to_string()])
        .env(NO_REP_MOVSB.0, NO_REP_MOVSB.1)
        .stdin(Stdio::null())
        .output()?;
    if !done.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned()));
    }
    let text = std::fs::read_to_string(file)?;
    let sum = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    sum.filter(|&sum| sum > 0).ok_or_else(|| io::Error::other("valgrind counted nothing"))
}

/// A file of its own for a case of this process.
pub(crate) fn scratch(case: &str) -> PathBuf {
    std::env::temp_dir().join(format!("millrace-instructions.{}.{case}", std::process::id()))
}
