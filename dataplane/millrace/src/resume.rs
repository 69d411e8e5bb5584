//! How soon a CPU that idled is awake again.
//!
//! A core that sleeps has to be back within 50 µs of a packet. How deep its CPU sleeps meanwhile is the kernel's to choose, within what the CPU's quality of
//! service asks for (PM QoS: `Documentation/ABI/testing/sysfs-devices-power`, `pm_qos_resume_latency_us`). So a core that may sleep asks for states that it
//! comes out of quickly. Where that does not suffice, which is so on virtual machines, whose halts the hypervisor has to end, it asks for none: the kernel
//! then waits for work without halting, and other threads still have the CPU whenever they want it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is asked for at first: C1 and C1E of today's CPUs are left sooner, C6 is not.
const SHALLOW: &str = "20";

/// No latency at all. (`0` would mean that any is welcome.)
const NONE: &str = "n/a";

/// What the file says where nobody asked for anything.
const UNASKED: &str = "0";

/// A CPU that is later than this in the median leaves too little of [`PROMISED`] to interrupts and to the turn that follows.
const LATE: Duration = Duration::from_micros(25);

/// How soon a core has to be awake.
const PROMISED: Duration = Duration::from_micros(50);

/// How long the CPU sleeps before it is seen how late it is: as long as an idle core's longest sleep would have it in its deepest state.
const SLEEP: Duration = Duration::from_millis(5);

/// How often it is looked; odd, for the median.
const LOOKS: usize = 9;

/// What is asked of a CPU, until this is dropped.
#[derive(Debug)]
pub(crate) struct Wakefulness {
    asked: Option<PathBuf>,
}

impl Wakefulness {
    /// Asks that this thread's CPU, to which it is pinned, wakes soon, and says in the log what that came to.
    pub(crate) fn of(cpu: u16) -> Self {
        let path = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us"));
        Self::at(&path, cpu, late)
    }

    fn at(path: &Path, cpu: u16, late: impl Fn() -> Duration) -> Self {
        let unasked = late();
        match ask(path, unasked, &late) {
            Ok(Answer::Leave(why)) => {
                tracing::info!("CPU {cpu} wakes {unasked:.0?} late, {why}");
                Self { asked: None }
            }
            Ok(Answer::Asked { what, now }) => {
                let file = path.display();
                tracing::info!(
                    "CPU {cpu} wakes {now:.0?} late with {what}, {unasked:.0?} without; a choice of your own in {file} stays as it is"
                );
                if now > PROMISED {
                    tracing::warn!(
                        "CPU {cpu} wakes late: its core may take more than 50 µs to answer when it slept; with `idle: polling` it never sleeps"
                    );
                }
                Self { asked: Some(path.to_owned()) }
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!("CPU {cpu} wakes {unasked:.0?} late, and nothing can be asked of it: {path}: {error}");
                Self { asked: None }
            }
        }
    }
}

impl Drop for Wakefulness {
    fn drop(&mut self) {
        if let Some(path) = &self.asked
            && let Err(error) = fs::write(path, UNASKED)
        {
            tracing::warn!("{} keeps what was asked of this CPU: {error}", path.display());
        }
    }
}

/// What came of asking.
enum Answer {
    /// Nothing was asked.
    Leave(&'static str),
    /// This was, and so late it is now.
    Asked { what: &'static str, now: Duration },
}

fn ask(path: &Path, unasked: Duration, late: impl Fn() -> Duration) -> io::Result<Answer> {
    if fs::read_to_string(path)?.trim() != UNASKED {
        return Ok(Answer::Leave("and its resume latency is already somebody else's choice"));
    }
    fs::write(path, SHALLOW)?;
    // It may have been shallow all the time, at this hour: the bound stays.
    let shallow = if unasked > LATE { late() } else { unasked };
    if shallow <= LATE {
        return Ok(Answer::Asked { what: "states that are left within 20 µs", now: shallow });
    }
    fs::write(path, NONE)?;
    Ok(Answer::Asked { what: "no halts at all", now: late() })
}

/// How late this thread's CPU is when a sleep has to end: the median. The thread's timer slack has to be off. Where a hypervisor makes the timers, they are late
/// themselves, later than what another CPU or a device wakes.
fn late() -> Duration {
    let mut late = [Duration::ZERO; LOOKS];
    for late in &mut late {
        let asleep = Instant::now();
        std::thread::sleep(SLEEP);
        *late = asleep.elapsed().saturating_sub(SLEEP);
    }
    late.sort_unstable();
    late[LOOKS / 2]
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Where no file is yet.
    fn a_file() -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        std::env::temp_dir().join(format!("millrace-resume-{}-{count}", std::process::id()))
    }

    /// What the file says while a core runs, and after, on a CPU that is so late with what it says.
    fn asked(before: &str, late: impl Fn(&str) -> u64) -> (String, String) {
        let path = a_file();
        fs::write(&path, before).unwrap();
        let text = || fs::read_to_string(&path).unwrap().trim().to_owned();
        let wakefulness = Wakefulness::at(&path, 1, || Duration::from_micros(late(&text())));
        let during = text();
        drop(wakefulness);
        let after = text();
        fs::remove_file(&path).unwrap();
        (during, after)
    }

    #[test]
    fn a_cpu_is_asked_for_as_little_as_suffices() {
        let of = |before, late: &[(&str, u64)]| {
            let looked = RefCell::new(Vec::new());
            let result = asked(before, |text| {
                looked.borrow_mut().push(text.to_owned());
                late.iter().find(|(asked, _)| *asked == text).unwrap().1
            });
            (result.0, result.1, looked.into_inner())
        };
        let shallow = of("0\n", &[("0", 170), ("20", 5)]);
        assert_eq!(shallow, ("20".to_owned(), "0".to_owned(), vec!["0".to_owned(), "20".to_owned()]));
        assert_eq!(of("0\n", &[("0", 3)]).0, "20", "its deep states may come later");
        assert_eq!(of("0\n", &[("0", 90), ("20", 90), ("n/a", 10)]).0, "n/a");
        assert_eq!(of("0\n", &[("0", 90), ("20", 90), ("n/a", 80)]).0, "n/a");
        for chosen in ["1000\n", "n/a\n"] {
            let kept = chosen.trim().to_owned();
            assert_eq!(asked(chosen, |_| 90), (kept.clone(), kept), "somebody else's choice");
        }
    }

    #[test]
    fn where_nothing_can_be_asked_the_core_starts() {
        let path = a_file();
        drop(Wakefulness::at(&path, 1, late));
        assert!(!path.exists());
    }
}
