//! `millrace reload`, `drain` and `get epochs`: what changes a running Millrace, and how that came about.

use core::fmt::Write;
use core::time::Duration;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use control::epochs::{Epochs, SwapReceipt};
use control::reload::{Answer, Changes, Origin, Outcome};
use control::status::ConfigurationStatus;

use crate::cli::Output;
use crate::failure::Failure;
use crate::status::{ask, say, show, strange};
use crate::validate::Table;

/// For an answer to what may take long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Resources listed of each kind of change at most.
const LISTED: usize = 20;

/// Has the files read again. Where they are refused, that has been said, and the exit code is 2.
pub(crate) fn reload(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    let (status, body) = ask(admin, "POST", "/reload", PATIENCE)?;
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
        let text = String::from_utf8_lossy(&body);
        strange(admin, &format!("status {status}, {error}: {}", text.trim_end()))
    })?;
    say(admin, output, &body, render_answer)?;
    if answer.outcome == Outcome::Refused { Err(Failure::Reported(2)) } else { Ok(()) }
}

/// Has it end in order.
pub(crate) fn drain(admin: SocketAddr) -> Result<(), Failure> {
    match ask(admin, "POST", "/drain", PATIENCE)? {
        (200, _) => {
            crate::say("draining\n");
            Ok(())
        }
        (status, _) => Err(strange(admin, &format!("status {status}"))),
    }
}

/// Shows which core runs which epoch.
pub(crate) fn epochs(admin: SocketAddr, output: Output) -> Result<(), Failure> {
    show(admin, "/epochs", output, render_epochs)
}

/// Where the configuration comes from, and what is wrong with a later one.
pub(crate) fn configuration(status: &ConfigurationStatus, epoch: u64) -> String {
    let origin = match status.origin {
        Origin::Files => status.paths.join(", "),
        Origin::Posted => "posted to the admin endpoint; the files are taken when they change".to_owned(),
        Origin::LastGood => "THE LAST GOOD ONE, because the files are bad".to_owned(),
    };
    let mut text = format!("configuration: {origin}, accepted {} ago\n", ago(status.accepted));
    for remark in status.remarks(epoch) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "  {remark}");
    }
    if let Some(refused) = &status.refused {
        let _ = writeln!(text, "  refused {} ago; `millrace validate -f` shows it line by line", ago(refused.at));
    }
    text.push('\n');
    text
}

fn render_answer(answer: &Answer) -> String {
    let mut text = String::new();
    let epoch = answer.epoch;
    match answer.outcome {
        Outcome::Refused => {
            for problem in &answer.errors {
                let _ = writeln!(text, "{}", problem.text);
            }
            let count = answer.errors.len();
            let plural = if count == 1 { "" } else { "s" };
            let _ = writeln!(text, "{count} error{plural}: refused, epoch {epoch} runs on");
        }
        Outcome::Unchanged => {
            let _ = writeln!(text, "unchanged: epoch {epoch} runs on");
        }
        Outcome::Valid | Outcome::Accepted => text += &changes(&answer.changes),
    }
    if let Some(swap) = &answer.swap {
        let _ = writeln!(text, "epoch {epoch}: {}", swap.summary());
    }
    text
}

fn changes(changes: &Changes) -> String {
    let mut text = String::new();
    let mut list = |sign: char, resources: Vec<String>| {
        for resource in resources.iter().take(LISTED) {
            let _ = writeln!(text, "{sign} {resource}");
        }
        if resources.len() > LISTED {
            let _ = writeln!(text, "{sign} and {} more", resources.len() - LISTED);
        }
    };
    list('+', changes.added.clone());
    list('~', changes.changed.iter().map(|c| format!("{}: {}", c.resource, c.fields.join(", "))).collect());
    list('-', changes.removed.clone());
    text
}

fn render_epochs(epochs: &Epochs) -> String {
    let mut cores = Table::new(&["CORE", "CPU", "EPOCH", "HELD"]);
    for core in &epochs.cores {
        cores.row([core.index.to_string(), core.cpu.to_string(), core.epoch.to_string(), core.held.to_string()]);
    }
    let mut swaps = Table::new(&["EPOCH", "AGE", "CORE", "FROM", "AFTER", "LAST-OLD", "RUNNING", "FIRST-NEW", "LOST"]);
    for swap in &epochs.swaps {
        rows(&mut swaps, swap);
    }
    format!("epoch {}\n\n{}\n{}", epochs.epoch, cores.render(), swaps.render())
}

fn rows(table: &mut Table<9>, swap: &SwapReceipt) {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for core in &swap.cores {
        let first = core.first_request.map(|number| {
            let after = core.first_request_microseconds.unwrap_or_default();
            format!("{number} (+{})", microseconds(after))
        });
        table.row([
            swap.epoch.to_string(),
            ago(swap.published),
            core.index.to_string(),
            or_dash(core.from.map(|epoch| epoch.to_string())),
            or_dash(core.microseconds.map(microseconds)),
            or_dash(core.last_request.map(|number| number.to_string())),
            or_dash(core.running.map(|running| running.to_string())),
            or_dash(first),
            if swap.complete { swap.lost.to_string() } else { "pending".to_owned() },
        ]);
    }
}

fn microseconds(microseconds: f64) -> String {
    if microseconds < 10_000.0 { format!("{microseconds:.0} µs") } else { format!("{:.0} ms", microseconds / 1e3) }
}

fn ago(then: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    crate::status::duration(now.saturating_sub(then))
}
