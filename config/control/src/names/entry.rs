//! What is known of one name, and when it is to be asked for again. No clock, no network: `now` and chance are arguments.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use schema::{Dns, DnsName, Reach};

use super::answer::{Failure, Outcome, Resolved, take};
use crate::status::{NameFailure, NameState, NameStatus};

/// One name.
#[derive(Debug)]
pub(super) struct Entry {
    /// The last good answer.
    good: Option<Good>,
    /// Whether it counts: servers have not said for too long that there is nothing.
    serves: bool,
    /// Since when servers say that there is nothing.
    absent: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    last_failure: Option<(String, Instant)>,
    /// What was not taken of the last answer.
    refused: Vec<String>,
    refused_count: usize,
    surplus: usize,
    results: BTreeMap<&'static str, u64>,
    /// When to ask.
    due: Instant,
    /// It is being asked for.
    pub(super) asked: bool,
    /// It was asked for once, whatever came of it.
    pub(super) heard: bool,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Good {
    pub(super) addresses: Arc<[Resolved]>,
    /// When it was confirmed last.
    at: Instant,
    /// How old it was then: it may be from before the start.
    older: Duration,
    ttl: Duration,
}

impl Good {
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.older + now.saturating_duration_since(self.at)
    }
}

/// What there is to say of a change, once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remark {
    /// All is well.
    Good(String),
    /// Somebody should look.
    Bad(String),
}

/// What follows from an outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// The addresses that count are others.
    pub(super) changed: bool,
    pub(super) remark: Option<Remark>,
}

