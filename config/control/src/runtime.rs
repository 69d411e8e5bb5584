//! Starts control's threads and ends them: the admin endpoint with the watch over the cores, and the access log.

use core::fmt::Write;
use core::time::Duration;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tables::lifecycle::Stage;
use tokio::sync::oneshot;

use crate::admin;
use crate::compile::Compiled;
use crate::names::{Names, thread};
use crate::reload::{self, Command, Configured};
use crate::supervisor::Supervisor;
pub use crate::supervisor::{CoreClock, CoreSeat, DeviceStatistics, Facts, Wake};

/// How often [`Control::drain`] looks.
const LOOK: Duration = Duration::from_millis(20);

/// What cores get to reset their last connections and leave their loop.
const STOP: Duration = Duration::from_secs(3);

/// What is needed to start.
pub struct Launch {
    /// What does not change.
    pub facts: Facts,
    /// The configuration, and what it is compiled with.
    pub configured: Configured,
    /// The first tables, made from it.
    pub compiled: Compiled,
    /// The admin endpoint, from [`admin::bind`].
    pub admin: TcpListener,
}

/// One port, as `status` shows it.
#[derive(Debug, Clone)]
pub struct PortInfo {
    /// The appliance's name for it.
    pub name: String,
    /// The DPDK device as configured.
    pub device: String,
    /// The PMD that drives it.
    pub driver: String,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// Our addresses, with their prefixes.
    pub addresses: Vec<String>,
    /// What the device does for us.
    pub offloads: Vec<String>,
}

impl PortInfo {
    /// The Ethernet address as people write it.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.iter().enumerate().fold(String::new(), |mut text, (position, byte)| {
            let colon = if position == 0 { "" } else { ":" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{colon}{byte:02x}");
            text
        })
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All connections ended by themselves.
    Complete,
    /// Time was up with this many connections open; they were reset.
    TimedOut(u64),
    /// The caller had no more patience, with this many connections open; they were reset.
    Interrupted(u64),
}

/// Running control. Dropping it ends its threads; the cores run on.
pub struct Control {
    supervisor: Arc<Supervisor>,
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    commands: Sender<Command>,
    names: Arc<Names>,
    threads: Vec<JoinHandle<()>>,
}

impl Control {
    /// Starts the admin endpoint and the access log, and returns one seat per core, in order.
    ///
    /// # Errors
    /// The access log cannot be opened, or a thread cannot be started.
    pub fn start(launch: Launch) -> io::Result<(Self, Vec<CoreSeat>)> {
        let names = Arc::clone(launch.configured.names());
        let endpoints = launch.configured.beside("endpoints");
        let (supervisor, seats) = Supervisor::new(launch.facts, launch.compiled, Arc::clone(&names), endpoints);
        supervisor.set_drain_timeout(launch.configured.drain_timeout());
        supervisor.start_access_log()?;
        let address = launch.admin.local_addr()?;
        let (shutdown, ended) = oneshot::channel();
        let (commands, received) = channel();
        let (theirs, sender, configured) = (Arc::clone(&supervisor), commands.clone(), launch.configured);
        let reloads = std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || reload::run(configured, &theirs, &received, &sender))?;
        let access = admin::Access { supervisor: Arc::clone(&supervisor), commands: commands.clone() };
        let admin = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || admin::run(&launch.admin, &access, ended))?;
        let (theirs, known, sender) = (Arc::clone(&supervisor), Arc::clone(&names), commands.clone());
        let asks =
            std::thread::Builder::new().name("dns".into()).spawn(move || thread::run(&known, &theirs, &sender))?;
        let threads = vec![admin, reloads, asks];
        Ok((Self { supervisor, address, shutdown: Some(shutdown), commands, names, threads }, seats))
    }

    /// Where the admin endpoint listens.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.address
    }

    /// Has the files read again. What came of it shows in the log and in `status`.
    pub fn reload(&self) {
        // Where nobody receives, the process is about to end.
        let _ = self.commands.send(Command::Reload(None));
    }

    /// Why no traffic should be sent here; empty once all cores run the newest epoch and all links are up.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        self.supervisor.unready()
    }

    /// A way to give a core a new seat that can be taken into its thread.
    #[must_use]
    pub fn usher(&self) -> Usher {
        Usher(Arc::clone(&self.supervisor))
    }

    /// What running requests get when the process is to end, by the running configuration.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.supervisor.drain_timeout()
    }

    /// Stops accepting, waits until all connections ended, `timeout` passed or `interrupted` says so, and then stops the cores.
    pub fn drain(&self, timeout: Duration, mut interrupted: impl FnMut() -> bool) -> Drained {
        self.supervisor.drain();
        let deadline = Instant::now() + timeout;
        let outcome = loop {
            // A core stops by itself once it has nothing left. The gauge is a little behind, so it is only for the record.
            if self.supervisor.all_stopped() {
                break Drained::Complete;
            }
            let open = self.supervisor.connections();
            if Instant::now() >= deadline {
                break Drained::TimedOut(open);
            }
            if interrupted() {
                break Drained::Interrupted(open);
            }
            std::thread::sleep(LOOK);
        };
        self.stop();
        outcome
    }

    /// Stops the cores without waiting for their connections. Says whether they all left their loop in time.
    pub fn stop(&self) -> bool {
        self.supervisor.advance(Stage::Stopping);
        let deadline = Instant::now() + STOP;
        while !self.supervisor.all_stopped() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            // It has ended already where nobody receives.
            let _ = shutdown.send(());
        }
        let _ = self.commands.send(Command::Stop);
        self.names.stop();
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the panic hook.
            drop(thread.join());
        }
        self.supervisor.close_access_log();
    }
}

/// Gives a core that starts again its seat.
#[derive(Clone)]
pub struct Usher(Arc<Supervisor>);

impl Usher {
    /// A seat with the newest tables, and the counters and lifecycle that the core of this index always had. Gauges start at zero,
    /// and what ended with the old core counts as ended.
    ///
    /// To be called on the core's own thread, after the old core is gone: only one thread may write its counters.
    #[must_use]
    pub fn seat(&self, index: u16) -> Option<CoreSeat> {
        let seat = self.0.reseat(index)?;
        let counters = &seat.counters;
        for scalar in counters.scalars() {
            if scalar.kind == tables::counters::ScalarKind::Gauge {
                scalar.value.set(0);
            }
        }
        counters.connections_closed.set(counters.connections_opened.read());
        counters.requests_finished.set(counters.requests_started.read());
        Some(seat)
    }
}
