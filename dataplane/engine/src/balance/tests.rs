use std::net::SocketAddr;
use std::time::Duration;

use tables::{Cluster, ClusterId, HttpSettings, Method, SeriesId, Target};

use super::*;

fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
    (0u32..)
        .zip(weights)
        .map(|(i, &weight)| Endpoint {
            id: EndpointId(i),
            address: SocketAddr::from(([10, 0, 0, i as u8], 80)),
            weight,
        })
        .collect()
}

/// What members are chosen of, where a test makes selections of its own.
fn one() -> Cluster {
    Cluster { cursor: 0, ..Cluster::new("a".into(), endpoints(&[1])) }
}

fn alone() -> Balance {
    let cluster = Cluster::new("a".into(), endpoints(&[1]));
    let snapshot = Snapshot::new(1, HttpSettings::default(), vec![], vec![], vec![cluster], vec![]);
    Balance::new(&snapshot, Random::new(7))
}

/// An endpoint as requests name it.
fn known(id: u32) -> (EndpointId, SocketAddr) {
    (EndpointId(id), SocketAddr::from(([10, 0, 0, id as u8], 80)))
}

/// How often each member is chosen in `draws` requests of these wishes.
fn counts(selection: &Selection, draws: u32, mut wish: impl FnMut(u32) -> Wish) -> Vec<u32> {
    let mut balance = alone();
    let mut counts = vec![0; selection.members().len()];
    for draw in 0..draws {
        let at = balance.member(&one(), selection, wish(draw), None, Instant::default(), |_| 0).unwrap();
        counts[at] += 1;
    }
    counts
}

#[track_caller]
fn assert_chi_squared(counts: &[u32], weights: &[u32], bound: f64) {
    let (draws, total) = (counts.iter().sum::<u32>(), weights.iter().sum::<u32>());
    let chi_squared: f64 = counts
        .iter()
        .zip(weights)
        .map(|(&count, &weight)| {
            let expected = f64::from(draws) * f64::from(weight) / f64::from(total);
            (f64::from(count) - expected).powi(2) / expected
        })
        .sum();
    assert!(chi_squared < bound, "{chi_squared}: {counts:?} for {weights:?}");
}

#[test]
fn turns_are_taken_by_weight_and_failed_endpoints_passed_over() {
    let cluster = Cluster::new("a".into(), endpoints(&[1, 2]));
    let alone = Cluster::new("b".into(), endpoints(&[1]));
    let target = Target { cluster: ClusterId(0), weight: 1, series: SeriesId(0) };
    let rule =
        Rule::new("r".into(), 0, vec![target, Target { cluster: ClusterId(1), weight: 0, ..target }], SeriesId(0));
    let snapshot = Snapshot::new(1, HttpSettings::default(), vec![], vec![rule], vec![cluster, alone], vec![]);
    let mut balance = Balance::new(&snapshot, Random::new(1));
    let mut turns = [0; 2];
    let choose = |balance: &mut Balance, cluster: usize, failed| {
        let cluster = &snapshot.clusters[cluster];
        balance.member(cluster, &cluster.selection, Wish::default(), failed, Instant::default(), |_| 0).unwrap()
    };
    for _ in 0..30 {
        turns[choose(&mut balance, 0, None)] += 1;
        assert_eq!(balance.target(&snapshot.rules[0]), Some(0));
    }
    assert_eq!(turns, [10, 20]);
    assert!((0..9).all(|_| choose(&mut balance, 0, Some(EndpointId(1))) == 0));
    assert_eq!(choose(&mut balance, 1, Some(EndpointId(0))), 0);
}

/// The 99.9 % quantile for 2 degrees of freedom is 13.8.
#[test]
fn chance_follows_the_weights() {
    let weights = [1, 2, 5];
    for method in [Method::Random, Method::LeastRequest] {
        let selection = Selection::new(method, endpoints(&weights));
        assert_chi_squared(&counts(&selection, 80_000, |_| Wish::default()), &weights, 13.8);
    }
    for weights in [[1, 1, 1], weights] {
        let selection = Selection::new(Method::PeakEwma, endpoints(&weights));
        assert_chi_squared(&counts(&selection, 80_000, |_| Wish::default()), &weights, 13.8);
        // Neither all unknown, nor all known and equally fast.
        let mut balance = alone();
        (0..3).for_each(|id| balance.observe(known(id), 1_000_000, Instant::default()));
        let mut counts = [0; 3];
        for _ in 0..80_000 {
            let at = balance.member(&one(), &selection, Wish::default(), None, Instant::default(), |_| 0).unwrap();
            counts[at] += 1;
        }
        assert_chi_squared(&counts, &weights, 13.8);
    }
}

