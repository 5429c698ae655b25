//! Sizes and durations as people write them: `1MiB`, `500ms`. Read and printed in one place, so
//! that what is printed can be written into the file.

use std::time::Duration;

/// The units of sizes, the largest first. `K`, `KB` and `KiB` are all 1,024, as everywhere in
/// this program.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The units of durations in nanoseconds, the largest first.
const TIMES: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Digits, and the unit behind them.
fn split(text: &str) -> Option<(u64, &str)> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..unit].parse().ok()?;
    Some((number, text[unit..].trim_start()))
}

/// Reads a size.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write it like 64KiB, 1MiB or 4096");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(bytes).ok_or_else(|| format!("`{text}` is more than there can be"))
}

/// Reads a duration.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write it like 500ms, 30s, 5min or 1h");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit = if unit == "m" { "min" } else { unit };
    let (_, nanoseconds) = TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let total = number.checked_mul(*nanoseconds);
    total.map(Duration::from_nanos).ok_or_else(|| format!("`{text}` is longer than a century"))
}

/// A size as it is written, exactly.
///
/// ```
/// assert_eq!(ringlane::cluster::size(1 << 20), "1MiB");
/// assert_eq!(ringlane::cluster::size(1000), "1000B");
/// ```
pub fn size(bytes: u64) -> String {
    with_unit(bytes, &SIZES)
}

/// A duration as it is written, to the nanosecond.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(ringlane::cluster::time(Duration::from_millis(1500)), "1500ms");
/// assert_eq!(ringlane::cluster::time(Duration::from_secs(300)), "5min");
/// ```
pub fn time(duration: Duration) -> String {
    with_unit(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), &TIMES)
}

/// With the largest unit that leaves nothing over.
fn with_unit(number: u64, units: &[(&str, u64)]) -> String {
    if number == 0 {
        return "0".into();
    }
    let whole = units.iter().find(|(_, worth)| number.is_multiple_of(*worth));
    let (unit, worth) = whole.expect("the smallest unit is 1");
    format!("{}{unit}", number / worth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_their_unit_and_print_as_they_are_written() {
        for (text, bytes) in [("1MiB", 1 << 20), ("64KiB", 65536), ("3GiB", 3 << 30), ("7B", 7)] {
            assert_eq!((parse_size(text), size(bytes)), (Ok(bytes), text.to_string()));
        }
        assert_eq!((parse_size("4096"), parse_size("2 m")), (Ok(4096), Ok(2 << 20)));
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("5min", 300_000), ("1h", 3_600_000)]
        {
            let duration = Duration::from_millis(millis);
            assert_eq!((parse_time(text), time(duration)), (Ok(duration), text.to_string()));
        }
        assert_eq!(parse_time("5m"), parse_time("5min"));
    }

    #[test]
    fn what_has_no_number_no_unit_or_too_much_is_refused_with_an_example() {
        for text in ["", "MiB", "1TiB", "-1", "1.5MiB", "1MiBs", "é", "99999999999999999999"] {
            assert!(parse_size(text).is_err_and(|said| said.contains("write it like")), "{text}");
        }
        assert!(parse_size("99999999999GiB").is_err());
        for text in ["", "s", "5", "1d", "soon", "-1s", "1.5s"] {
            assert!(parse_time(text).is_err_and(|said| said.contains("write it like")), "{text}");
        }
        assert!(parse_time("9999999999999h").is_err());
    }
}
