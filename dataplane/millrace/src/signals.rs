//! Signals to this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_default;
use signal_hook::iterator::Signals;
use signal_hook::iterator::backend::Pending;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::failure::Failure;

/// SIGTERM, SIGINT and others. While the process starts, the former two end it as if nobody had asked for them: a device may wait in DPDK for its other
/// side, for ever, and nobody would look at them. Once it has started, they are for whoever asks.
pub(crate) struct Heard {
    signals: Signals,
    starting: Arc<AtomicBool>,
}

impl Heard {
    /// Hears the two, and `others`, which are kept for later at once.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn new(others: &[i32]) -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("signals: {error}"));
        let starting = Arc::new(AtomicBool::new(true));
        let ending = [SIGTERM, SIGINT];
        for signal in ending {
            register_conditional_default(signal, Arc::clone(&starting)).map_err(failed)?;
        }
        let signals = Signals::new(ending.iter().chain(others)).map_err(failed)?;
        Ok(Self { signals, starting })
    }

    /// From now on they are for whoever asks.
    pub(crate) fn started(&self) {
        self.starting.store(false, Ordering::SeqCst);
    }

    /// Those that came since the last look.
    pub(crate) fn pending(&mut self) -> Pending<SignalOnly> {
        self.signals.pending()
    }
}
