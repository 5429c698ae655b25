//! Finding bytes, whatever segments they lie in.

use super::Evbuffer;

/// Bytes looked at together; a width that the compiler turns into vector compares.
const STRIDE: usize = 64;

impl Evbuffer {
    /// Where `pattern` lies first; it does not see behind a file range. An empty pattern lies at
    /// the start.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"key: value");
    /// assert_eq!(buffer.search(b": "), Some(3));
    /// assert_eq!(buffer.search(b"no"), None);
    /// ```
    pub fn search(&self, pattern: &[u8]) -> Option<usize> {
        self.search_range(pattern, 0, usize::MAX)
    }

    /// Where `pattern` lies first at or behind `from`.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"a,b,c");
    /// assert_eq!(buffer.search_from(b",", 2), Some(3));
    /// ```
    pub fn search_from(&self, pattern: &[u8], from: usize) -> Option<usize> {
        self.search_range(pattern, from, usize::MAX)
    }

    /// Where `pattern` lies first with all of its bytes inside `from..to`.
    ///
    /// ```
    /// # use ringlane_api::Evbuffer;
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"a--b--");
    /// assert_eq!(buffer.search_range(b"--", 2, 6), Some(4));
    /// assert_eq!(buffer.search_range(b"--", 2, 5), None);
    /// ```
    pub fn search_range(&self, pattern: &[u8], from: usize, to: usize) -> Option<usize> {
        let Some(&first) = pattern.first() else {
            return (from <= to.min(self.readable_len())).then_some(from);
        };
        // Behind this a match would not end in time.
        let starts_end = to.checked_sub(pattern.len())?.saturating_add(1);
        let mut slices = self.readable();
        let mut base = 0;
        while let Some(slice) = slices.next() {
            let mut at = from.saturating_sub(base).min(slice.len());
            let end = starts_end.saturating_sub(base).min(slice.len());
            while at < end
                && let Some(hit) = find(&slice[at..end], |byte| byte == first)
            {
                at += hit;
                if continues(&slice[at..], slices.clone(), pattern) {
                    return Some(base + at);
                }
                at += 1;
            }
            base += slice.len();
            if base >= starts_end {
                break;
            }
        }
        None
    }

    /// Where the first byte at or behind `from` lies that `is` says yes to.
    pub(super) fn find_from(&self, from: usize, is: impl Fn(u8) -> bool + Copy) -> Option<usize> {
        let mut base = 0;
        for slice in self.readable() {
            let at = from.saturating_sub(base).min(slice.len());
            if let Some(hit) = find(&slice[at..], is) {
                return Some(base + at + hit);
            }
            base += slice.len();
        }
        None
    }

    /// Bytes in front of the first file range.
    pub(super) fn readable_len(&self) -> usize {
        self.readable().map(<[u8]>::len).sum()
    }
}

/// Whether `slice` and the slices behind it begin with `pattern`.
fn continues<'a>(
    mut slice: &'a [u8],
    mut slices: impl Iterator<Item = &'a [u8]>,
    mut pattern: &[u8],
) -> bool {
    loop {
        let n = slice.len().min(pattern.len());
        if slice[..n] != pattern[..n] {
            return false;
        }
        pattern = &pattern[n..];
        if pattern.is_empty() {
            return true;
        }
        let Some(next) = slices.next() else { return false };
        slice = next;
    }
}

fn find(slice: &[u8], is: impl Fn(u8) -> bool + Copy) -> Option<usize> {
    for (i, stride) in slice.chunks(STRIDE).enumerate() {
        // No early way out, so that the compiler can compare a whole vector at once.
        if stride.iter().fold(false, |any, byte| any | is(*byte)) {
            let hit = stride.iter().position(|byte| is(*byte)).expect("the fold saw it");
            return Some(i * STRIDE + hit);
        }
    }
    None
}
