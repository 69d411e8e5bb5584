//! How soon a CPU that idled is awake again.
//!
//! A core that sleeps has to be back within 50 µs of a packet. How deep its CPU sleeps meanwhile is the kernel's to choose, within what the CPU's quality of
//! service asks for (PM QoS: `Documentation/ABI/testing/sysfs-devices-power`, `pm_qos_resume_latency_us`). So a core that may sleep asks for states that it
//! comes out of quickly. Where that does not suffice, which is so on virtual machines, whose halts the hypervisor has to end, it asks for none: the kernel
//! then waits for work without halting, and other threads still have the CPU whenever they want it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

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

/// How long the CPU sleeps before it is called: long enough for its deepest state.
const SLEEP: Duration = Duration::from_millis(5);

/// How often it is looked; odd, for the median.
const LOOKS: usize = 9;

/// What is asked of a CPU, until this is dropped.
#[derive(Debug)]
pub(crate) struct Wakefulness(Option<Files>);

/// Where it is asked.
#[derive(Debug)]
struct Files {
    /// The kernel's.
    asked: PathBuf,
    /// Is there while what is asked is ours, so that a start after one that was killed knows it.
    ours: PathBuf,
}

impl Wakefulness {
    /// Asks that this thread's CPU, to which it is pinned, wakes soon, and says in the log what that came to.
    pub(crate) fn of(cpu: u16) -> Self {
        let files = Files {
            asked: PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us")),
            ours: PathBuf::from(format!("/run/millrace-resume-cpu{cpu}")),
        };
        Self::at(files, cpu, || late(cpu))
    }

    fn at(files: Files, cpu: u16, late: impl Fn() -> Duration) -> Self {
        let file = files.asked.display();
        match files.ask(&late) {
            Ok(Answer::Theirs(now)) => {
                tracing::info!("CPU {cpu} wakes {now:.0?} late, with what somebody else wrote to {file}");
                Self(None)
            }
            Ok(Answer::Ours { what, now, unasked }) => {
                tracing::info!(
                    "CPU {cpu} wakes {now:.0?} late with {what}, {unasked:.0?} without; what you write to {file} stays as it is"
                );
                if now > PROMISED {
                    tracing::warn!(
                        "CPU {cpu} wakes late: its core takes more than 50 µs to answer when it slept; with `idle: polling` it never sleeps"
                    );
                }
                Self(Some(files))
            }
            Err(error) => {
                tracing::warn!("CPU {cpu} may wake late, nothing can be asked of it: {file}: {error}");
                Self(None)
            }
        }
    }
}

impl Drop for Wakefulness {
    fn drop(&mut self) {
        if let Some(files) = &self.0
            && let Err(error) = files.write(UNASKED)
        {
            tracing::warn!("{} keeps what was asked of this CPU: {error}", files.asked.display());
        }
    }
}

/// What came of asking.
enum Answer {
    /// Somebody else had asked: so late it is.
    Theirs(Duration),
    /// This was asked, and so late it is now, and was before.
    Ours { what: &'static str, now: Duration, unasked: Duration },
}

impl Files {
    fn write(&self, asked: &str) -> io::Result<()> {
        if asked == UNASKED {
            fs::write(&self.asked, asked)?;
            return fs::remove_file(&self.ours);
        }
        fs::write(&self.ours, asked)?;
        fs::write(&self.asked, asked)
    }

