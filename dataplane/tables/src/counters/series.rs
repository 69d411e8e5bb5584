//! What cores count of routes: for each request, one line of memory in an array of such lines.
//!
//! Ten thousand routes are counted in turn, and what a request counts to is in no cache. So what nearly every request adds to lies in one line, and the
//! lines of many series beside each other: fewer pages have to be known to the CPU. The rest is elsewhere.

use core::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;

use hashbrown::HashMap;

use super::{Counter, LATENCY_BOUNDS_US, STATUS_SLOTS, status_slot};

/// Identifies a series while there is one. When it is gone for long, another one may get its id: see [`crate::Snapshot::series_since`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(pub u32);

/// Requests of one (listener, route, backend), one block a core.
#[derive(Debug)]
pub struct Series {
    /// `namespace/gateway/listener`.
    pub listener: Arc<str>,
    /// `namespace/route`, or empty where no route matched.
    pub route: Arc<str>,
    /// `namespace/backend`, or empty where none was chosen.
    pub backend: Arc<str>,
    /// One block per core, by the core's index.
    pub cores: Box<[SeriesCore]>,
}

impl Series {
    /// The lines that its first core's is among, and its number there.
    pub(crate) fn place(&self) -> Option<(&Arc<[SeriesLine]>, usize)> {
        self.cores.first().map(|core| (&core.lines, core.at))
    }

    /// A series at zero for `cores` cores, with lines of its own.
    #[must_use]
    pub fn new(listener: Arc<str>, route: Arc<str>, backend: Arc<str>, cores: usize) -> Self {
        SeriesLines::new(cores).series(listener, route, backend)
    }
}

/// Lines for series that are made one after the other.
#[derive(Debug)]
pub struct SeriesLines {
    cores: usize,
    lines: Arc<[SeriesLine]>,
    /// How many of each core's lines are taken.
    taken: usize,
}

/// Lines of each core that lie together: a page, so that a series that is left of many holds no more.
pub(crate) const TOGETHER: usize = 64;

impl SeriesLines {
    /// Lines for series of `cores` cores.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self { cores, lines: Arc::default(), taken: TOGETHER }
    }

    /// A series at zero.
    #[must_use]
    pub fn series(&mut self, listener: Arc<str>, route: Arc<str>, backend: Arc<str>) -> Series {
        if self.taken == TOGETHER {
            self.lines = (0..TOGETHER * self.cores).map(|_| SeriesLine::default()).collect();
            self.taken = 0;
        }
        let first = self.taken;
        self.taken += 1;
        let core = |core| SeriesCore {
            lines: Arc::clone(&self.lines),
            at: core * TOGETHER + first,
            by_status: core::array::from_fn(|_| Counter::default()),
            latency: core::array::from_fn(|_| Counter::default()),
        };
        Series { listener, route, backend, cores: (0..self.cores).map(core).collect() }
    }
}

/// What a request that ends with 200 adds to, of one series and core.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct SeriesLine {
    latency_sum_ns: Counter,
    request_bytes: Counter,
    response_bytes: Counter,
    /// Finished requests of the first status slot.
    ok: Counter,
    /// The lowest bits of how many requests each bucket of latencies has.
    latency_bits: [AtomicU8; BUCKETS],
}

/// Requests of one series on one core.
#[derive(Debug)]
pub struct SeriesCore {
    lines: Arc<[SeriesLine]>,
    at: usize,
    /// Finished requests by status slot, but for the first.
    by_status: [Counter; STATUS_SLOTS],
    /// Finished requests by latency, as many as there were [`BEHIND`] of them ago at most.
    latency: [Counter; BUCKETS],
}

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// The response's status; 0 means that none was sent.
    pub status: u16,
    /// From its first byte to its end, in nanoseconds.
    pub latency_ns: u64,
    /// Bytes of its head and body received from the client.
    pub request_bytes: u64,
    /// Bytes of its response, head and body, sent to the client.
    pub response_bytes: u64,
}