impl Entry {
    /// A name that nobody has asked for yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            good: None,
            serves: false,
            absent: None,
            failures: 0,
            last_failure: None,
            refused: Vec::new(),
            refused_count: 0,
            surplus: 0,
            results: BTreeMap::new(),
            due: now,
            asked: false,
            heard: false,
        }
    }

    /// A name with a good answer from before the start.
    pub(super) fn kept(addresses: Vec<Resolved>, age: Duration, now: Instant) -> Self {
        let good = Good { addresses: addresses.into(), at: now, older: age, ttl: Duration::ZERO };
        Self { good: Some(good), serves: true, ..Self::new(now) }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// It is to be asked for now, whatever was planned.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// The addresses that count.
    pub(super) fn addresses(&self) -> Option<&Arc<[Resolved]>> {
        self.good.as_ref().filter(|_| self.serves).map(|good| &good.addresses)
    }

    /// The last good answer, whether or not it counts.
    pub(super) fn good(&self) -> Option<&Good> {
        self.good.as_ref()
    }

    /// Takes what came of a question. `chance`, 0 to 1, spreads when the next one is asked.
    pub(super) fn take(
        &mut self,
        name: &DnsName,
        outcome: Outcome<Resolved>,
        settings: &Dns,
        reach: &Reach,
        now: Instant,
        chance: f64,
    ) -> Change {
        self.heard = true;
        let outcome = match outcome {
            Outcome::Records(found, ttl, partly) => {
                let held = self.addresses().map(|held| held.to_vec()).unwrap_or_default();
                let all = found.len();
                let taken = take(found, &held, name.lookup_family, reach, settings.max_addresses.into());
                (self.refused, self.refused_count, self.surplus) = (taken.refused, taken.refused_count, taken.surplus);
                if taken.addresses.is_empty() {
                    let why = format!("none of the {all} addresses can be used: {}", self.refused.join(", "));
                    Outcome::Failed(Failure::Unusable(why))
                } else {
                    Outcome::Records(taken.addresses, ttl, partly)
                }
            }
            other => other,
        };
        match outcome {
            Outcome::Records(addresses, ttl, partly) => {
                self.answered(name, addresses, ttl, partly, settings, now, chance)
            }
            Outcome::Absent(absence, ttl) => {
                *self.results.entry(absence.token()).or_default() += 1;
                self.last_failure = Some((absence.text().to_owned(), now));
                self.failures = 0;
                let ttl = ttl.clamp(settings.min_ttl.min(settings.negative_ttl), settings.negative_ttl);
                self.due = now + ttl;
                let new = self.absent.is_none();
                let since = *self.absent.get_or_insert(now);
                if !self.serves {
                    let remark = new.then(|| Remark::Bad(format!("{}: {}", name.hostname, absence.text())));
                    return Change { changed: false, remark };
                }
                let end = since + settings.hold_absent;
                if now >= end {
                    self.serves = false;
                    let remark = format!("{}: {}; it has no endpoints any more", name.hostname, absence.text());
                    return Change { changed: true, remark: Some(Remark::Bad(remark)) };
                }
                self.due = self.due.min(end);
                let left = end.duration_since(now).as_secs_f64();
                let remark =
                    || format!("{}: {}; the last good answer counts for {left:.0} s", name.hostname, absence.text());
                Change { changed: false, remark: new.then(|| Remark::Bad(remark())) }
            }
            Outcome::Failed(failure) => {
                *self.results.entry(failure.token()).or_default() += 1;
                self.last_failure = Some((failure.text(), now));
                let doublings = self.failures.min(16);
                self.failures = self.failures.saturating_add(1);
                let wait = settings.retry_interval.saturating_mul(1 << doublings).min(settings.max_retry_interval);
                self.due = now + wait.mul_f64(1.0 - chance / 4.0);
                let remark = (doublings == 0).then(|| {
                    let runs = match (&self.good, self.serves) {
                        (Some(good), true) => {
                            format!("the last good answer counts on, {} s old", good.age(now).as_secs())
                        }
                        _ => "it has no endpoints".to_owned(),
                    };
                    Remark::Bad(format!("{}: {}; {runs}", name.hostname, failure.text()))
                });
                Change { changed: false, remark }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one answer")]
    fn answered(
        &mut self,
        name: &DnsName,
        addresses: Vec<Resolved>,
        ttl: Duration,
        partly: Option<Failure>,
        settings: &Dns,
        now: Instant,
        chance: f64,
    ) -> Change {
        *self.results.entry("answer").or_default() += 1;
        let ttl = ttl.clamp(settings.min_ttl, settings.max_ttl);
        // Up to a tenth early, so that names that were asked for together are not for ever.
        self.due = now + ttl.mul_f64(1.0 - chance / 10.0);
        let recovered = core::mem::take(&mut self.failures) > 0 || self.absent.take().is_some();
        if let Some(failure) = partly {
            self.last_failure = Some((failure.text(), now));
        }
        let before = self.addresses().cloned().unwrap_or_default();
        let changed = !self.serves || *before != *addresses;
        let remark = if changed {
            Some(Remark::Good(format!("{}: {}", name.hostname, difference(&before, &addresses))))
        } else {
            recovered.then(|| Remark::Good(format!("{}: is answered again", name.hostname)))
        };
        let addresses = if changed { addresses.into() } else { before };
        self.good = Some(Good { addresses, at: now, older: Duration::ZERO, ttl });
        self.serves = true;
        Change { changed, remark }
    }

    pub(super) fn status(&self, name: &DnsName, now: Instant) -> NameStatus {
        let state = match (&self.good, self.serves) {
            (Some(_), true) if self.failures == 0 && self.absent.is_none() => NameState::Resolved,
            (Some(_), true) => NameState::Kept,
            (_, false) if !self.heard => NameState::Pending,
            _ => NameState::Unresolved,
        };
        let shown = self.addresses().map(|addresses| addresses.iter().map(Resolved::text).collect());
        NameStatus {
            name: name.hostname.to_string(),
            kind: match name.kind {
                schema::DnsType::Address => "Address",
                schema::DnsType::Srv => "SRV",
            }
            .to_owned(),
            lookup_family: family(name.lookup_family).to_owned(),
            state,
            addresses: shown.unwrap_or_default(),
            age_seconds: self.good.as_ref().map(|good| good.age(now).as_secs_f64()),
            ttl_seconds: self.good.as_ref().map(|good| good.ttl.as_secs()),
            next_seconds: self.due.saturating_duration_since(now).as_secs_f64(),
            failures: self.failures,
            last_failure: self.last_failure.as_ref().map(|(reason, at)| NameFailure {
                reason: reason.clone(),
                seconds_ago: now.saturating_duration_since(*at).as_secs(),
            }),
            refused: self.refused.clone(),
            refused_count: self.refused_count,
            surplus: self.surplus,
            lookups: self.results.iter().map(|(result, count)| ((*result).to_owned(), *count)).collect(),
        }
    }
}

pub(super) fn family(family: schema::LookupFamily) -> &'static str {
    match family {
        schema::LookupFamily::Ipv4AndIpv6 => "IPv4AndIPv6",
        schema::LookupFamily::Ipv4 => "IPv4",
        schema::LookupFamily::Ipv6 => "IPv6",
        schema::LookupFamily::Ipv4Preferred => "IPv4Preferred",
        schema::LookupFamily::Ipv6Preferred => "IPv6Preferred",
    }
}

/// What came and what went, for the log.
fn difference(before: &[Resolved], after: &[Resolved]) -> String {
    const SHOWN: usize = 8;
    let count = match after.len() {
        1 => "1 address".to_owned(),
        n => format!("{n} addresses"),
    };
    let sides = [('+', after, before), ('-', before, after)];
    let mut parts = sides.iter().flat_map(|(sign, these, those)| {
        these.iter().filter(|one| !those.contains(one)).map(move |one| format!("{sign}{}", one.text()))
    });
    let mut shown: Vec<String> = parts.by_ref().take(SHOWN).collect();
    if parts.next().is_some() {
        shown.push("…".to_owned());
    }
    format!("{count} ({})", shown.join(" "))
}

#[cfg(test)]
mod tests {
    use schema::{DnsType, LookupFamily};

    use super::super::answer::Absence;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name() -> DnsName {
        DnsName { hostname: "shop.test".into(), kind: DnsType::Address, lookup_family: LookupFamily::Ipv4AndIpv6 }
    }

    fn reach() -> Reach {
        let text = "apiVersion: millrace.dev/v1alpha1\nkind: Appliance\nmetadata: { name: edge }\nspec:\n  cores: [0]\n  \
                    ports: [{ name: north, device: net_null0, addresses: [10.9.1.1/24] }]\n";
        Reach::new(&schema::load_str("test", text).unwrap().appliance.spec)
    }

    fn records(list: &[&str], ttl: u32) -> Outcome<Resolved> {
        let list = list.iter().map(|a| Resolved { address: a.parse().unwrap(), service: None }).collect();
        Outcome::Records(list, ttl * SECOND, None)
    }

    /// An entry with its clock: what happens `after` the last thing.
    struct Run {
        entry: Entry,
        now: Instant,
        reach: Reach,
        settings: Dns,
    }

    impl Run {
        fn new() -> Self {
            let now = Instant::now();
            Self { entry: Entry::new(now), now, reach: reach(), settings: Dns::default() }
        }

        fn take(&mut self, after: Duration, outcome: Outcome<Resolved>) -> (bool, bool) {
            self.now += after;
            let change = self.entry.take(&name(), outcome, &self.settings, &self.reach, self.now, 0.0);
            (change.changed, change.remark.is_some())
        }

        fn wait(&self) -> Duration {
            self.entry.due().duration_since(self.now)
        }

        fn addresses(&self) -> Vec<String> {
            self.entry.addresses().map(|all| all.iter().map(Resolved::text).collect()).unwrap_or_default()
        }
    }

    #[test]
    fn an_answer_counts_for_its_ttl_within_bounds_and_the_same_one_changes_nothing() {
        let mut run = Run::new();
        assert_eq!(run.take(SECOND, records(&["10.9.1.3", "10.9.1.2"], 60)), (true, true));
        assert_eq!((run.addresses(), run.wait()), (vec!["10.9.1.2".to_owned(), "10.9.1.3".to_owned()], 60 * SECOND));
        assert_eq!(run.take(60 * SECOND, records(&["10.9.1.2", "10.9.1.3"], 0)), (false, false), "in another order");
        assert_eq!(run.wait(), 5 * SECOND, "a TTL of 0 is raised");
        assert_eq!(run.take(SECOND, records(&["10.9.1.2"], u32::MAX)), (true, true));
        assert_eq!(run.wait(), 3_600 * SECOND);
        let change = run.entry.take(&name(), records(&["10.9.1.2"], 100), &run.settings, &run.reach, run.now, 1.0);
        assert_eq!((change, run.wait()), (Change::default(), 90 * SECOND), "up to a tenth early, by chance");
    }

    #[test]
    fn failures_keep_the_last_good_answer_and_are_told_once() {
        let mut run = Run::new();
        assert_eq!(run.take(SECOND, Outcome::Failed(Failure::Timeout)), (false, true));
        assert!(run.addresses().is_empty());
        assert_eq!(run.take(SECOND, records(&["10.9.1.2"], 10)), (true, true));
        let mut waits = Vec::new();
        for (n, failure) in
            [Failure::Timeout, Failure::ServFail, Failure::Refused].into_iter().cycle().take(9).enumerate()
        {
            assert_eq!(run.take(1_000 * SECOND, Outcome::Failed(failure)), (false, n == 0));
            waits.push(run.wait().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30, 30]);
        assert_eq!(run.addresses(), ["10.9.1.2"]);
        let status = run.entry.status(&name(), run.now);
        assert_eq!((status.state, status.age_seconds), (NameState::Kept, Some(9_000.0)));
        assert_eq!(run.take(SECOND, records(&["10.9.1.2"], 10)), (false, true), "it is back");
        assert_eq!(run.entry.status(&name(), run.now).age_seconds, Some(0.0));
        // What nobody can use is a failure, too.
        assert_eq!(run.take(SECOND, records(&["127.0.0.1", "0.0.0.0"], 10)), (false, true));
        assert_eq!(run.addresses(), ["10.9.1.2"]);
        let why = run.entry.status(&name(), run.now).last_failure.unwrap().reason;
        assert_eq!(
            why,
            "none of the 2 addresses can be used: 127.0.0.1 is a loopback address, 0.0.0.0 is an address of no host"
        );
    }

    #[test]
    fn nothing_is_an_answer_that_is_believed_after_a_while() {
        let mut run = Run::new();
        run.take(SECOND, records(&["10.9.1.2"], 10));
        let absent = |ttl| Outcome::Absent(Absence::Name, ttl * SECOND);
        assert_eq!(run.take(SECOND, absent(20)), (false, true));
        assert_eq!((run.addresses().len(), run.wait()), (1, 20 * SECOND));
        assert_eq!(run.take(20 * SECOND, absent(20)), (false, false));
        assert_eq!(run.wait(), 10 * SECOND, "when it is to be believed, it is asked for again");
        // A failure then says nothing.
        assert_eq!(run.take(10 * SECOND, Outcome::Failed(Failure::Timeout)), (false, true));
        assert_eq!(run.addresses().len(), 1);
        assert_eq!(run.take(SECOND, absent(u32::MAX)), (true, true));
        assert_eq!((run.addresses().len(), run.wait()), (0, 30 * SECOND));
        assert_eq!(run.take(SECOND, absent(1)), (false, false));
        assert_eq!(run.wait(), 5 * SECOND);
        assert_eq!(run.take(SECOND, records(&["10.9.1.2"], 10)), (true, true));
        run.settings.hold_absent = Duration::ZERO;
        assert_eq!(run.take(SECOND, absent(20)), (true, true));
    }

    #[test]
    fn an_answer_from_before_the_start_counts_with_its_age() {
        let mut run = Run::new();
        let before = vec![Resolved { address: "10.9.1.2".parse().unwrap(), service: None }];
        run.entry = Entry::kept(before, 100 * SECOND, run.now);
        assert_eq!(run.take(SECOND, Outcome::Failed(Failure::Timeout)), (false, true));
        assert_eq!(run.entry.status(&name(), run.now).age_seconds, Some(101.0));
        assert_eq!(run.take(SECOND, records(&["10.9.1.2"], 10)), (false, true));
        assert_eq!(run.entry.status(&name(), run.now).age_seconds, Some(0.0));
    }
}
