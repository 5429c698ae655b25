//! Which known word somebody meant who wrote one that nobody knows.

/// The word of `known` that is nearest to `written`, the first one if several are, or none if all
/// are other words: of those half is different, which is no slip of the fingers.
///
/// ```
/// use ringlane_api::near::nearest;
/// assert_eq!(nearest("rign", ["class", "ring"]), Some("ring"));
/// assert_eq!(nearest("colour", ["class", "ring"]), None);
/// ```
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for word in known {
        let most = written.len().max(word.len()) / 2;
        let most = best.map_or(most, |(typos, _)| most.min(typos.saturating_sub(1)));
        // So many are missing or too many at least.
        if written.len().abs_diff(word.len()) <= most {
            let typos = typos(written, word);
            if typos <= most && best.is_none_or(|(before, _)| typos < before) {
                best = Some((typos, word));
            }
        }
    }
    best.map(|(_, word)| word)
}

/// How many letters are wrong, missing, too many, or swapped with their neighbour.
pub fn typos(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let wrong = rows[i][j] + usize::from(a != b);
            let mut least = wrong.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *b && *a == other[j - 1] {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_fingers_are_counted() {
        for (one, other, count) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "ba", 1),
            ("abc", "abd", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((typos(one, other), typos(other, one)), (count, count), "{one} {other}");
        }
    }

    #[test]
    fn the_nearest_word_is_the_first_of_the_best() {
        assert_eq!(nearest("nodse", ["name", "nodes", "modes"]), Some("nodes"));
        assert_eq!(nearest("db3", ["db1", "db2"]), Some("db1"));
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("ring", ["ring"]), Some("ring"));
        assert_eq!(nearest("", []), None);
    }
}
