//! The generator against itself, and against faulty gateways, on a wire in virtual time.

mod support;

use std::time::Duration;

use blast::Message;
use blast::client::Wrong;
use pmd::Lane;
use pmd::sim::PathOptions;
use support::{Fault, Scene, clean, options};

#[test]
fn requests_are_answered() {
    for (busy, reply, upload) in [(1, 60, 0), (50, 1024, 0), (10, 65536, 0), (4, 1 << 20, 0), (4, 60, 1 << 20)] {
        let mut scene = Scene::new(1, clean(), options(busy, reply, upload), Fault::None);
        let done = scene.run(Duration::from_millis(300));
        assert!(done.replies >= u64::from(busy) * 3, "{busy} x {reply}, {upload}: {done:?}");
        assert_eq!((done.errors(), done.requests), (0, done.replies), "{done:?}");
        let tcp = scene.north.counters();
        assert_eq!(
            (tcp.retransmissions, tcp.fast_retransmissions, tcp.out_of_order, tcp.stray),
            (0, 0, 0, 0),
            "{tcp:?}"
        );
        assert_eq!(scene.south.app().counters().errors(), 0);
    }
}

#[test]
fn requests_and_replies_ride_with_the_acknowledgments() {
    let mut scene = Scene::new(1, clean(), options(10, 60, 0), Fault::None);
    let done = scene.run(Duration::from_millis(100));
    assert!(done.replies > 1000);
    // The handshake's, and the last reply's.
    assert!(scene.north.counters().bare_acks <= 20, "{:?}", scene.north.counters());
    assert_eq!(scene.south.counters().bare_acks, 0);
}

#[test]
fn connections_for_one_request_each_leave_nothing_behind() {
    let mut scene =
        Scene::new(1, clean(), blast::ClientOptions { close: true, ..options(20, 60, 0) }, Fault::ServerCloses);
    let done = scene.run(Duration::from_millis(300));
    assert!(done.replies > 1000, "{done:?}");
    assert_eq!((done.errors(), done.requests), (0, done.replies), "{done:?}");
    let (north, south) = (scene.north.counters(), scene.south.counters());
    assert_eq!((north.opened, north.closed, north.reset), (done.replies, done.replies, 0), "{north:?}");
    assert_eq!((south.opened, south.closed), (done.replies, done.replies), "{south:?}");
    assert_eq!((scene.north.live(), scene.south.live()), (0, 0));
}

#[test]
fn loss_reordering_and_duplication_hang_nothing_and_spoil_nothing() {
    for seed in 0..4 {
        for (busy, reply, upload, close) in
            [(20, 60, 0, false), (20, 20000, 0, false), (8, 60, 200_000, false), (20, 60, 0, true)]
        {
            let path = PathOptions {
                loss: 0.02,
                duplication: 0.01,
                reordering: 0.02,
                corruption: 0.005,
                jitter: Duration::from_micros(20),
                ..clean()
            };
            let fault = if close { Fault::ServerCloses } else { Fault::None };
            let mut scene =
                Scene::new(seed, path, blast::ClientOptions { close, ..options(busy, reply, upload) }, fault);
            let done = scene.run(Duration::from_secs(1));
            assert!(
                done.replies > 200,
                "seed {seed}, {reply}, {upload}, {close}: {done:?} {:?}",
                scene.north.counters()
            );
            assert_eq!((done.errors(), done.requests), (0, done.replies), "seed {seed}, {close}: {done:?}");
            assert!(scene.north.counters().retransmissions + scene.south.counters().retransmissions > 0);
        }
    }
}

