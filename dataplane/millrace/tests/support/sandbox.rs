//! The namespaces: made and removed by scripts/lib/topology.sh, which the demo uses too.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Where the nginx backends and those of tests live.
pub const B1: &str = "10.9.2.2";
pub const B2: &str = "10.9.2.3";
/// Millrace's address towards clients.
pub const VIP: &str = "10.9.1.1";

/// One namespace of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ns {
    Client,
    Millrace,
    B1,
    B2,
    /// Behind a router on the client's wire, where a test makes it.
    Far,
}

/// A sandbox that disappears, with every process in it, when it is dropped. Only one exists at a time on a machine: a
/// polling core takes a whole CPU, and two of them on a small machine would make every timing a matter of luck.
#[derive(Debug)]
pub struct Sandbox {
    id: String,
    dir: PathBuf,
    _turn: File,
}

impl Sandbox {
    /// `None` where this process is not root.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let turn = File::create("/run/millrace-e2e.lock").expect("the lock in /run can be made");
        turn.lock().expect("the lock can be taken");
        let output = script(&format!("sandbox_up {} && echo \"$SANDBOX $SANDBOX_DIR\"", std::process::id()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (id, dir) = text.trim().rsplit_once(' ').unwrap_or_else(|| panic!("no sandbox: {output:?}"));
        Some(Self { id: id.to_owned(), dir: dir.into(), _turn: turn })
    }

    /// A directory that goes with the sandbox.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The full name of a namespace, for `ip netns exec`.
    pub fn namespace(&self, ns: Ns) -> String {
        let suffix = match ns {
            Ns::Client => "client",
            Ns::Millrace => "mr",
            Ns::B1 => "b1",
            Ns::B2 => "b2",
            Ns::Far => "far",
        };
        format!("{}-{suffix}", self.id)
    }

    /// Starts nginx in both backend namespaces, on port 8080.
    pub fn start_nginx(&self) {
        self.run_script(&format!("nginx_backend $NS_B1 b1 {B1}; nginx_backend $NS_B2 b2 {B2}"));
        for (ns, address) in [(Ns::B1, B1), (Ns::B2, B2)] {
            super::wait_for("nginx listens", std::time::Duration::from_secs(10), || {
                self.inside(ns, || std::net::TcpStream::connect((address, 8080)).is_ok())
            });
        }
    }

    /// Gives everybody IPv6 addresses beside their IPv4 ones, and starts nginx on those of the backends, too.
    pub fn start_ipv6(&self) {
        self.run_script(
            "sandbox_ipv6; nginx_backend $NS_B1 b1-v6 \"[fd00:9:2::2]\"; nginx_backend $NS_B2 b2-v6 \"[fd00:9:2::3]\"",
        );
        for (ns, address) in [(Ns::B1, "fd00:9:2::2"), (Ns::B2, "fd00:9:2::3")] {
            super::wait_for("nginx listens on IPv6", std::time::Duration::from_secs(10), || {
                self.inside(ns, || std::net::TcpStream::connect((address, 8080)).is_ok())
            });
        }
    }

    /// Has the sandbox end a process when it goes, also when this test is killed.
    pub fn adopt(&self, pid: u32) {
        self.run_script(&format!("sandbox_adopt {pid}"));
    }

    /// Runs functions of topology.sh on this sandbox.
    pub fn run_script(&self, commands: &str) {
        let output = script(&format!("sandbox_load {}; {commands}", self.id));
        assert!(output.status.success(), "{commands}: {output:?}");
    }

    /// The same where it may fail: whether it did not.
    pub fn try_script(&self, commands: &str) -> bool {
        script(&format!("sandbox_load {}; {commands}", self.id)).status.success()
    }

    /// A command in a namespace.
    pub fn command(&self, ns: Ns, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(ns), program]).stdin(Stdio::null());
        command
    }

    /// What a command in a namespace says; panics when it fails.
    pub fn output(&self, ns: Ns, program: &str, arguments: &[&str]) -> String {
        let output = self.command(ns, program).args(arguments).output().expect("ip netns exec runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// The way into a namespace.
    pub fn entrance(&self, ns: Ns) -> Entrance {
        Entrance(Path::new("/run/netns").join(self.namespace(ns)))
    }

    /// Runs `work` on a thread inside a namespace. Sockets made there stay there, whoever uses them later.
    pub fn inside<T: Send>(&self, ns: Ns, work: impl FnOnce() -> T + Send) -> T {
        let entrance = self.entrance(ns);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                entrance.enter();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// The way into a namespace, for threads that stay there.
#[derive(Debug, Clone)]
pub struct Entrance(PathBuf);

impl Entrance {
    /// Moves the calling thread there, for good.
    pub fn enter(&self) {
        let file = File::open(&self.0).expect("the namespace exists");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = script(&format!("sandbox_load {}; sandbox_down", self.id));
    }
}

fn script(commands: &str) -> Output {
    Command::new("bash")
        .arg("-c")
        .arg(format!("set -u; source scripts/lib/common.sh; source scripts/lib/topology.sh; {commands}"))
        .current_dir(REPOSITORY)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("bash runs")
}
