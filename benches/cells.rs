//! Criterion benches of our own cells: our rates, and regressions of them. For ratios to others
//! see `versus.rs`.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlane::prelude::*;
use ringlane::reactor::{Config, Engine};
use ringlane_api::segment::{Home, Lease, Segment};
use ringlane_api::wheel::Wheel;

const BLOCK_BYTES: usize = 16 << 10;

fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    let home = Home::new(BLOCK_BYTES, 64);
    group.bench_function("take and drop a block", |b| b.iter(|| black_box(home.take())));
    group.bench_function("lift and lower a block", |b| {
        let mut block = home.take();
        b.iter(|| {
            let mem = black_box(block.lift());
            block.lower(mem);
        });
    });
    let lease = Lease::new(8);
    group.bench_function("a received block charged and dropped", |b| {
        b.iter(|| {
            let mut segment = Segment::from_block(home.take(), 64);
            segment.charge(&lease);
            black_box(segment)
        });
    });
    let spent = Lease::new(0);
    group.bench_function("a received block copied out past its lease", |b| {
        b.iter(|| {
            let mut segment = Segment::from_block(home.take(), 64);
            segment.charge(&spent);
            black_box(segment)
        });
    });
    group.bench_function("split 64 B off a block, advance the rest", |b| {
        b.iter(|| {
            let mut segment = Segment::from_block(home.take(), BLOCK_BYTES);
            let front = segment.split_front(64);
            segment.advance(64);
            black_box((front, segment))
        });
    });
    group.bench_function("extend a segment by 64 B", |b| {
        let mut segment = Segment::from_block(home.take(), 0);
        b.iter(|| {
            if segment.extend_from(black_box(&[7; 64])) == 0 {
                segment.truncate(0);
            }
        });
    });
    group.finish();
}

/// A received block's way through an echo's two buffers, without the kernel.
fn evbuffers(c: &mut Criterion) {
    let mut group = c.benchmark_group("evbuffer");
    let home = Home::new(BLOCK_BYTES, 64);
    let (mut input, mut output) = (Evbuffer::default(), Evbuffer::default());
    group.bench_function("push a block, append to another, pop it", |b| {
        b.iter(|| {
            input.push(Segment::from_block(home.take(), 64));
            output.append(&mut input);
            black_box(output.pop_front())
        });
    });
    for len in [64, 1024, BLOCK_BYTES] {
        let bytes = vec![7; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("add and drain {len} B"), |b| {
            b.iter(|| {
                output.add_in(&home, black_box(&bytes));
                output.drain(len)
            });
        });
    }
    let mut lines = Evbuffer::default();
    group.throughput(Throughput::Elements(1));
    group.bench_function("add a line of 80 B and read it", |b| {
        let line = [&[b'x'; 78][..], b"\r\n"].concat();
        b.iter(|| {
            lines.add(black_box(&line));
            black_box(lines.readln(Eol::Crlf))
        });
    });
    group.finish();
}

/// Idle timeouts of many links: put off at each message, hardly ever reached.
fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    let start = Instant::now();
    let mut wheel: Wheel<u32> = Wheel::new(start);
    for link in 0..5000 {
        wheel.add(start + Duration::from_secs(60), link);
    }
    group.bench_function("add and cancel beside 5000 others", |b| {
        b.iter(|| {
            let id = wheel.add(start + Duration::from_secs(30), 7);
            wheel.cancel(black_box(id))
        });
    });
    group.bench_function("ask for the next deadline", |b| {
        b.iter(|| black_box(wheel.next_deadline()));
    });
    let (mut now, mut fired) = (start, Vec::new());
    group.bench_function("a timer of 1 ms added and fired", |b| {
        let mut wheel: Wheel<u32> = Wheel::new(start);
        b.iter(|| {
            wheel.add(now, 7);
            now += Duration::from_millis(2);
            wheel.advance(now, &mut fired);
            fired.clear();
        });
    });
    group.finish();
}

/// There and back over a socketpair, both ends in one base: two messages through everything.
fn echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo over a pair");
    for engine in [Engine::Uring, Engine::Epoll] {
        let config = Config { engine, ..Config::default() };
        let Ok(base) = EventBase::with_config(&config) else {
            println!("{engine:?} is refused here: left out");
            continue;
        };
        for len in [64, BLOCK_BYTES] {
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(format!("{} {len} B", base.report().engine), |b| {
                let back = Rc::new(Cell::new(0));
                let (near, far) = base.pair().expect("a socketpair can be had");
                far.on_read(|far| far.output().append(far.input()));
                far.enable(READ);
                let count = Rc::clone(&back);
                near.on_read(move |near| {
                    let input = near.input();
                    count.set(count.get() + input.len());
                    input.drain(input.len());
                });
                near.enable(READ);
                let bytes = vec![7; len];
                b.iter(|| {
                    back.set(0);
                    near.output().add(&bytes);
                    while back.get() < len {
                        base.turn(Turn::Wait).expect("the base turns");
                    }
                });
                near.abort();
                far.abort();
            });
        }
    }
    group.finish();
}

criterion_group!(cells, segments, evbuffers, timers, echo);
criterion_main!(cells);