#[test]
fn what_the_host_loses_by_itself_is_sent_again_at_once() {
    // Nothing waits for a timer where enough follows what was lost.
    for (reply, upload, timers) in [(1 << 20, 0, 20), (60, 1 << 20, 60)] {
        let slow = blast::ClientOptions { timeout: 2_000_000_000, ..options(4, reply, upload) };
        let mut scene = Scene::lossy(3, clean(), slow, Fault::None, 0.01);
        let done = scene.run(Duration::from_secs(1));
        assert_eq!((done.errors(), done.requests), (0, done.replies), "{done:?}");
        let (north, south) = (scene.north.counters(), scene.south.counters());
        assert!(north.lost_in > 100 && north.lost_out > 100, "{north:?}");
        let (fast, slow) =
            (north.fast_retransmissions + south.fast_retransmissions, north.retransmissions + south.retransmissions);
        assert!(
            fast > 100 && slow * timers < fast * 10,
            "{fast} by acknowledgments, {slow} by timers: {north:?} {south:?}"
        );
        // One segment for each that was lost, or nearly: the receiver kept what followed.
        assert!(fast < 2 * (north.lost_in + north.lost_out), "{north:?} {south:?}");
    }
}

#[test]
fn large_segments_travel_whole() {
    for (reply, upload) in [(1 << 20, 0), (60, 1 << 20), (100_000, 100_000)] {
        let mut scene = Scene::large(options(4, reply, upload));
        let done = scene.run(Duration::from_millis(40));
        assert!(done.replies > 30, "{done:?}");
        assert_eq!((done.errors(), done.requests), (0, done.replies), "{done:?}");
        let (north, south) = (scene.north.lane().counters(), scene.south.lane().counters());
        let bytes = (reply + upload as u64) * done.replies;
        assert!(north.tx_packets + south.tx_packets < bytes / 10_000, "{bytes} bytes in {north:?} {south:?}");
    }
}

#[test]
fn a_run_goes_on_after_a_pause_on_the_same_connections() {
    let paths = ["/n/r00000/", "/n/r00001/"].map(|path| Message::request("gateway", path, &[], 0, false));
    let mut scene =
        Scene::new(1, clean(), blast::ClientOptions { requests: paths.into(), ..options(5, 60, 0) }, Fault::None);
    scene.north.app_mut().requests(1);
    let first = scene.run(Duration::from_millis(20));
    let measured = scene.north.app_mut().take_measured();
    assert!(measured.replies > 100 && measured.latency.max() < 1_000_000, "{measured:?}");
    scene.north.app_mut().requests(2);
    scene.north.app_mut().resume();
    let second = scene.run(Duration::from_millis(20));
    // What it waited for, a request did not.
    let again = scene.north.app().measured();
    assert!(again.replies > 100 && again.latency.max() < 1_000_000, "{again:?}");
    assert!(second.replies > first.replies + 100, "{first:?} {second:?}");
    assert_eq!((second.errors(), second.requests), (0, second.replies), "{second:?}");
    assert_eq!(scene.north.counters().opened, 5);
}

#[test]
fn what_was_disturbed_is_told_apart() {
    let mut scene = Scene::new(1, clean(), options(5, 60, 0), Fault::None);
    scene.north.app_mut().disturbed(25_000_000);
    scene.run(Duration::from_millis(50));
    let measured = scene.north.app().measured();
    let (all, undisturbed) = (measured.latency.len(), measured.undisturbed.len());
    assert!(all * 4 < undisturbed * 10 && undisturbed * 10 < all * 6, "{undisturbed} of {all}");
}

#[test]
fn what_piles_up_while_the_generator_stands_still_is_told_apart_too() {
    let open = blast::ClientOptions { rate: Some(10_000.0), ..options(5, 60, 0) };
    let mut scene = Scene::new(1, clean(), open, Fault::Pause { from: 20_000_000, to: 40_000_000 });
    let done = scene.run(Duration::from_millis(100));
    assert_eq!(done.errors(), 0, "{done:?}");
    let measured = scene.north.app().measured();
    assert!(measured.latency.max() > 19_000_000, "{} ns", measured.latency.max());
    assert!(measured.undisturbed.max() < 200_000, "{} ns", measured.undisturbed.max());
    let (all, undisturbed) = (measured.latency.len(), measured.undisturbed.len());
    assert!(undisturbed * 10 > all * 7 && undisturbed * 10 < all * 8, "{undisturbed} of {all}");
}

