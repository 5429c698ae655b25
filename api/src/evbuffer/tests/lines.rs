//! Searching and line ends: a table of texts, each cut into segments in every possible way, each
//! answer compared with one computed on the text itself.

use super::*;

/// Short texts with every neighbourhood of CR, LF and NUL that the styles tell apart.
const TEXTS: [&[u8]; 17] = [
    b"",
    b"a",
    b"\n",
    b"\r",
    b"\0",
    b"\r\n",
    b"\n\r",
    b"ab\n",
    b"a\r\nb",
    b"\r\r\n",
    b"a\rb\n",
    b"\r\n\r\n",
    b"a\n\nb\r",
    b"\0\r\n\0",
    b"\r\n\n\ra",
    b"aabaab",
    b"aaaaab",
];

const STYLES: [Eol; 5] = [Eol::Any, Eol::Crlf, Eol::CrlfStrict, Eol::Lf, Eol::Nul];

/// The text in segments, cut wherever `cuts` has a bit, of kinds that rotate from `kind`.
fn cut(text: &[u8], cuts: u32, kind: usize, home: &Rc<Home>) -> Evbuffer {
    let mut buffer = Evbuffer::new();
    let mut start = 0;
    for end in 1..=text.len() {
        if end == text.len() || cuts >> (end - 1) & 1 == 1 {
            let kind = (kind + buffer.segments().len()) % KINDS;
            buffer.push(segment(kind, &text[start..end], home));
            start = end;
        }
    }
    buffer
}

fn every_cut(text: &[u8], mut check: impl FnMut(Evbuffer)) {
    let home = Home::new(64, 16);
    for cuts in 0..1u32 << text.len().saturating_sub(1) {
        check(cut(text, cuts, cuts as usize, &home));
    }
}

/// libevent's five styles, said on a slice.
pub(super) fn eol_oracle(text: &[u8], from: usize, eol: Eol) -> Option<(usize, usize)> {
    let seen = text.get(from..)?;
    let position = |wanted: u8| seen.iter().position(|byte| *byte == wanted);
    let (at, ends) = match eol {
        Eol::Any => {
            let at = seen.iter().position(|byte| b"\r\n".contains(byte))?;
            (at, seen[at..].iter().take_while(|byte| b"\r\n".contains(byte)).count())
        }
        Eol::Crlf => match position(b'\n')? {
            at if at > 0 && seen[at - 1] == b'\r' => (at - 1, 2),
            at => (at, 1),
        },
        Eol::CrlfStrict => (seen.windows(2).position(|two| two == b"\r\n")?, 2),
        Eol::Lf => (position(b'\n')?, 1),
        Eol::Nul => (position(0)?, 1),
    };
    Some((from + at, ends))
}

pub(super) fn search_oracle(text: &[u8], what: &[u8], from: usize, to: usize) -> Option<usize> {
    (from..=to.min(text.len()))
        .find(|at| at + what.len() <= to.min(text.len()) && text[*at..].starts_with(what))
}

#[test]
fn a_line_end_is_found_wherever_the_text_is_cut() {
    for text in TEXTS {
        every_cut(text, |buffer| {
            for eol in STYLES {
                for from in 0..text.len() + 2 {
                    let expected = eol_oracle(text, from, eol);
                    assert_eq!(buffer.search_eol(from, eol), expected, "{text:?} {eol:?} {from}");
                }
            }
        });
    }
}

#[test]
fn the_lines_and_what_is_left_are_the_text_again_wherever_it_is_cut() {
    for text in TEXTS {
        for eol in STYLES {
            every_cut(text, |mut buffer| {
                let mut rest = text;
                while let Some((at, ends)) = eol_oracle(rest, 0, eol) {
                    assert_eq!(buffer.readln(eol).as_deref(), Some(&rest[..at]), "{text:?}");
                    rest = &rest[at + ends..];
                }
                assert_eq!(buffer.readln(eol), None, "{text:?} {eol:?}");
                assert!(buffer == *rest, "{text:?} {eol:?}");
            });
        }
    }
}

#[test]
fn a_pattern_is_found_inside_its_range_wherever_the_text_is_cut() {
    let patterns: [&[u8]; 8] =
        [b"", b"a", b"ab", b"aab", b"\r\n", b"\n\r\n", b"aaaaab", b"aaaaabb"];
    for text in TEXTS {
        every_cut(text, |buffer| {
            for what in patterns {
                for from in 0..text.len() + 2 {
                    for to in (0..text.len() + 2).chain([usize::MAX]) {
                        let expected = search_oracle(text, what, from, to);
                        let found = buffer.search_range(what, from, to);
                        assert_eq!(found, expected, "{what:?} in {text:?} {from}..{to}");
                    }
                }
            }
        });
    }
}

#[test]
fn any_ends_with_what_has_come_so_the_rest_of_a_late_end_is_an_empty_line() {
    let mut buffer = Evbuffer::from(&b"a\r"[..]);
    assert_eq!(buffer.readln(Eol::Any).as_deref(), Some(&b"a"[..]));
    buffer.add(b"\nb");
    assert_eq!(buffer.readln(Eol::Any).as_deref(), Some(&b""[..]));
    assert_eq!(buffer, b"b");
}

#[test]
fn a_search_finds_its_byte_at_every_place_of_a_long_segment() {
    for at in [0, 1, 62, 63, 64, 65, 127, 128, 1000] {
        let mut text = vec![b'.'; 1001];
        text[at] = b'\n';
        let mut buffer = Evbuffer::new();
        buffer.add_reference(text);
        assert_eq!(buffer.search(b"\n"), Some(at));
        assert_eq!(buffer.search_eol(at, Eol::Lf), Some((at, 1)));
        assert_eq!(buffer.search_from(b"\n", at + 1), None);
    }
}
