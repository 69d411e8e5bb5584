//! Every interleaving of two threads on what they share: leases and publication slots.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p tables --test model`
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use tables::lease::{Budget, Rate};
use tables::limit::{KeyTable, Limit, LimitKey, LimitLeases, LimitRate};
use tables::publish::{Versioned, slot};
use tables::quota::{Allowance, Borrowed, Lent, Quotas};
use tables::source_rate::SourceRates;
use tables::{EndpointId, SourceLimit};

#[test]
fn two_cores_never_have_more_than_there_is() {
    loom::model(|| {
        let budget = Budget::new(3, 2);
        let mut other = budget.lease();
        let theirs = thread::spawn(move || {
            let mut got = u32::from(other.take()) + u32::from(other.take());
            if got == 2 {
                other.put();
                got -= 1;
            }
            (got, other)
        });
        let mut mine = budget.lease();
        let got = u32::from(mine.take()) + u32::from(mine.take());
        let (others, lease) = theirs.join().unwrap();
        assert!(got + others <= 3);
        drop((mine, lease));
        // All came back.
        let mut last = budget.lease();
        assert!(last.take() && last.take() && last.take() && !last.take());
    });
}

#[test]
fn two_cores_never_have_more_connections_to_an_endpoint_than_allowed() {
    loom::model(|| {
        let (quotas, allowance) = (Quotas::new(), Allowance::new(3, 2));
        // The chunk is made before: whose first it is, `OnceLock` decides.
        assert!(quotas.of(EndpointId(0)).is_some());
        let take = move |quotas: &Quotas, borrowed: &mut Borrowed| {
            let count = || quotas.of(EndpointId(0)).map(Lent::connections);
            let mut used = (0..2).take_while(|&used| borrowed.allows(used, &allowance, count)).count() as u64;
            if used == 2 {
                used -= 1;
                borrowed.settle(used, &allowance, count);
            }
            used + u64::from(borrowed.allows(used, &allowance, count))
        };
        let theirs = quotas.clone();
        let other = thread::spawn(move || {
            let mut borrowed = Borrowed::default();
            let used = take(&theirs, &mut borrowed);
            (used, borrowed)
        });
        let mut mine = Borrowed::default();
        let used = take(&quotas, &mut mine);
        let (others, mut theirs) = other.join().unwrap();
        assert!(used >= 1 && others >= 1 && used + others <= 3);
        for borrowed in [&mut mine, &mut theirs] {
            borrowed.end(|| quotas.of(EndpointId(0)).map(Lent::connections));
        }
        assert_eq!(quotas.of(EndpointId(0)).unwrap().connections().lent(), 0);
    });
}

#[test]
fn two_cores_share_a_rate() {
    loom::model(|| {
        let rate = Rate::new(10, 2, 2);
        let mut other = rate.lease();
        let now = 10_000_000_000;
        let theirs = thread::spawn(move || u32::from(other.take(now)) + u32::from(other.take(now)));
        let mut mine = rate.lease();
        let got = u32::from(mine.take(now)) + u32::from(mine.take(now));
        assert_eq!(got + theirs.join().unwrap(), 2);
    });
}

/// Two cores that bring the same new key at the same moment.
#[test]
fn two_cores_share_the_buckets_of_a_limit() {
    loom::model(|| {
        let limit = Limit {
            name: "".into(),
            target: "".into(),
            by: LimitKey::All,
            rate: LimitRate::new(1, 3600, 2, 2),
            policy_field: "".into(),
            limit_field: "".into(),
            keys: Arc::new(KeyTable::new(1, 2, 1, 0, (1, 2))),
        };
        let theirs = limit.clone();
        let other = thread::spawn(move || {
            let mut leases = LimitLeases::new(1);
            u32::from(leases.take(&theirs, 7, 0).is_ok()) + u32::from(leases.take(&theirs, 7, 0).is_ok())
        });
        let mut leases = LimitLeases::new(0);
        let got = u32::from(leases.take(&limit, 7, 0).is_ok()) + u32::from(leases.take(&limit, 7, 0).is_ok());
        let others = other.join().unwrap();
        assert_eq!(got + others, 2);
        assert!(leases.take(&limit, 7, 0).is_err());
    });
}

#[test]
fn two_cores_share_what_a_source_may_open() {
    loom::model(|| {
        let limit = SourceLimit { connections_per_second: 10, burst: 2, prefix_v4: 32, prefix_v6: 64, sources: 2 };
        let table = Arc::new(SourceRates::new(&limit, [1, 2]));
        let source = "10.0.0.1".parse().unwrap();
        let now = 10_000_000_000;
        let other = Arc::clone(&table);
        let theirs = thread::spawn(move || u32::from(other.admit(now, source)) + u32::from(other.admit(now, source)));
        let got = u32::from(table.admit(now, source)) + u32::from(table.admit(now, source));
        let all = got + theirs.join().unwrap();
        // Never less than is allowed; more only where one core enters the source while another does not see it yet.
        assert!((2..=4).contains(&all), "{all}");
        let (mine, again) = (table.admit(now + 1_000_000_000, source), table.admit(now + 1_000_000_000, source));
        assert!(mine && again, "full again");
        assert!(!table.admit(now + 1_000_000_000, source));
    });
}

#[derive(Debug)]
struct Table(u64);

impl Versioned for Table {
    fn epoch(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_core_gets_the_latest_table_and_frees_none() {
    loom::model(|| {
        let first = Arc::new(Table(1));
        let watch = Arc::downgrade(&first);
        let (publisher, mut subscriber) = slot(first);
        let core = thread::spawn(move || {
            let mut seen = 1;
            for _ in 0..2 {
                subscriber.refresh();
                assert!(subscriber.current().0 >= seen);
                seen = subscriber.current().0;
            }
            subscriber
        });
        publisher.publish(Arc::new(Table(2)));
        let acknowledged = publisher.acknowledged();
        assert!(acknowledged <= 2 && (acknowledged == 1 || watch.upgrade().is_some()), "control frees the first");
        publisher.publish(Arc::new(Table(3)));
        let mut subscriber = core.join().unwrap();
        subscriber.refresh();
        assert_eq!((subscriber.current().0, publisher.acknowledged()), (3, 3));
        assert!(watch.upgrade().is_some(), "nobody but control frees a table");
        publisher.reclaim();
        assert!(watch.upgrade().is_none());
    });
}
