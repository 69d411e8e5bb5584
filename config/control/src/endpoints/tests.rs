use core::time::Duration;

use tables::{Endpoint, Method};

use super::plan::{HealthRule, SlowStart};
use super::select::State;
use super::*;

fn planned(id: u8, weight: u32, level: u32) -> PlannedEndpoint {
    PlannedEndpoint {
        endpoint: Endpoint { id: EndpointId(id.into()), address: SocketAddr::from(([10, 0, 0, id], 80)), weight },
        level,
        readiness: Readiness::Ready,
        zone: "".into(),
        name: "".into(),
        check: None,
    }
}

fn plan(endpoints: Vec<PlannedEndpoint>) -> ClusterPlan {
    ClusterPlan {
        backend: "ns/a".into(),
        name: "ns/a:80".into(),
        method: Method::RoundRobin,
        endpoints: endpoints.into(),
        sessions: false,
        slow_start: None,
        panic_threshold: 50,
        check: None,
    }
}

const SICK: State = State { healthy: false, ..State::READY };
const DRAINED: State = State { drain: true, ..State::READY };

/// Who takes which part of the requests, in per cent, by the last byte of the address.
fn shares(plan: &ClusterPlan, states: &[State]) -> Vec<(u8, u32)> {
    let selection = select(plan, states, [1, 2]);
    let total: f64 = selection.members().iter().map(|member| f64::from(member.weight)).sum();
    let part = |weight: u32| (f64::from(weight) * 100.0 / total).round() as u32;
    selection.members().iter().filter(|m| m.weight > 0).map(|m| (m.id.0 as u8, part(m.weight))).collect()
}

#[test]
fn the_drained_the_sick_and_the_weightless_take_nothing() {
    let plan = plan(vec![planned(1, 1, 0), planned(2, 1, 0), planned(3, 2, 0), planned(4, 0, 0)]);
    let ready = State::READY;
    assert_eq!(shares(&plan, &[ready; 4]), [(1, 25), (2, 25), (3, 50)]);
    assert_eq!(shares(&plan, &[DRAINED, ready, ready, ready]), [(2, 33), (3, 67)]);
    assert_eq!(shares(&plan, &[SICK, ready, ready, ready]), [(2, 33), (3, 67)]);
    let heavy = State { weight: Some(6), ..ready };
    assert_eq!(shares(&plan, &[ready, ready, heavy, ready]), [(1, 13), (2, 13), (3, 75)]);
    assert_eq!(shares(&plan, &[DRAINED; 4]), []);
}

/// BEHAVIOUR.md: no healthy endpoint is a 503; the panic threshold is below that.
#[test]
fn too_few_that_are_well_are_not_left_alone_and_none_is_none() {
    let ten: Vec<_> = (1..=10).map(|id| planned(id, 1, 0)).collect();
    let well = |n: usize| -> Vec<State> { (0..10).map(|i| if i < n { State::READY } else { SICK }).collect() };
    let taking = |plan: &ClusterPlan, n| shares(plan, &well(n)).len();
    let plan = plan(ten);
    assert_eq!([0, 1, 4, 5, 9].map(|n| taking(&plan, n)), [0, 10, 10, 5, 9]);
    let calm = ClusterPlan { panic_threshold: 0, ..plan };
    assert_eq!([0, 1, 4, 5, 9].map(|n| taking(&calm, n)), [0, 1, 4, 5, 9]);
}

/// Envoy's numbers: a level of which 71 % are well still takes everything.
#[test]
fn what_a_priority_cannot_take_goes_to_the_next() {
    let endpoints = (1..=4).map(|id| planned(id, 1, 0)).chain((5..=6).map(|id| planned(id, 1, 2))).collect();
    let plan = plan(endpoints);
    let well = |n: usize| -> Vec<State> { (0..6).map(|i| if i < n || i >= 4 { State::READY } else { SICK }).collect() };
    let of_first = |n| -> u32 {
        let selection = select(&plan, &well(n), [1, 2]);
        let weight = |level: fn(u32) -> bool| -> f64 {
            selection.members().iter().filter(|m| level(m.id.0)).map(|m| f64::from(m.weight)).sum()
        };
        (weight(|id| id <= 4) / weight(|_| true) * 100.0).round() as u32
    };
    assert_eq!([4, 3, 2, 1, 0].map(of_first), [100, 100, 70, 35, 0]);
    assert_eq!(shares(&plan, &well(2)), [(1, 35), (2, 35), (5, 15), (6, 15)]);
    // Nothing left in front: the next level takes all.
    assert_eq!(shares(&plan, &well(0)), [(5, 50), (6, 50)]);
    // Neither can take everything: both share, and the one with too few panics.
    let mut states = well(1);
    states[5] = SICK;
    assert_eq!(shares(&plan, &states).iter().filter(|(id, _)| *id <= 4).map(|(_, s)| s).sum::<u32>(), 35);
    states[4] = SICK;
    assert_eq!(shares(&plan, &states), [(1, 25), (2, 25), (3, 25), (4, 25)]);
}

