use std::net::SocketAddr;
use std::time::Duration;

use tables::{Cluster, HttpSettings, Method, SeriesId, Target};

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

fn alone() -> Balance {
    let cluster = Cluster::new("a".into(), endpoints(&[1]));
    let snapshot = Snapshot::new(1, HttpSettings::default(), vec![], vec![], vec![cluster], vec![]);
    Balance::new(&snapshot, Random::new(7))
}

/// How often each member is chosen in `draws` requests of these wishes.
fn counts(selection: &Selection, draws: u32, mut wish: impl FnMut(u32) -> Wish) -> Vec<u32> {
    let mut balance = alone();
    let mut counts = vec![0; selection.members().len()];
    for draw in 0..draws {
        let at = balance.member(ClusterId(0), selection, wish(draw), None, Instant::default(), |_| 0).unwrap();
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
        let selection = &snapshot.clusters[cluster].selection;
        let id = ClusterId(cluster as u32);
        balance.member(id, selection, Wish::default(), failed, Instant::default(), |_| 0).unwrap()
    };
    for _ in 0..30 {
        turns[choose(&mut balance, 0, None)] += 1;
        assert_eq!(balance.target(0, &snapshot.rules[0]), Some(0));
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
    let even = Selection::new(Method::PeakEwma, endpoints(&[1; 3]));
    assert_chi_squared(&counts(&even, 30_000, |_| Wish::default()), &[1; 3], 13.8);
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
        let at = balance.member(ClusterId(0), &selection, Wish::default(), None, Instant::default(), load).unwrap();
        under_way[at] += 1;
    }
    let (least, most) = (under_way.iter().min().unwrap(), under_way.iter().max().unwrap());
    assert!(most - least <= 6, "{under_way:?}");
    // Who is stuck with many gets nothing while others have fewer.
    let load = |id: EndpointId| if id.0 == 2 { 50 } else { 1 };
    for _ in 0..1000 {
        let at = balance.member(ClusterId(0), &selection, Wish::default(), None, Instant::default(), load).unwrap();
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
        let at = balance.member(ClusterId(0), &selection, Wish::default(), None, Instant::default(), load).unwrap();
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
        balance.observe(EndpointId(0), 1_000_000, ms(at));
        balance.observe(EndpointId(1), 1_000_000, ms(at));
    }
    balance.observe(EndpointId(1), 500_000_000, ms(10));
    let mut choose = |now, load: [u32; 2]| {
        let load = |id: EndpointId| load[id.0 as usize];
        balance.member(ClusterId(0), &selection, Wish::default(), None, now, load).unwrap()
    };
    assert!((0..100).all(|_| choose(ms(11), [0, 0]) == 0), "the peak counts at once");
    assert!((0..100).all(|_| choose(ms(11), [100, 0]) == 0));
    assert!((0..100).all(|_| choose(ms(11), [1000, 0]) == 1), "and so does what is under way");
    // Nobody observes anything for a minute: both are unknown again, as far as it matters.
    balance.observe(EndpointId(0), 1_000_000, ms(70_000));
    assert_eq!(
        balance.member(ClusterId(0), &selection, Wish::default(), None, ms(75_000), |id| u32::from(id.0 == 0)),
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
        let at = balance.member(ClusterId(0), &selection, wish, Some(EndpointId(1)), Instant::default(), |_| 0);
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
            let at = balance.member(ClusterId(0), &selection, wish, Some(EndpointId(0)), now, |_| 0).unwrap();
            assert_ne!(at, 0, "{method:?}");
        }
        let only = Selection::new(method, endpoints(&[1]));
        let wish = Wish { hash: 5, session: 0 };
        let at = balance.member(ClusterId(0), &only, wish, Some(EndpointId(0)), Instant::default(), |_| 0);
        assert_eq!(at, Some(0), "{method:?}: there is no other");
    }
}
