//! Every interleaving of a producer and a consumer on a small ring: nothing is lost, doubled, overtaken or read before it was written.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p spsc --test model`
#![cfg(loom)]

use loom::thread;
use spsc::{Bell, ring};

#[test]
fn items_arrive_in_order_through_a_ring_that_wraps() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let writer = thread::spawn(move || {
            let mut pushed = 0;
            // The ring holds two: the third goes in only after room came back.
            for item in 0..3u32 {
                if producer.push(item).is_err() {
                    break;
                }
                pushed += 1;
                producer.publish();
            }
            pushed
        });
        let mut next = 0;
        for _ in 0..3 {
            if let Some(item) = consumer.pop() {
                assert_eq!(item, next);
                next += 1;
                consumer.release();
            }
        }
        let pushed = writer.join().unwrap();
        while let Some(item) = consumer.pop() {
            assert_eq!(item, next);
            next += 1;
        }
        assert_eq!(next, pushed);
        assert!(pushed >= 2);
    });
}

#[test]
fn what_is_left_is_dropped_whoever_goes_first() {
    loom::model(|| {
        let item = loom::sync::Arc::new(());
        let (mut producer, mut consumer) = ring(2);
        let (first, second) = (item.clone(), item.clone());
        let writer = thread::spawn(move || {
            assert!(producer.push(first).is_ok());
            producer.publish();
            // Not published: the drop does it.
            assert!(producer.push(second).is_ok());
        });
        drop(consumer.pop());
        drop(consumer);
        writer.join().unwrap();
        assert_eq!(loom::sync::Arc::strong_count(&item), 1);
    });
}

#[test]
fn who_lies_down_and_looks_once_more_is_rung_for_or_finds_it() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let bell = loom::sync::Arc::new((Bell::new(), loom::sync::Notify::new()));
        let theirs = bell.clone();
        let writer = thread::spawn(move || {
            assert!(producer.push(7u32).is_ok());
            producer.publish();
            if theirs.0.must_ring() {
                theirs.1.notify();
            }
        });
        // A wait may end for nothing, as a sleep may: then it lies down anew.
        let item = loop {
            bell.0.lie_down();
            if consumer.is_empty() {
                // For ever, if nobody rings: loom calls that a deadlock.
                bell.1.wait();
            }
            bell.0.get_up();
            if let Some(item) = consumer.pop() {
                break item;
            }
        };
        assert_eq!(item, 7);
        writer.join().unwrap();
    });
}
