//! Without the feature `crash-points` nobody can be killed at a point.

pub fn every_step() {
    println!("  skipped: the feature crash-points is off");
}

pub fn arm(point: &str, _nth: &str) {
    panic!("there is no {point} without the feature crash-points");
}