/// Where series have their lines, by their positions in a list.
#[derive(Debug)]
pub(crate) struct Places {
    arrays: Box<[Arc<[SeriesLine]>]>,
    /// Of each series the array, and below [`TOGETHER`] the line.
    places: Box<[u32]>,
}

impl Places {
    /// Those of these series.
    pub(crate) fn of(series: &[Arc<Series>]) -> Self {
        let (mut arrays, mut known) = (Vec::new(), HashMap::new());
        let mut place = |series: &Arc<Series>| {
            let Some((lines, at)) = series.place() else { return u32::MAX };
            let array = *known.entry(Arc::as_ptr(lines).addr()).or_insert_with(|| {
                arrays.push(Arc::clone(lines));
                arrays.len() - 1
            });
            // A line has 64 bytes: memory ends long before 32 bits do.
            (array * TOGETHER + at) as u32
        };
        let places = series.iter().map(&mut place).collect();
        Self { arrays: arrays.into(), places }
    }

    /// The line of `core` for the series of this position.
    #[inline]
    pub(crate) fn line(&self, series: usize, core: u16) -> Option<&SeriesLine> {
        let place = *self.places.get(series)? as usize;
        self.arrays.get(place / TOGETHER)?.get(usize::from(core) * TOGETHER + place % TOGETHER)
    }
}

/// Buckets of latencies.
const BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// So many requests of a bucket are counted in its lowest bits alone.
const BEHIND: u8 = 128;

/// What a request adds to beside its line: a status slot, and a bucket whose lowest bits have come round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside {
    slot: Option<usize>,
    bucket: Option<usize>,
}

impl SeriesLine {
    /// Counts one finished request, but for what it returns.
    #[inline]
    #[must_use]
    pub(crate) fn finished(&self, request: &Finished) -> Option<Beside> {
        let Finished { status, latency_ns, request_bytes, response_bytes } = *request;
        let slot = status_slot(status);
        if slot == 0 {
            self.ok.add(1);
        }
        let bucket = LATENCY_BOUNDS_US.partition_point(|&bound| bound * 1_000 < latency_ns);
        let round = self.latency_bits.get(bucket).is_some_and(|bits| {
            let count = bits.load(Ordering::Relaxed).wrapping_add(1);
            // Before the rest of the count, whoever reads it.
            bits.store(count, Ordering::Release);
            count.is_multiple_of(BEHIND)
        });
        self.latency_sum_ns.add(latency_ns);
        self.request_bytes.add(request_bytes);
        self.response_bytes.add(response_bytes);
        (slot > 0 || round).then_some(Beside { slot: (slot > 0).then_some(slot), bucket: round.then_some(bucket) })
    }
}

impl SeriesCore {
    /// There is always one.
    #[inline]
    fn line(&self) -> Option<&SeriesLine> {
        self.lines.get(self.at)
    }

    fn of_line(&self, read: fn(&SeriesLine) -> &Counter) -> u64 {
        self.line().map_or(0, |line| read(line).read())
    }

    /// Counts one finished request. `status` 0 means that no response was sent.
    #[inline]
    pub fn finished(&self, status: u16, latency_ns: u64, request_bytes: u64, response_bytes: u64) {
        let line = self.line();
        let request = Finished { status, latency_ns, request_bytes, response_bytes };
        let beside = line.and_then(|line| line.finished(&request));
        if let Some(beside) = beside {
            self.beside(beside);
        }
    }

    #[cold]
    pub(crate) fn beside(&self, beside: Beside) {
        if let Some(counter) = beside.slot.and_then(|slot| self.by_status.get(slot)) {
            counter.add(1);
        }
        if let Some(counter) = beside.bucket.and_then(|bucket| self.latency.get(bucket)) {
            counter.0.store(counter.read() + u64::from(BEHIND), Ordering::Release);
        }
    }

    /// Sum of the latencies, in nanoseconds.
    #[must_use]
    pub fn latency_sum_ns(&self) -> u64 {
        self.of_line(|line| &line.latency_sum_ns)
    }

    /// Bytes of request heads and bodies received from clients.
    #[must_use]
    pub fn request_bytes(&self) -> u64 {
        self.of_line(|line| &line.request_bytes)
    }

