//! The fields of a body, one after the other, and the few shapes they have.

use super::{NAME_BYTES_MAX, STAMPS_MAX, TEXT_BYTES_MAX};

/// Whether `name` may be the name of a node or a host on the wire: 1 to [`NAME_BYTES_MAX`] bytes
/// of UTF-8 without blanks and control characters.
///
/// ```
/// use ringlane::frame::is_name;
/// assert!(is_name("login") && is_name("db@b"));
/// assert!(!is_name("") && !is_name("two words") && !is_name(&"x".repeat(65)));
/// ```
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// What is left of a body.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.array()
    }

    pub fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn str(&mut self) -> Option<&'a str> {
        let len = self.u8()?;
        let (text, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        str::from_utf8(text).ok()
    }

    pub fn name(&mut self) -> Option<&'a str> {
        self.str().filter(|name| is_name(name))
    }

    /// A sentence that may go into a log as it is.
    pub fn text(&mut self) -> Option<&'a str> {
        self.str().filter(|text| !text.chars().any(char::is_control))
    }

    pub fn stamps(&mut self) -> Option<Stamps<'a>> {
        let count = self.u8().filter(|&count| usize::from(count) <= STAMPS_MAX)?;
        let all = self.0;
        for _ in 0..count {
            self.name()?;
            self.u64()?;
        }
        Some(Stamps { bytes: &all[..all.len() - self.0.len()], count })
    }
}

/// Appends a name.
pub(crate) fn put_name(out: &mut Vec<u8>, name: &str) {
    assert!(is_name(name), "{name:?}: names are checked where they come from");
    put_str(out, name);
}

/// Appends a sentence, cut to what fits and without control characters.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|&end| text.is_char_boundary(end));
    let text = &text[..end.unwrap_or(0)];
    if text.chars().any(char::is_control) {
        let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        // A control character may have two bytes, a blank has one: it still fits.
        put_str(out, &plain.collect::<String>());
    } else {
        put_str(out, text);
    }
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    let len = u8::try_from(text.len()).expect("its length was bounded");
    out.push(len);
    out.extend_from_slice(text.as_bytes());
}

/// The stations a probe has passed, and the nanoseconds it spent at or behind each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamps<'a> {
    /// Checked: `count` times a name and a number.
    pub(super) bytes: &'a [u8],
    pub(super) count: u8,
}

impl<'a> Stamps<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One after the other.
    ///
    /// ```
    /// use ringlane::frame::StampList;
    /// let mut list = StampList::new();
    /// list.push("a", 1200);
    /// assert_eq!(list.stamps().iter().collect::<Vec<_>>(), [("a", 1200)]);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
        let mut fields = Fields(self.bytes);
        std::iter::from_fn(move || Some((fields.name()?, fields.u64()?)))
    }
}
