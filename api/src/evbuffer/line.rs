//! Lines, under libevent's five ideas of where one ends.

use super::{Edge, Evbuffer};

/// What ends a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eol {
    /// Any sequence of CR and LF, as long as it is at that moment.
    Any,
    /// LF, with a CR before it if there is one.
    Crlf,
    /// CR LF, nothing else.
    CrlfStrict,
    /// LF.
    Lf,
    /// A zero byte.
    Nul,
}

impl Evbuffer {
    /// Removes a line and its end; gives the line without its end, or `None` while no end has
    /// come (or the start is frozen).
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, evbuffer::Eol};
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"one\r\ntwo\nthr");
    /// assert_eq!(buffer.readln(Eol::Crlf).as_deref(), Some(&b"one"[..]));
    /// assert_eq!(buffer.readln(Eol::Crlf).as_deref(), Some(&b"two"[..]));
    /// assert_eq!(buffer.readln(Eol::Crlf), None);
    /// assert_eq!(buffer.len(), 3);
    /// ```
    pub fn readln(&mut self, eol: Eol) -> Option<Vec<u8>> {
        if self.is_frozen(Edge::Start) {
            return None;
        }
        let (at, ends) = self.search_eol(0, eol)?;
        let mut line = vec![0; at];
        self.copyout(&mut line);
        self.drain(at + ends);
        Some(line)
    }

    /// Where the first line end at or behind `from` begins, and how long it is. It does not see
    /// behind a file range.
    ///
    /// ```
    /// # use ringlane_api::{Evbuffer, evbuffer::Eol};
    /// let mut buffer = Evbuffer::new();
    /// buffer.add(b"ab\r\n\r\n");
    /// assert_eq!(buffer.search_eol(0, Eol::Crlf), Some((2, 2)));
    /// assert_eq!(buffer.search_eol(0, Eol::Lf), Some((3, 1)));
    /// assert_eq!(buffer.search_eol(0, Eol::Any), Some((2, 4)));
    /// assert_eq!(buffer.search_eol(0, Eol::Nul), None);
    /// ```
    pub fn search_eol(&self, from: usize, eol: Eol) -> Option<(usize, usize)> {
        match eol {
            Eol::Any => {
                let is = |byte| byte == b'\r' || byte == b'\n';
                let at = self.find_from(from, is)?;
                let past = self.find_from(at, |byte| !is(byte));
                Some((at, past.unwrap_or_else(|| self.readable_len()) - at))
            }
            Eol::Crlf => {
                let at = self.find_from(from, |byte| byte == b'\n')?;
                // What lies before `from` does not count, a CR no more than anything else.
                let cr = at > from && self.search_range(b"\r", at - 1, at).is_some();
                Some(if cr { (at - 1, 2) } else { (at, 1) })
            }
            Eol::CrlfStrict => Some((self.search_from(b"\r\n", from)?, 2)),
            Eol::Lf => Some((self.find_from(from, |byte| byte == b'\n')?, 1)),
            Eol::Nul => Some((self.find_from(from, |byte| byte == 0)?, 1)),
        }
    }
}
