use super::*;

const SECOND: u64 = 1_000_000_000;

fn limit(by: LimitKey, keys: usize, rate: LimitRate, cores: usize) -> Limit {
    Limit {
        name: "ns/policy/rule".into(),
        target: "".into(),
        by,
        rate,
        policy_field: "".into(),
        limit_field: "".into(),
        keys: Arc::new(KeyTable::new(keys, cores, 1, 0, (1, 2))),
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

fn taken(leases: &mut LimitLeases, limit: &Limit, key: u64, now: u64, tries: usize) -> usize {
    (0..tries).filter(|_| leases.take(limit, key, now).is_ok()).count()
}

#[test]
fn a_burst_and_then_the_rate_even_right_after_the_start() {
    let limit = limit(LimitKey::All, 1, LimitRate::new(60, 60, 10, 1), 1);
    let mut leases = LimitLeases::new(0);
    assert_eq!(taken(&mut leases, &limit, 7, 0, 100), 10, "the burst, at time zero");
    assert_eq!(leases.take(&limit, 7, SECOND / 4), Err(Wait { nanoseconds: SECOND * 3 / 4 }));
    assert_eq!(taken(&mut leases, &limit, 7, SECOND * 3, 100), 3);
    assert_eq!(taken(&mut leases, &limit, 7, SECOND * 1000, 100), 10, "no more than the burst is saved up");
    let counts = &limit.keys.counts()[0];
    assert_eq!((counts.admitted.read(), counts.limited.read()), (23, 278));
}

#[test]
fn rates_are_rounded_down_and_extremes_hold() {
    assert_eq!(LimitRate::new(7, 1, 1, 1).interval, 142_857_143);
    assert_eq!(LimitRate::new(1_000_000_000, 1, 1_000_000_000, 1).interval, 1);
    let rate = LimitRate::new(1, 3600, 1_000_000_000, 1);
    assert_eq!(rate.depth, ZERO);
    let limit = limit(LimitKey::All, 1, rate, 1);
    let mut leases = LimitLeases::new(0);
    assert_eq!(taken(&mut leases, &limit, 7, 0, 1000), 1000);
    assert_eq!(taken(&mut leases, &limit, 7, u64::MAX >> 2, 1000), 1000);
}

#[test]
fn over_any_span_no_more_than_stated_passes_however_uneven_the_cores() {
    for (requests, seconds, burst, cores) in
        [(10u32, 60u32, 10u32, 2u16), (1000, 1, 10, 4), (100_000, 1, 100, 8), (1_000_000, 1, 100, 2), (50, 1, 5, 1)]
    {
        let rate = LimitRate::new(requests, seconds, burst, cores);
        let limit = limit(LimitKey::All, 1, rate, usize::from(cores));
        let mut leases: Vec<_> = (0..cores).map(LimitLeases::new).collect();
        let mut state = u64::from(requests);
        let (mut now, mut passed) = (0u64, Vec::new());
        for turn in 0..60_000usize {
            now += random(&mut state) % (rate.interval * 2).max(2) / 2;
            let favourite = turn / 5000 % leases.len();
            let which = if turn % 5 > 0 { favourite } else { random(&mut state) as usize % leases.len() };
            if leases[which].take(&limit, 9, now).is_ok() {
                passed.push(now);
            }
        }
        let slack = u64::from(cores) * (rate.batch - 1);
        for first in (0..passed.len()).step_by(53) {
            for last in (first..passed.len()).step_by(61) {
                let (count, span) = ((last - first + 1) as u64, passed[last] - passed[first]);
                let most = span / rate.interval + 1 + u64::from(burst) + slack;
                assert!(
                    count <= most,
                    "{count} in {span} ns, {most} at most: {requests} in {seconds} s, {cores} cores"
                );
            }
        }
        let least = now / rate.interval * 85 / 100;
        assert!(passed.len() as u64 >= least.min(28_000), "{} of {least} passed: {requests}, {cores}", passed.len());
    }
}

#[test]
fn keys_do_not_share_and_the_table_does_not_grow() {
    let limit = limit(LimitKey::Header("x".into()), 1024, LimitRate::new(5, 60, 5, 2), 2);
    let mut leases = [LimitLeases::new(0), LimitLeases::new(1)];
    let hash = |n: u64| random(&mut { n });
    for key in 0..200 {
        let passed: usize = (0..10).map(|n| taken(&mut leases[n % 2], &limit, hash(key), SECOND, 1)).sum();
        assert_eq!(passed, 5, "key {key}, on two cores");
    }
    assert_eq!(limit.keys.capacity(), 1024);
}

#[test]
fn nobody_gets_a_fresh_allowance_by_pushing_out_his_own_key() {
    let limit = limit(LimitKey::Cookie("c".into()), 64, LimitRate::new(10, 3600, 10, 1), 1);
    let mut leases = LimitLeases::new(0);
    let mut state = 1;
    let mut passed = 0;
    // One client under a hundred thousand names: a table of 64 buckets has 64 bursts to give, not a million.
    for _ in 0..100_000 {
        passed += taken(&mut leases, &limit, random(&mut state), SECOND, 10);
    }
    assert!(passed <= 64 * 10, "{passed}");
    assert!(passed >= 63 * 10, "{passed}");
}

#[test]
fn a_request_that_another_limit_refused_is_given_back() {
    for cores in [1, 4] {
        let limit = limit(LimitKey::All, 1, LimitRate::new(100_000, 1, 3, cores), usize::from(cores));
        let mut leases = LimitLeases::new(0);
        for _ in 0..50 {
            assert!(leases.take(&limit, 1, 0).is_ok());
            leases.put(&limit, 1);
        }
        assert_eq!(limit.keys.counts()[0].admitted.read(), 0);
    }
}

#[test]
fn batches_that_are_not_used_come_back() {
    let limit = limit(LimitKey::Header("x".into()), 8, LimitRate::new(1_000_000, 1, 128, 2), 2);
    assert_eq!(limit.rate.batch, 64);
    let mut leases = [LimitLeases::new(0), LimitLeases::new(1)];
    assert!(leases[0].take(&limit, 5, 0).is_ok());
    assert_eq!(taken(&mut leases[1], &limit, 5, 0, 1000), 64, "the first core holds 63");
    // Another key that falls into the same place pushes them out.
    assert!(leases[0].take(&limit, 6, 0).is_ok());
    assert_eq!(taken(&mut leases[1], &limit, 5, 0, 1000), 63);
}