/// Weighted ones that are equally fast have requests under way as their weights say, as far as so few can be divided.
#[test]
fn the_heavier_of_the_equally_fast_get_their_share_under_load() {
    let weights = [1, 3];
    let selection = Selection::new(Method::PeakEwma, endpoints(&weights));
    let mut balance = alone();
    (0..2).for_each(|id| balance.observe(known(id), 1_000_000, Instant::default()));
    for concurrent in [1usize, 4, 64] {
        let (mut under_way, mut counts, mut queue) = ([0u32; 2], [0u32; 2], std::collections::VecDeque::new());
        for _ in 0..40_000 {
            let loads = under_way;
            let load = |id: EndpointId| loads[id.0 as usize];
            let at = balance.member(&one(), &selection, Wish::default(), None, Instant::default(), load).unwrap();
            under_way[at] += 1;
            counts[at] += 1;
            queue.push_back(at);
            if queue.len() == concurrent {
                under_way[queue.pop_front().unwrap()] -= 1;
            }
        }
        let share = f64::from(counts[0]) / 40_000.0;
        assert!((share - 0.25).abs() < 0.1, "{share} with {concurrent} under way");
    }
}

/// A ring's shares are as even as its places make them: within a tenth with 65,536 of them.
#[test]
fn a_ring_is_spread_by_weight() {
    let weights = [1, 1, 2, 4];
    let selection = Selection::new(Method::Ring(5, 65_536, 1 << 20), endpoints(&weights));
    let hash = |draw: u32| Wish { hash: tables::selection::request_hash(5, &draw.to_le_bytes()), session: 0 };
    for (count, weight) in counts(&selection, 80_000, hash).into_iter().zip(weights) {
        let share = f64::from(count) / 10_000.0 / f64::from(weight);
        assert!((share - 1.0).abs() < 0.1, "{share}");
    }
}

/// A configuration that has others in front, or has them in another order, takes nobody's turn away and gives nobody a second one.
#[test]
fn turns_go_on_wherever_a_rule_or_a_cluster_stands() {
    let target = Target { cluster: ClusterId(0), weight: 1, series: SeriesId(0) };
    let rule = |cursor, weights: [u32; 2]| {
        let targets = weights.map(|weight| Target { weight, ..target });
        Rule { cursor, ..Rule::new("r".into(), 0, targets.into(), SeriesId(0)) }
    };
    let cluster = |cursor, n: usize| Cluster { cursor, ..Cluster::new("a".into(), endpoints(&vec![1; n])) };
    let make = |epoch, turned: bool| {
        let mut rules = vec![rule(0, [9, 1]), rule(1, [1, 1]), rule(2, [1, 1])];
        let mut clusters = vec![cluster(0, 5), cluster(1, 3), cluster(2, 2)];
        if turned {
            rules.reverse();
            clusters.reverse();
        }
        Snapshot::new(epoch, HttpSettings::default(), vec![], rules, clusters, vec![])
    };
    let mut balance = Balance::new(&make(0, false), Random::new(1));
    let (mut canary, mut members) = (0, [0; 5]);
    for epoch in 1..=100 {
        let snapshot = make(epoch, epoch % 2 == 0);
        balance.renew(&snapshot);
        let rule = snapshot.rules.iter().find(|rule| rule.cursor == 0).unwrap();
        canary += u32::from(balance.target(rule) == Some(1));
        // What others do between is theirs.
        for other in snapshot.rules.iter().filter(|rule| rule.cursor != 0) {
            balance.target(other);
        }
        for cluster in &snapshot.clusters {
            let at = balance.member(cluster, &cluster.selection, Wish::default(), None, Instant::default(), |_| 0);
            if cluster.cursor == 0 {
                members[at.unwrap()] += 1;
            }
        }
    }
    assert_eq!((canary, members), (10, [20; 5]));
}

/// An endpoint's number goes to another address once it is long gone: what was known of the one says nothing about the other.
#[test]
fn a_latency_is_of_an_address_and_not_of_its_number() {
    let selection = Selection::new(Method::PeakEwma, endpoints(&[1, 1]));
    let mut balance = alone();
    balance.observe(known(0), 1_000_000, Instant::default());
    balance.observe((EndpointId(1), "192.0.2.1:80".parse().unwrap()), 900_000_000, Instant::default());
    let chosen = |balance: &mut Balance| {
        let pick = |_| balance.member(&one(), &selection, Wish::default(), None, Instant::default(), |_| 0).unwrap();
        (0..100).map(pick).filter(|at| *at == 1).count()
    };
    assert!(chosen(&mut balance) > 0, "the new one is tried");
    balance.observe(known(1), 2_000_000, Instant::default());
    assert_eq!(chosen(&mut balance), 0, "and is slower itself, but not by another one's peak");
    balance.observe(known(0), 3_000_000, Instant::default());
    assert_eq!(chosen(&mut balance), 100);
}

/// Maglev's places are even within 1 %, a ring's within what its places allow; the rest is chance.
#[test]
fn hashes_are_spread_by_weight() {
    let weights = [1, 1, 2];
    for method in [Method::Maglev(0), Method::Modulo] {
        let selection = Selection::new(method, endpoints(&weights));
        let hash = |draw: u32| Wish { hash: tables::selection::request_hash(0, &draw.to_le_bytes()), session: 0 };
        assert_chi_squared(&counts(&selection, 40_000, hash), &weights, 13.8);
    }
    for method in [Method::Maglev(0), Method::Modulo, Method::Ring(0, 1024, 65_536)] {
        let selection = Selection::new(method, endpoints(&weights));
        let same = counts(&selection, 100, |_| Wish { hash: 77, session: 0 });
        assert_eq!(same.iter().filter(|&&count| count == 100).count(), 1, "one hash, one member");
    }
}

