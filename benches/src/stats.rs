//! Medians, and ratios that are taken inside a round.

/// A median with its spread.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// The median and the ends of `values`; None for none.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let mid = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        0 => f64::midpoint(sorted[mid - 1], sorted[mid]),
        _ => sorted[mid],
    };
    Some(Spread { median, min, max })
}

/// The spread of `ours[round] / peer[round]`.
pub fn ratio(ours: &[f64], peer: &[f64]) -> Option<Spread> {
    let pairs: Vec<f64> = ours.iter().zip(peer).map(|(a, b)| a / b).collect();
    spread(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_inside_each_round_before_the_median() {
        // The machine was slow in round 2: both doubled, the ratio did not move.
        let got = ratio(&[5.0, 10.0, 6.0], &[10.0, 20.0, 10.0]).expect("three rounds");
        assert_eq!(got, Spread { median: 0.5, min: 0.5, max: 0.6 });
        assert_eq!(spread(&[]), None);
    }
}