#[test]
fn the_terminating_serve_only_where_nobody_else_does() {
    let mut leaving = planned(2, 1, 0);
    leaving.readiness = Readiness::Terminating;
    let plan = plan(vec![planned(1, 1, 0), leaving]);
    assert_eq!(shares(&plan, &[State::READY; 2]), [(1, 100)]);
    assert_eq!(shares(&plan, &[DRAINED, State::READY]), [(2, 100)]);
}

#[test]
fn a_drained_endpoint_keeps_its_sessions_and_a_sick_one_does_not() {
    let plan = ClusterPlan { sessions: true, ..plan(vec![planned(1, 1, 0), planned(2, 1, 0), planned(3, 1, 0)]) };
    let all = select(&plan, &[State::READY; 3], [1, 2]);
    let tag = |at| all.sessions().unwrap().tag(at).unwrap();
    let now = select(&plan, &[State::READY, DRAINED, SICK], [1, 2]);
    let kept = |tag| now.sessions().unwrap().find(tag).and_then(|at| now.member(at)).map(|member| member.id.0);
    assert_eq!([tag(0), tag(1), tag(2)].map(kept), [Some(1), Some(2), None]);
    let mut cursor = 0;
    let tables::Chooser::RoundRobin(schedule) = now.chooser() else { panic!() };
    assert!((0..9).all(|_| schedule.next(&mut cursor) == 0), "new ones go to the first alone");
}

/// Books with one cluster, and time.
struct Books {
    endpoints: Endpoints,
    ids: CheckIds,
    plans: Arc<[ClusterPlan]>,
    epoch: Epoch,
    now: Instant,
}

impl Books {
    fn new(plan: ClusterPlan) -> Self {
        let now = Instant::now() + Duration::from_secs(3600);
        let endpoints = Endpoints::new([1, 2], now);
        let mut books = Self { endpoints, ids: CheckIds::default(), plans: Arc::new([plan]), epoch: 0, now };
        books.publish();
        books
    }

