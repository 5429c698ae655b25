//! Criterion benches of our own cells: our rates, and regressions of them. For ratios to others
//! see `versus.rs`.

#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ringlane_api::segment::{Home, Lease, Segment};

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

criterion_group!(cells, segments);
criterion_main!(cells);
