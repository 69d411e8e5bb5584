//! What a core tells when control asks: its connections, and whose turn it is.
//!
//! Control writes a ticket; the core notices it when it does its books, walks its slots a part a turn, and puts a row for each connection into
//! a bounded queue. It waits while the queue is full, and starts over when the ticket changes, so that somebody who stops reading costs it nothing.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::net::SocketAddr;

use crossbeam_queue::ArrayQueue;

use crate::snapshot::Epoch;

/// Rows that wait to be read.
const ROWS: usize = 1024;

/// One core's end, and control's.
pub struct Inspection {
    asked: AtomicU64,
    done: AtomicU64,
    rows: ArrayQueue<ConnectionRow>,
}

/// One connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionRow {
    /// Of the question that it answers.
    pub ticket: u64,
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// RFC 9293's name of its state.
    pub state: &'static str,
    /// `client`, `upstream`, `mirror` or `check`; `closing` where only TCP has still to do with it.
    pub role: &'static str,
    /// What it is doing.
    pub doing: &'static str,
    /// The other leg: a client's endpoint, or an upstream connection's client.
    pub other: Option<SocketAddr>,
    /// Nanoseconds since it was opened; `None` where nobody noted it.
    pub age: Option<u64>,
    /// Nanoseconds since the request that it is at began.
    pub request_age: Option<u64>,
    /// Bytes received and not read yet.
    pub unread: u32,
    /// Bytes to be sent, or sent and not acknowledged.
    pub unacknowledged: u32,
}

impl Default for Inspection {
    fn default() -> Self {
        Self { asked: AtomicU64::new(0), done: AtomicU64::new(0), rows: ArrayQueue::new(ROWS) }
    }
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection").field("asked", &self.asked).field("done", &self.done).finish_non_exhaustive()
    }
}

impl Inspection {
    /// Asks for all connections; rows with the ticket that it returns are the answer. Answers to earlier questions are thrown away.
    pub fn ask(&self) -> u64 {
        while self.rows.pop().is_some() {}
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The next row; `None` where there is none yet, or where [`Self::is_answered`].
    pub fn next(&self, ticket: u64) -> Option<ConnectionRow> {
        // As many as there can be of earlier questions.
        (0..=ROWS).map_while(|_| self.rows.pop()).find(|row| row.ticket == ticket)
    }

    /// Whether all rows of this question, or of a later one, have been put in.
    #[must_use]
    pub fn is_answered(&self, ticket: u64) -> bool {
        self.done.load(Ordering::Acquire) >= ticket
    }

    /// For the core: the question that waits for an answer.
    #[must_use]
    pub fn asked(&self) -> Option<u64> {
        let asked = self.asked.load(Ordering::Acquire);
        (asked > self.done.load(Ordering::Relaxed)).then_some(asked)
    }

    /// For the core: whether a row can be put in.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.rows.is_full()
    }

    /// For the core: a row, if there is room.
    pub fn put(&self, row: ConnectionRow) {
        // The core alone puts rows in, and asks for room first.
        let _ = self.rows.push(row);
    }

    /// For the core: all rows of this question are in.
    pub fn answer(&self, ticket: u64) {
        self.done.store(ticket, Ordering::Release);
    }
}

/// Targets of a rule whose places are told at most: the Gateway API allows for no more.
pub const PLACES: usize = 16;

/// Answers that wait to be read.
const ANSWERS: usize = 4;

/// One core's end, and control's, of the question whose turn it is.
pub struct Turns {
    tickets: AtomicU32,
    /// A ticket in the upper half, and a rule; 0 where nothing is asked.
    asked: AtomicU64,
    answers: ArrayQueue<Turn>,
}

/// A core's places in the schedules of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Of the question that it answers.
    pub ticket: u32,
    /// The tables that are meant.
    pub epoch: Epoch,
    /// In the rule's own schedule.
    pub rule: u32,
    /// In those of its first targets, by their positions.
    pub targets: [u32; PLACES],
}

impl Default for Turns {
    fn default() -> Self {
        Self { tickets: AtomicU32::new(0), asked: AtomicU64::new(0), answers: ArrayQueue::new(ANSWERS) }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Turns {
    /// Asks about the rule at this position; the answer has the ticket that it returns.
    pub fn ask(&self, rule: u32) -> u32 {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        self.asked.store(u64::from(ticket) << 32 | u64::from(rule), Ordering::Release);
        ticket
    }

    /// The answer; `None` where there is none yet.
    pub fn answer(&self, ticket: u32) -> Option<Turn> {
        (0..=ANSWERS).map_while(|_| self.answers.pop()).find(|turn| turn.ticket == ticket)
    }

    /// For the core: the ticket and the rule that somebody asks about. It is asked once.
    #[must_use]
    pub fn asked(&self) -> Option<(u32, u32)> {
        if self.asked.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let asked = self.asked.swap(0, Ordering::Acquire);
        // Each half fits.
        Some(((asked >> 32) as u32, asked as u32))
    }

    /// For the core: the answer. Where nobody reads, the oldest is lost.
    pub fn tell(&self, turn: Turn) {
        let _ = self.answers.force_push(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_about_turns_gets_its_own_answer() {
        let turns = Turns::default();
        assert_eq!(turns.asked(), None);
        let turn = |ticket| Turn { ticket, epoch: 1, rule: 7, targets: [0; PLACES] };
        let first = turns.ask(3);
        assert_eq!((turns.asked(), turns.asked()), (Some((first, 3)), None));
        turns.tell(turn(first));
        let second = turns.ask(4);
        assert_eq!(turns.answer(second), None);
        for ticket in [first, first, first, first, second] {
            turns.tell(turn(ticket));
        }
        assert_eq!(turns.answer(second), Some(turn(second)));
    }

    fn row(ticket: u64, port: u16) -> ConnectionRow {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        ConnectionRow {
            ticket,
            local: address,
            remote: address,
            state: "established",
            role: "client",
            doing: "idle",
            other: None,
            age: None,
            request_age: None,
            unread: 0,
            unacknowledged: 0,
        }
    }

    #[test]
    fn a_question_gets_its_own_rows_and_no_others() {
        let inspection = Inspection::default();
        assert_eq!(inspection.asked(), None);
        let first = inspection.ask();
        assert_eq!(inspection.asked(), Some(first));
        inspection.put(row(first, 1));
        let second = inspection.ask();
        // The core had not noticed yet.
        inspection.put(row(first, 2));
        inspection.put(row(second, 3));
        assert_eq!(inspection.next(second).map(|r| r.remote.port()), Some(3));
        assert!(inspection.next(second).is_none() && !inspection.is_answered(second));
        inspection.answer(second);
        assert!(inspection.is_answered(second) && inspection.asked().is_none());
        while inspection.has_room() {
            inspection.put(row(second, 4));
        }
        assert_eq!(core::iter::from_fn(|| inspection.next(second)).count(), ROWS);
    }
}
