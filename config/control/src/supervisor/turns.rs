//! Whose turn it is, asked of the cores.

use core::time::Duration;
use std::time::Instant;

use tables::inspect::Turn;
use tables::lifecycle::Stage;

use super::{SWAP_LOOK, Supervisor, lock};

/// What cores get to say whose turn it is: they do so with their books, every 10 ms.
const PATIENCE: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Whether there is a core of that index, where one is named.
    ///
    /// # Errors
    /// Which ones there are, in words.
    pub(crate) fn has_core(&self, index: Option<u16>) -> Result<(), String> {
        match (index, self.cores.len()) {
            (Some(index), 1) if index > 0 => Err(format!("there is no core {index}, but core 0 alone")),
            (Some(index), count) if usize::from(index) >= count => {
                Err(format!("there is no core {index}; there are 0 to {}", count - 1))
            }
            _ => Ok(()),
        }
    }

    /// The places of cores in the schedules of a rule, of one of them or of all; of those that answer in time.
    pub(crate) fn turns(&self, rule: u32, core: Option<u16>) -> Vec<(u16, Turn)> {
        let _one_at_a_time = lock(&self.listing);
        let asked = (0u16..).zip(&self.cores).filter(|(index, _)| core.is_none_or(|core| core == *index));
        let asked: Vec<_> = asked.map(|(index, core)| (index, core, core.lifecycle.turns.ask(rule))).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        for (index, core, ticket) in asked {
            loop {
                if let Some(turn) = core.lifecycle.turns.answer(ticket) {
                    answers.push((index, turn));
                    break;
                }
                if Instant::now() >= deadline || core.lifecycle.stage() == Stage::Stopped {
                    break;
                }
                std::thread::sleep(SWAP_LOOK);
            }
        }
        answers
    }
}