#[test]
fn fewer_requests_under_way_get_more() {
    let selection = Selection::new(Method::LeastRequest, endpoints(&[1; 4]));
    let mut balance = alone();
    let mut under_way = [0u32; 4];
    // Nobody finishes: loads stay within the gap that two choices leave.
    for _ in 0..4000 {
        let loads = under_way;
        let load = |id: EndpointId| loads[id.0 as usize];
        let at = balance.member(&one(), &selection, Wish::default(), None, Instant::default(), load).unwrap();
        under_way[at] += 1;
    }
    let (least, most) = (under_way.iter().min().unwrap(), under_way.iter().max().unwrap());
    assert!(most - least <= 6, "{under_way:?}");
    // Who is stuck with many gets nothing while others have fewer.
    let load = |id: EndpointId| if id.0 == 2 { 50 } else { 1 };
    for _ in 0..1000 {
        let at = balance.member(&one(), &selection, Wish::default(), None, Instant::default(), load).unwrap();
        assert_ne!(at, 2);
    }
}

#[test]
fn heavier_ones_may_have_more_under_way() {
    let selection = Selection::new(Method::LeastRequest, endpoints(&[1, 3]));
    let mut balance = alone();
    let mut under_way = [0u32; 2];
    for _ in 0..4000 {
        let loads = under_way;
        let load = |id: EndpointId| loads[id.0 as usize];
        let at = balance.member(&one(), &selection, Wish::default(), None, Instant::default(), load).unwrap();
        under_way[at] += 1;
    }
    assert!((990..1010).contains(&under_way[0]), "{under_way:?}");
}

#[test]
fn a_slow_endpoint_gets_less_and_is_tried_again_when_its_peak_is_forgotten() {
    let selection = Selection::new(Method::PeakEwma, endpoints(&[1; 2]));
    let mut balance = alone();
    let ms = |n: u64| Instant(n * 1_000_000);
    for at in 0..10 {
        balance.observe(known(0), 1_000_000, ms(at));
        balance.observe(known(1), 1_000_000, ms(at));
    }
    balance.observe(known(1), 500_000_000, ms(10));
    let mut choose = |now, load: [u32; 2]| {
        let load = |id: EndpointId| load[id.0 as usize];
        balance.member(&one(), &selection, Wish::default(), None, now, load).unwrap()
    };
    assert!((0..100).all(|_| choose(ms(11), [0, 0]) == 0), "the peak counts at once");
    assert!((0..100).all(|_| choose(ms(11), [100, 0]) == 0));
    assert!((0..100).all(|_| choose(ms(11), [1000, 0]) == 1), "and so does what is under way");
    // Nobody observes anything for a minute: both are unknown again, as far as it matters.
    balance.observe(known(0), 1_000_000, ms(70_000));
    assert_eq!(
        balance.member(&one(), &selection, Wish::default(), None, ms(75_000), |id| u32::from(id.0 == 0)),
        Some(1)
    );
}

#[test]
fn a_session_keeps_its_member_unless_that_failed() {
    let make = || Selection::round_robin(endpoints(&[1, 1, 1])).with_sessions([1, 2], "s", vec![]);
    let selection = make();
    let wish = Wish { hash: 0, session: selection.sessions().unwrap().tag(1).unwrap() };
    assert_eq!(counts(&selection, 9, |_| wish), [0, 9, 0]);
    assert_eq!(counts(&selection, 9, |_| Wish { session: 12345, ..wish }), [3, 3, 3], "nobody has that tag");
    let mut balance = alone();
    for _ in 0..9 {
        let at = balance.member(&one(), &selection, wish, Some(EndpointId(1)), Instant::default(), |_| 0);
        assert_ne!(at, Some(1));
    }
}

#[test]
fn what_failed_is_passed_over_by_every_chooser() {
    let methods = [
        Method::RoundRobin,
        Method::Random,
        Method::LeastRequest,
        Method::PeakEwma,
        Method::Modulo,
        Method::Maglev(3),
        Method::Ring(3, 64, 1024),
    ];
    for method in methods {
        let selection = Selection::new(method, endpoints(&[1000, 1, 1]));
        let mut balance = alone();
        for hash in 1..200 {
            let wish = Wish { hash: hash << 40 | hash, session: 0 };
            let now = Instant::default() + Duration::from_millis(hash);
            let at = balance.member(&one(), &selection, wish, Some(EndpointId(0)), now, |_| 0).unwrap();
            assert_ne!(at, 0, "{method:?}");
        }
        let only = Selection::new(method, endpoints(&[1]));
        let wish = Wish { hash: 5, session: 0 };
        let at = balance.member(&one(), &only, wish, Some(EndpointId(0)), Instant::default(), |_| 0);
        assert_eq!(at, Some(0), "{method:?}: there is no other");
    }
}