    /// The snapshot that a configuration with these plans gives.
    fn publish(&mut self) -> Arc<Snapshot> {
        self.epoch += 1;
        let mut plans = self.plans.to_vec();
        let checks = self.ids.assign(&mut plans);
        self.plans = plans.into();
        let cluster =
            tables::Cluster::new("ns/a:80".into(), self.plans[0].endpoints.iter().map(|p| p.endpoint).collect());
        let http = tables::HttpSettings::default();
        let mut snapshot = Arc::new(Snapshot::new(self.epoch, http, vec![], vec![], vec![cluster], vec![]));
        self.endpoints.adopt(&mut snapshot, &self.plans, &checks, self.now);
        snapshot
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn report(&mut self, endpoint: usize, failure: Option<CheckFailure>) {
        let check = self.plans[0].endpoints[endpoint].check.unwrap();
        self.endpoints.report(Report { check, failure }, self.now);
    }

    /// The weights in a new table, by the last byte of the address; `None` where there is no new one.
    fn settle(&mut self) -> Option<Vec<(u32, u32)>> {
        let table = self.endpoints.settle(self.now)?;
        let selection = Arc::clone(&self.endpoints.defaults[0]);
        let cluster =
            tables::Cluster { name: "".into(), endpoints: Arc::default(), selection, affinity: None, cursor: 0 };
        let selection = table.selection(self.epoch, tables::ClusterId(0), &cluster);
        Some(selection.members().iter().map(|member| (member.id.0, member.weight)).collect())
    }
}

fn checked(plan: ClusterPlan) -> ClusterPlan {
    let way = tables::CheckWay {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        probe: tables::Probe::Tcp,
    };
    let rule = HealthRule { way: Arc::new(way), unhealthy_threshold: 3, healthy_threshold: 2 };
    ClusterPlan { check: Some(rule), ..plan }
}

#[test]
fn three_failures_take_an_endpoint_out_and_two_passes_bring_it_back() {
    let mut books = Books::new(checked(plan(vec![planned(1, 1, 0), planned(2, 1, 0), planned(3, 1, 0)])));
    let refused = Some(CheckFailure::Refused);
    for _ in 0..2 {
        books.report(1, refused);
        assert_eq!(books.settle(), None);
    }
    books.report(1, None);
    for _ in 0..2 {
        books.report(1, refused);
    }
    assert_eq!(books.settle(), None, "a pass in between starts the count over");
    books.report(1, refused);
    assert_eq!(books.settle(), Some(vec![(1, 1), (3, 1)]));
    let listed = books.endpoints.list(books.now);
    assert_eq!(listed[1].health, CheckedState::Unhealthy);
    assert_eq!(listed[1].last_failure.as_ref().unwrap().reason, "connection refused");
    assert_eq!((listed[0].health, listed[0].share), (CheckedState::Unknown, 0.5));
    // It survives a reload, and is in its snapshot from the start.
    let snapshot = books.publish();
    assert_eq!(snapshot.clusters[0].selection.members().len(), 2);
    books.report(1, None);
    assert_eq!(books.settle(), None);
    books.report(1, None);
    assert_eq!(books.settle(), Some(vec![(1, 1), (2, 1), (3, 1)]));
}

/// A check in another rhythm, or with other thresholds, is about the same thing; one that asks something else is not.
#[test]
fn a_change_of_the_rhythm_forgets_no_verdict() {
    let with = |seconds, unhealthy_threshold, probe| {
        let way = tables::CheckWay { interval: Duration::from_secs(seconds), timeout: Duration::from_secs(1), probe };
        let rule = HealthRule { way: Arc::new(way), unhealthy_threshold, healthy_threshold: 2 };
        ClusterPlan { check: Some(rule), ..plan(vec![planned(1, 1, 0), planned(2, 1, 0), planned(3, 1, 0)]) }
    };
    let mut books = Books::new(with(5, 2, tables::Probe::Tcp));
    for _ in 0..2 {
        books.report(1, Some(CheckFailure::Refused));
    }
    assert_eq!(books.settle(), Some(vec![(1, 1), (3, 1)]));
    books.report(0, None);
    for (seconds, threshold) in [(7, 2), (7, 4)] {
        books.plans = Arc::new([with(seconds, threshold, tables::Probe::Tcp)]);
        let members = |snapshot: &Snapshot| snapshot.clusters[0].selection.members().len();
        assert_eq!(members(&books.publish()), 2, "every {seconds} s, {threshold} times");
        let listed = books.endpoints.list(books.now);
        let health = |at: usize| (listed[at].health, listed[at].checks_passed, listed[at].checks_failed);
        assert_eq!((health(0), health(1)), ((CheckedState::Healthy, 1, 0), (CheckedState::Unhealthy, 0, 2)));
    }
    // By the new threshold from now on.
    for _ in 0..3 {
        books.report(2, Some(CheckFailure::Refused));
    }
    assert_eq!(books.settle(), None);
    let other = tables::Probe::Http((*b"GET / HTTP/1.1\r\n\r\n").into(), [(200, 399)].into());
    books.plans = Arc::new([with(7, 4, other)]);
    assert_eq!(books.publish().clusters[0].selection.members().len(), 3, "nobody has asked that yet");
}

#[test]
fn what_an_operator_says_holds_over_reloads_until_it_is_taken_back() {
    let mut books = Books::new(plan(vec![planned(1, 1, 0), planned(2, 1, 0)]));
    let second = Address::parse("10.0.0.2").unwrap();
    assert_eq!(books.endpoints.set("ns/a", second, Setting::Drain), Ok(1));
    assert_eq!(books.settle(), Some(vec![(1, 1)]));
    assert_eq!(books.settle(), None, "nothing has changed since");
    assert_eq!(books.publish().clusters[0].selection.members().len(), 1);
    assert_eq!(books.endpoints.set("ns/a", second, Setting::Ready), Ok(1));
    assert_eq!(books.settle(), Some(vec![(1, 1), (2, 1)]));
    assert_eq!(books.endpoints.set("ns/a", Address::parse("10.0.0.2:80").unwrap(), Setting::Weight(5)), Ok(1));
    assert_eq!(books.settle(), Some(vec![(1, 1), (2, 5)]));
    let unknown = books.endpoints.set("ns/b", second, Setting::Drain).unwrap_err();
    assert_eq!(unknown, "no route uses a backend ns/b; there are ns/a");
    let elsewhere = books.endpoints.set("ns/a", Address::parse("10.0.0.2:81").unwrap(), Setting::Drain).unwrap_err();
    assert_eq!(elsewhere, "ns/a has no endpoint 10.0.0.2:81; its endpoints are 10.0.0.1:80, 10.0.0.2:80");
}

/// Where the endpoints are the same ones, nothing is worked out again but what has changed since the last table.
#[test]
fn a_cluster_whose_endpoints_stay_keeps_its_selection() {
    let maglev = ClusterPlan { method: Method::Maglev(7), ..plan(vec![planned(1, 1, 0), planned(2, 1, 0)]) };
    let mut books = Books::new(maglev);
    let second = Address::parse("10.0.0.2").unwrap();
    books.endpoints.set("ns/a", second, Setting::Drain).unwrap();
    books.settle().unwrap();
    let drained = books.publish();
    let again = books.publish();
    assert_eq!(again.clusters[0].selection.members().len(), 1);
    assert!(Arc::ptr_eq(&drained.clusters[0].selection, &again.clusters[0].selection));
    // Said, and not in a table yet.
    for (setting, members) in [(Setting::Ready, 2), (Setting::Drain, 1), (Setting::Ready, 2)] {
        books.endpoints.set("ns/a", second, setting).unwrap();
        assert_eq!(books.publish().clusters[0].selection.members().len(), members, "{setting:?}");
        assert_eq!(books.settle(), None);
    }
}

#[test]
fn what_an_operator_says_is_kept_and_goes_with_the_endpoint() {
    let mut books = Books::new(plan(vec![planned(1, 1, 0), planned(2, 1, 0)]));
    for (address, setting) in [("10.0.0.1", Setting::Weight(7)), ("10.0.0.2", Setting::Drain)] {
        books.endpoints.set("ns/a", Address::parse(address).unwrap(), setting).unwrap();
    }
    let text = books.endpoints.text().unwrap();
    let mut later = Books::new(plan(vec![planned(1, 1, 0), planned(2, 1, 0)]));
    later.endpoints.recall(&text).unwrap();
    later.publish();
    let set: Vec<String> = later.endpoints.list(later.now).into_iter().map(|endpoint| endpoint.set).collect();
    assert_eq!(set, ["weight 7", "drain"]);
    assert!(later.endpoints.recall(b"{").is_err());
    let configuration = |backends: &str| {
        let text = format!(
            "apiVersion: millrace.dev/v1alpha1\nkind: Appliance\nmetadata: {{ name: edge }}\nspec:\n  cores: [0]\n  \
             ports: [{{ name: north, device: net_null0, addresses: [10.0.0.9/24] }}]\n{backends}"
        );
        schema::load_str("test", &text).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let backend = |endpoints: &str| {
        configuration(&format!(
            "---\napiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: a, namespace: ns }}\nspec: {{ endpoints: [{endpoints}] }}\n"
        ))
    };
    assert!(later.endpoints.forget(&backend("{ address: 10.0.0.1 }, { address: 10.0.0.2 }")).is_empty());
    assert!(
        later.endpoints.forget(&backend("{ fqdn: { hostname: shop } }")).is_empty(),
        "a name may stand for it again"
    );
    assert_eq!(later.endpoints.forget(&backend("{ address: 10.0.0.2 }")), ["10.0.0.1:80 of ns/a"]);
    assert_eq!(later.endpoints.forget(&configuration("")), ["10.0.0.2:80 of ns/a"]);
}

#[test]
fn a_new_endpoint_starts_slowly() {
    let slow = SlowStart { window: Duration::from_secs(30), min_weight_percent: 10 };
    let two = ClusterPlan { slow_start: Some(slow), ..plan(vec![planned(1, 1, 0), planned(2, 1, 0)]) };
    let mut books = Books::new(two.clone());
    books.pass(Duration::from_secs(1));
    assert_eq!(books.settle(), None, "those that start with Millrace start together");
    books.plans = Arc::new([ClusterPlan { endpoints: [&*two.endpoints, &[planned(3, 1, 0)]].concat().into(), ..two }]);
    let snapshot = books.publish();
    let share = |members: &[(u32, u32)]| {
        let weight = |id| f64::from(members.iter().find(|(member, _)| *member == id).unwrap().1);
        (weight(3) / weight(1) * 100.0).round() as u32
    };
    let members: Vec<_> = snapshot.clusters[0].selection.members().iter().map(|m| (m.id.0, m.weight)).collect();
    assert_eq!(share(&members), 10, "it begins with a tenth");
    let mut seen = Vec::new();
    for _ in 0..40 {
        books.pass(Duration::from_secs(1));
        seen.extend(books.settle().map(|members| share(&members)));
    }
    assert!(seen.is_sorted() && seen.contains(&50) && seen.last() == Some(&100), "{seen:?}");
    books.pass(Duration::from_secs(100));
    assert_eq!(books.settle(), None, "and then it is at rest");
}
