//! wrk beside what a test does: it loads the gateway from before that until after it, however long it takes.

use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::sandbox::{Ns, Sandbox};

/// How long it goes on when all has happened: what goes wrong a moment later is seen, too.
const BEYOND: Duration = Duration::from_millis(500);

/// A running wrk, of one thread.
#[derive(Debug)]
pub struct Wrk(Child);

impl Wrk {
    /// Starts it with these arguments, in the client's namespace.
    pub fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut command = sandbox.command(Ns::Client, "wrk");
        // A limit of the test's own, behind this one, counts. It is ended by `finish`; after a test that panicked, by the sandbox.
        command.args(["-t1", "-d600s", "--timeout", "5s"]).args(arguments);
        let wrk = command.stdout(Stdio::piped()).spawn().expect("wrk is installed");
        sandbox.adopt(wrk.id());
        Self(wrk)
    }

    /// Ends it. What it says; panics where a request failed.
    #[track_caller]
    pub fn finish(self) -> String {
        std::thread::sleep(BEYOND);
        let pid = Pid::from_raw(self.0.id().cast_signed()).expect("a process id");
        // As Ctrl-C does: it stops, and says what there was until then.
        kill_process(pid, Signal::INT).expect("wrk runs");
        let output = self.0.wait_with_output().expect("wrk can be waited for");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("requests in"), "{}: {text}", output.status);
        assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
        text
    }
}
