//! A virtual machine in the place of Millrace's namespace, with devices and CPUs that this host may not have: made by scripts/lib/machine.sh.

use std::io::Write;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use super::gateway::{Config, Gateway, MILLRACE};
use super::sandbox::{Ns, Sandbox};

/// Its processors are emulated: it boots in about ten seconds where nothing else runs.
const BOOT: Duration = Duration::from_secs(90);

/// What it runs: Millrace, until it is told to end it.
const RUN: &str = "echo {pages} >/proc/sys/vm/nr_hugepages\nmillrace check -f /etc/millrace.yaml\n\
                   millrace run -f /etc/millrace.yaml --state /var/lib/millrace &\npid=$!\n\
                   read -r line\n{after}\nkill -TERM $pid\nwait $pid\necho \"machine: millrace ended with $?\"\n";

/// Where the admin endpoint is, so that the machine's address leads there.
const ADMIN: &str = "10.0.2.15:9901";

/// What a machine has.
#[derive(Debug, Clone, Copy)]
pub struct Hardware {
    /// Queue pairs of the ports' devices.
    pub queues: u16,
    /// Hugepages of 2 MiB.
    pub pages: u16,
    /// Shell commands before Millrace ends.
    pub after: &'static str,
    /// What the kernel is told beside the usual.
    pub boot: &'static str,
}

/// A machine, whose Millrace is the gateway of the sandbox.
#[derive(Debug)]
pub struct Machine<'a> {
    pub gateway: Gateway<'a>,
    console: ChildStdin,
}

impl<'a> Machine<'a> {
    /// Boots one, and waits until its Millrace is ready. `None`, and said so, where there is no QEMU or no kernel.
    pub fn boot(sandbox: &'a Sandbox, hardware: Hardware, config: &Config) -> Option<Self> {
        let missing = ["qemu-system-x86_64", "busybox", "cpio", "modprobe", "strip"]
            .into_iter()
            .find(|tool| sandbox.command(Ns::Millrace, "which").arg(tool).output().is_ok_and(|o| !o.status.success()));
        let kernel = sandbox.try_script("source scripts/lib/machine.sh; machine_kernel");
        if missing.is_some() || !kernel {
            eprintln!("\n*** NOT RUN: a virtual machine needs {} ***\n", missing.unwrap_or("a kernel: scripts/setup"));
            return None;
        }
        let Hardware { queues, pages, after, boot } = hardware;
        let text = config.text().replace("127.0.0.1:9901", ADMIN);
        std::fs::write(sandbox.dir().join("millrace.yaml"), text).expect("the sandbox can be written");
        let run = RUN.replace("{pages}", &pages.to_string()).replace("{after}", after);
        std::fs::write(sandbox.dir().join("run"), run).expect("the sandbox can be written");
        sandbox.run_script(&format!(
            "source scripts/lib/machine.sh; machine_kernel && machine_taps {queues} && \
             machine_root {MILLRACE} $SANDBOX_DIR/millrace.yaml $SANDBOX_DIR/run && \
             MACHINE_BOOT='{boot}' machine_words {queues} >$SANDBOX_DIR/words"
        ));
        let words = std::fs::read_to_string(sandbox.dir().join("words")).expect("the words are there");
        let log = std::fs::File::create(sandbox.dir().join("millrace.log")).expect("the sandbox can be written");
        let mut command = sandbox.command(Ns::Millrace, "qemu-system-x86_64");
        command.args(words.lines()).stdin(Stdio::piped());
        command.stdout(log.try_clone().expect("a file can be cloned")).stderr(log);
        let mut child = command.spawn().expect("QEMU starts");
        sandbox.adopt(child.id());
        let console = child.stdin.take().expect("a pipe");
        Some(Self { gateway: Gateway::await_ready(sandbox, child, BOOT), console })
    }

    /// Has Millrace end by SIGTERM and the machine after it; what was said on the console.
    pub fn end(mut self) -> String {
        self.console.write_all(b"end\n").expect("the machine listens");
        let status = self.gateway.ended(Duration::from_secs(30));
        let log = std::fs::read(self.gateway.sandbox.dir().join("millrace.log")).expect("the console was written down");
        let log = String::from_utf8_lossy(&log).into_owned();
        assert!(status.success() && log.contains("machine: millrace ended with 0"), "{status}: {log}");
        log
    }
}
