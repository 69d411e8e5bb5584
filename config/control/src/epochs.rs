//! Which core runs which epoch, and how it came to: receipts of swaps, put together from what cores wrote about them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tables::swap::Swap;

/// Receipts that are kept.
const RECEIPTS: usize = 16;

/// What `get epochs` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Epochs {
    /// The newest epoch.
    pub epoch: u64,
    /// What each core runs.
    pub cores: Vec<CoreEpoch>,
    /// The last swaps, the newest first.
    pub swaps: Vec<SwapReceipt>,
}

/// What one core runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoreEpoch {
    /// Its number among the appliance's cores, from 0.
    pub index: u16,
    /// The CPU it is pinned to.
    pub cpu: u16,
    /// The epoch it runs.
    pub epoch: u64,
    /// Older ones that it holds back for requests which began under them and have no response yet.
    pub held: u64,
}

/// How one publication reached the cores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SwapReceipt {
    /// The epoch that was published.
    pub epoch: u64,
    /// When, in seconds since 1970-01-01T00:00:00Z.
    pub published: u64,
    /// What reading and checking took before that, in microseconds.
    pub read_microseconds: u64,
    /// What compiling took, in microseconds, up to the moment at which the tables were there for the cores.
    pub compile_microseconds: u64,
    /// Whether all cores run it, or a newer one.
    pub complete: bool,
    /// Packets lost for want of room, by cores and devices, between the publication and the last core's switch.
    pub lost: u64,
    /// Each core's own.
    pub cores: Vec<CoreSwap>,
}

/// How one core switched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoreSwap {
    /// Its number among the appliance's cores, from 0.
    pub index: u16,
    /// The epoch before; it may have passed one over. `None`, as all that follows, where the core has not switched to this one.
    pub from: Option<u64>,
    /// From the end of compiling to the switch, in microseconds.
    pub microseconds: Option<f64>,
    /// The number of the core's last request under the old tables.
    pub last_request: Option<u64>,
    /// Requests that were running then. They end under the old tables.
    pub running: Option<u64>,
    /// The number of its first request under the new ones; `None` before there is one.
    pub first_request: Option<u64>,
    /// From the switch to that request, in microseconds.
    pub first_request_microseconds: Option<f64>,
}

/// The receipts so far.
#[derive(Debug, Default)]
pub(crate) struct Receipts(VecDeque<Pending>);

#[derive(Debug)]
struct Pending {
    receipt: SwapReceipt,
    /// By the cores' clock.
    published: u64,
    lost_before: u64,
}

impl Receipts {
    /// Begins a receipt.
    pub(crate) fn begin(&mut self, receipt: SwapReceipt, published: u64, lost_before: u64) {
        self.0.truncate(RECEIPTS - 1);
        self.0.push_front(Pending { receipt, published, lost_before });
    }

    /// Takes over what cores have written meanwhile. `acknowledged` are their epochs, `read` what one wrote about its swap to an epoch.
    pub(crate) fn update(&mut self, acknowledged: &[u64], lost: u64, read: impl Fn(usize, u64) -> Option<Swap>) {
        for pending in &mut self.0 {
            let (receipt, published) = (&mut pending.receipt, pending.published);
            for (index, core) in receipt.cores.iter_mut().enumerate().filter(|(_, core)| core.first_request.is_none()) {
                if let Some(swap) = read(index, receipt.epoch) {
                    *core = core_swap(core.index, &swap, published);
                }
            }
            if !receipt.complete {
                receipt.complete = acknowledged.iter().all(|&epoch| epoch >= receipt.epoch);
                receipt.lost = lost.saturating_sub(pending.lost_before);
            }
        }
    }

    pub(crate) fn of(&self, epoch: u64) -> Option<SwapReceipt> {
        self.0.iter().map(|pending| &pending.receipt).find(|receipt| receipt.epoch == epoch).cloned()
    }

    pub(crate) fn all(&self) -> Vec<SwapReceipt> {
        self.0.iter().map(|pending| pending.receipt.clone()).collect()
    }
}

impl CoreSwap {
    pub(crate) fn pending(index: u16) -> Self {
        Self {
            index,
            from: None,
            microseconds: None,
            last_request: None,
            running: None,
            first_request: None,
            first_request_microseconds: None,
        }
    }
}

fn core_swap(index: u16, swap: &Swap, published: u64) -> CoreSwap {
    let microseconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e3;
    let served = swap.first_at > 0;
    CoreSwap {
        index,
        from: Some(swap.from),
        microseconds: Some(microseconds(published, swap.at)),
        last_request: Some(swap.requests),
        running: Some(swap.running),
        first_request: served.then_some(swap.requests + 1),
        first_request_microseconds: served.then(|| microseconds(swap.at, swap.first_at)),
    }
}

impl SwapReceipt {
    /// What compiling took, in whole milliseconds.
    #[must_use]
    pub fn compile_milliseconds(&self) -> u64 {
        self.compile_microseconds / 1000
    }

    /// In a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        if !self.complete {
            return "not on all cores yet".to_owned();
        }
        let slowest = self.cores.iter().filter_map(|core| core.microseconds).fold(0.0, f64::max);
        let running: u64 = self.cores.iter().filter_map(|core| core.running).sum();
        format!("on all cores after {slowest:.0} µs, {running} requests running, {} packets lost", self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_grows_with_what_cores_write() {
        let mut receipts = Receipts::default();
        let begin = |epoch| SwapReceipt {
            epoch,
            published: 1,
            read_microseconds: 1,
            compile_microseconds: 2,
            complete: false,
            lost: 0,
            cores: vec![CoreSwap::pending(0), CoreSwap::pending(1)],
        };
        receipts.begin(begin(2), 1_000_000, 5);
        let swap = Swap { from: 1, to: 2, at: 1_004_000, requests: 9, running: 3, first_at: 0 };
        receipts.update(&[2, 1], 5, |core, _| (core == 0).then_some(swap));
        let receipt = receipts.of(2).unwrap();
        assert!(!receipt.complete);
        assert_eq!((receipt.cores[0].microseconds, receipt.cores[0].last_request), (Some(4.0), Some(9)));
        assert_eq!((receipt.cores[0].first_request, receipt.cores[1].from), (None, None));
        let served = Swap { first_at: 1_009_000, ..swap };
        receipts.update(&[2, 3], 7, |core, _| (core == 0).then_some(served));
        let receipt = receipts.of(2).unwrap();
        assert_eq!((receipt.complete, receipt.lost), (true, 2));
        assert_eq!(receipt.cores[0].first_request, Some(10));
        assert_eq!(receipt.cores[0].first_request_microseconds, Some(5.0));
        // What is lost later has nothing to do with it.
        receipts.update(&[2, 3], 70, |_, _| None);
        assert_eq!(receipts.of(2).unwrap().lost, 2);
        for epoch in 3..100 {
            receipts.begin(begin(epoch), 0, 0);
        }
        assert_eq!((receipts.all().len(), receipts.all()[0].epoch, receipts.of(2)), (RECEIPTS, 99, None));
    }
}