    /// Bytes of response heads and bodies sent to clients.
    #[must_use]
    pub fn response_bytes(&self) -> u64 {
        self.of_line(|line| &line.response_bytes)
    }

    /// Finished requests by status slot, see [`status_slot`].
    #[must_use]
    pub fn by_status(&self) -> [u64; STATUS_SLOTS] {
        let mut counts = self.by_status.each_ref().map(Counter::read);
        let [ok, ..] = &mut counts;
        *ok = self.of_line(|line| &line.ok);
        counts
    }

    /// Finished requests by latency: bucket `i` holds those at most `LATENCY_BOUNDS_US[i]`, not cumulative.
    #[must_use]
    pub fn latency(&self) -> [u64; BUCKETS] {
        let mut counts = [0; BUCKETS];
        let bits = self.line().into_iter().flat_map(|line| &line.latency_bits);
        for ((count, whole), bits) in counts.iter_mut().zip(&self.latency).zip(bits) {
            *count = exact(whole, bits);
        }
        counts
    }
}

/// A count of which one number has the lowest bits, and the other all, and is behind by [`BEHIND`] at most: the owning core writes the former first.
fn exact(whole: &Counter, bits: &AtomicU8) -> u64 {
    let mut before = whole.0.load(Ordering::Acquire);
    loop {
        let lowest = bits.load(Ordering::Acquire);
        let after = whole.0.load(Ordering::Relaxed);
        if after == before {
            // What is behind by less than 256 has one value with these bits.
            return after + u64::from(lowest.wrapping_sub(after as u8));
        }
        before = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Series {
        Series::new("l".into(), "r".into(), "b".into(), 2)
    }

    #[test]
    fn latency_lands_in_the_bucket_whose_bound_it_does_not_exceed() {
        let series = series();
        let core = &series.cores[1];
        core.finished(200, 25_000, 10, 20);
        core.finished(200, 25_001, 10, 20);
        core.finished(502, u64::MAX, 0, 0);
        assert_eq!(core.latency()[0], 1);
        assert_eq!(core.latency()[1], 1);
        assert_eq!(core.latency()[LATENCY_BOUNDS_US.len()], 1);
        assert_eq!(core.by_status()[status_slot(200)], 2);
        assert_eq!(core.request_bytes(), 20);
    }

    #[test]
    fn a_request_that_ends_as_most_do_is_counted_in_one_line() {
        assert_eq!((size_of::<SeriesLine>(), align_of::<SeriesLine>()), (64, 64));
        let line = SeriesLine::default();
        let finished = |status| Finished { status, latency_ns: 60_000, request_bytes: 1, response_bytes: 1 };
        assert!(line.finished(&finished(200)).is_none());
        assert!(line.finished(&finished(404)).is_some());
    }

    #[test]
    fn latencies_are_exact_whenever_somebody_looks() {
        let series = series();
        let core = &series.cores[0];
        for count in 1..1_000 {
            core.finished(200, 60_000, 1, 1);
            assert_eq!(core.latency()[3 - 1], count);
        }
        // While it counts on, nobody sees fewer than before, or more than there are.
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while seen < 100_000 {
                    let now = core.latency()[2];
                    assert!(now >= seen && now <= 100_000, "{now} behind {seen}");
                    seen = now;
                }
            });
            (1_000..=100_000).for_each(|_| core.finished(200, 60_000, 1, 1));
            reader.join().unwrap();
        });
    }

    #[test]
    fn series_have_lines_of_their_own() {
        let mut lines = SeriesLines::new(2);
        let all: Vec<Series> = (0..3 * TOGETHER).map(|_| lines.series("l".into(), "r".into(), "b".into())).collect();
        for (at, core) in all.iter().flat_map(|series| series.cores.iter()).enumerate() {
            (0..=at).for_each(|_| core.finished(200, 1, 0, 0));
        }
        for (at, core) in all.iter().flat_map(|series| series.cores.iter()).enumerate() {
            assert_eq!((core.by_status()[0], core.latency()[0]), (at as u64 + 1, at as u64 + 1));
        }
    }
}