#[test]
fn an_open_loop_keeps_its_rate_and_its_latency_counts_from_the_due_time() {
    let open = blast::ClientOptions { rate: Some(10_000.0), ..options(50, 60, 0) };
    let mut scene = Scene::new(1, clean(), open, Fault::None);
    let done = scene.run(Duration::from_millis(500));
    assert!((4_900..=5_010).contains(&done.replies), "{done:?}");
    let quick = scene.north.app().measured().latency.value_at_quantile(0.99);
    assert!(quick < 200_000, "{quick} ns");

    // The backend stalls for 100 ms: what was due meanwhile has waited, although few requests were sent into the stall.
    let open = blast::ClientOptions { rate: Some(10_000.0), ..options(5, 60, 0) };
    let mut scene = Scene::new(1, clean(), open, Fault::Stall { from: 200_000_000, to: 300_000_000 });
    let done = scene.run(Duration::from_millis(500));
    assert_eq!(done.errors(), 0, "{done:?}");
    let latency = &scene.north.app().measured().latency;
    assert!(latency.count_between(20_000_000, 110_000_000) > 700, "{}", latency.count_between(20_000_000, 110_000_000));
}

#[test]
fn idle_connections_are_opened_first_and_held() {
    let with_idle = blast::ClientOptions { idle: 1000, ..options(10, 60, 0) };
    let mut scene = Scene::new(1, clean(), with_idle, Fault::None);
    scene.north.app_mut().hold();
    let done = scene.run(Duration::from_millis(200));
    assert_eq!((done.idle, done.errors()), (1000, 0));
    assert_eq!(scene.north.live(), 1010);
    assert!(done.replies > 2000, "{done:?}");

    // Each is asked once more, and what is gone by then shows.
    scene.south.abort(scene.now(), 5);
    scene.south.abort(scene.now(), 500);
    scene.north.app_mut().check_idle();
    let done = scene.run_on(Duration::from_millis(100));
    assert!(scene.north.app().idle_checked());
    assert_eq!((done.idle, done.idle_refused, done.idle_answered), (1000, 0, 998), "{done:?}");
}

#[test]
fn idle_connections_that_are_refused_are_given_up() {
    let with_idle = blast::ClientOptions { idle: 1000, ..options(10, 60, 0) };
    let mut scene = Scene::new(1, clean(), with_idle, Fault::Few { connections: 400 });
    scene.north.app_mut().hold();
    let done = scene.run(Duration::from_millis(200));
    assert!(scene.north.app().holds());
    assert_eq!(u64::from(done.idle_refused), done.of(Wrong::Connect), "{done:?}");
    assert!(done.idle_refused >= 600 && done.idle + done.idle_refused == 1000, "{done:?}");
}

#[test]
fn what_a_faulty_gateway_does_to_replies_is_seen() {
    for (fault, wrong) in [
        (Fault::Swap, Wrong::Swapped),
        (Fault::Cut, Wrong::Truncated),
        (Fault::CutAndClose, Wrong::Truncated),
        (Fault::CutAndReset, Wrong::Truncated),
        (Fault::Twice, Wrong::Repeated),
        (Fault::TwiceLate, Wrong::Repeated),
        (Fault::Silence, Wrong::Missing),
        (Fault::CloseInstead, Wrong::Missing),
        (Fault::ResetInstead, Wrong::Missing),
        (Fault::Status, Wrong::Status),
        (Fault::Length, Wrong::Length),
        (Fault::Body, Wrong::Body),
        (Fault::SwapBody, Wrong::Body),
        (Fault::Rubbish, Wrong::Malformed),
        (Fault::Nonce, Wrong::Swapped),
        (Fault::OneMore, Wrong::Unasked),
        (Fault::OneLess, Wrong::Body),
        (Fault::Refuse, Wrong::Connect),
    ] {
        let mut scene = Scene::new(1, clean(), options(10, 3000, 0), fault);
        let done = scene.run(Duration::from_millis(400));
        let (count, others) = (done.of(wrong), done.errors() - done.of(wrong));
        assert!(count > 0, "{fault:?}: {done:?}");
        assert_eq!(others, 0, "{fault:?} is {wrong:?} and nothing else: {done:?}");
        if fault != Fault::Refuse {
            assert!(done.replies > 100, "{fault:?}: the rest goes on: {done:?}");
            assert_eq!(done.requests, done.replies + count - fault.extra(count), "{fault:?}: {done:?}");
        }
    }
}