    fn ask(&self, late: impl Fn() -> Duration) -> io::Result<Answer> {
        if fs::read_to_string(&self.asked)?.trim() != UNASKED {
            if !self.ours.exists() {
                return Ok(Answer::Theirs(late()));
            }
            self.write(UNASKED)?;
        }
        let unasked = late();
        self.write(SHALLOW)?;
        // It may have been shallow all the time, at this hour: the bound stays.
        let shallow = if unasked > LATE { late() } else { unasked };
        if shallow > LATE {
            self.write(NONE)?;
            let now = late();
            if now < shallow * 3 / 4 {
                return Ok(Answer::Ours { what: "no halts at all", now, unasked });
            }
            // It is not the halts that it is late for.
            self.write(SHALLOW)?;
        }
        Ok(Answer::Ours { what: "states that are left within 20 µs", now: shallow, unasked })
    }
}

/// How late this thread is when another CPU has something for it after a while: the median. Timers would not tell, because a hypervisor's are late themselves.
fn late(cpu: u16) -> Duration {
    let mut late = [Duration::ZERO; LOOKS];
    let (called, sleeper, start) = (AtomicU64::new(0), std::thread::current(), Instant::now());
    let nanoseconds = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let answered = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut others = CpuSet::new();
            (0..CpuSet::MAX_CPU).filter(|&other| other != usize::from(cpu)).for_each(|other| others.set(other));
            // Where there is no other CPU, this one calls itself, which shows nothing and harms nobody.
            let _ = sched_setaffinity(None, &others);
            for _ in 0..LOOKS {
                std::thread::sleep(SLEEP);
                called.store(nanoseconds(), Ordering::Release);
                sleeper.unpark();
                answered.wait();
            }
        });
        for late in &mut late {
            let mut at = 0;
            while at == 0 {
                std::thread::park();
                at = called.swap(0, Ordering::Acquire);
            }
            *late = Duration::from_nanos(nanoseconds().saturating_sub(at));
            answered.wait();
        }
    });
    late.sort_unstable();
    late[LOOKS / 2]
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// In a directory of their own, which is removed in the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("millrace-resume-{}-{count}", std::process::id()));
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        fn files(&self) -> Files {
            Files { asked: self.0.join("asked"), ours: self.0.join("ours") }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// What is asked while a core runs, and after, of a CPU that is so late with what is asked of it; and when it was looked.
    fn asked(before: &str, left_behind: bool, late: &[(&str, u64)]) -> (String, String, String) {
        let scratch = Scratch::new();
        let Files { asked, ours } = scratch.files();
        fs::write(&asked, before).unwrap();
        if left_behind {
            fs::write(&ours, before).unwrap();
        }
        let text = || fs::read_to_string(&asked).unwrap().trim().to_owned();
        let looked = RefCell::new(String::new());
        let wakefulness = Wakefulness::at(scratch.files(), 1, || {
            let now = text();
            looked.borrow_mut().push_str(&format!("{now} "));
            Duration::from_micros(late.iter().find(|(asked, _)| *asked == now).unwrap().1)
        });
        let during = text();
        drop(wakefulness);
        assert!(!ours.exists());
        (during, text(), looked.into_inner())
    }

    #[test]
    fn a_cpu_is_asked_for_as_little_as_suffices() {
        let of = |before, late| asked(before, false, late);
        let seen = |during: &str, after: &str, looked: &str| (during.to_owned(), after.to_owned(), looked.to_owned());
        assert_eq!(of("0\n", &[("0", 170), ("20", 5)]), seen("20", "0", "0 20 "));
        assert_eq!(of("0\n", &[("0", 3)]), seen("20", "0", "0 "), "its deep states may come later");
        assert_eq!(of("0\n", &[("0", 90), ("20", 90), ("n/a", 10)]), seen("n/a", "0", "0 20 n/a "));
        assert_eq!(of("0\n", &[("0", 90), ("20", 90), ("n/a", 80)]).0, "20", "halts are not why it is late");
        assert_eq!(of("1000\n", &[("1000", 90)]), seen("1000", "1000", "1000 "), "somebody else's choice");
        assert_eq!(of("n/a\n", &[("n/a", 9)]), seen("n/a", "n/a", "n/a "), "somebody else's choice");
        let killed = asked("n/a\n", true, &[("0", 90), ("20", 90), ("n/a", 10)]);
        assert_eq!(killed, seen("n/a", "0", "0 20 n/a "), "a Millrace that was killed had asked");
    }

    #[test]
    fn where_nothing_can_be_asked_the_core_starts() {
        let scratch = Scratch::new();
        drop(Wakefulness::at(scratch.files(), 0, || late(0)));
        assert!(!scratch.files().asked.exists());
    }

    #[test]
    fn a_thread_that_is_called_says_how_late_it_was() {
        assert!((1..1_000_000).contains(&late(0).as_micros()));
    }
}
