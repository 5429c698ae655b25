//! The files of the tree, as the laws see them.
//!
//! Invariant: a mask has the bytes and the lines of the text it was made from, with blanks where
//! something was masked, so that an offset in one is the same place in the other.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A text file of the tree.
pub struct Source {
    /// From the root of the workspace, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
    /// Without comments and without what stands in quotes.
    pub code: String,
}

/// A function that has a body.
pub struct Function {
    pub name: String,
    /// The line of its `fn`, from 1.
    pub line: usize,
    pub lines: usize,
    pub body: Range<usize>,
}

/// All files of the workspace whose name ends so, sorted by path.
pub fn tree(ending: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(root, ending, &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no file ends with {ending} under {}", root.display());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("the tree is text");
        let path = path.strip_prefix(root).expect("the walk began at the root");
        Source { path: path.display().to_string(), code: mask(&text, Mask::Quotes), text }
    };
    paths.into_iter().map(read).collect()
}

fn walk(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    // Cargo marks what it builds into with this file.
    if dir.join("CACHEDIR.TAG").exists() {
        return;
    }
    for entry in fs::read_dir(dir).expect("a directory of the tree") {
        let entry = entry.expect("an entry of the tree");
        let name = entry.file_name().into_string().expect("names are UTF-8");
        let kind = entry.file_type().expect("what an entry is");
        if kind.is_dir() && !name.starts_with('.') && name != "target" {
            walk(&entry.path(), ending, found);
        } else if kind.is_file() && name.ends_with(ending) {
            found.push(entry.path());
        }
    }
}

impl Source {
    /// Whether it is compiled for tests only. The kit is a library and held to its laws.
    pub fn is_test(&self) -> bool {
        let test = |part: &str| part == "tests" || part == "tests.rs";
        self.path.split('/').any(test) && !self.path.starts_with("tests/kit/src/")
    }

    /// Whether it measures or shows, and is not part of the product.
    pub fn is_beside(&self) -> bool {
        self.path.starts_with("benches/") || self.path.starts_with("examples/")
    }

    /// The line of an offset, from 1.
    pub fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// Where one of these stands in the code and is not part of a longer word.
    pub fn finds<'a>(&'a self, needles: &'a [&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
        let of = |&needle: &&'a str| words(&self.code, needle).map(move |at| (at, needle));
        needles.iter().flat_map(of)
    }

    /// The same without what stands in `#[cfg(test)]` modules.
    pub fn finds_untested<'a>(
        &'a self,
        needles: &'a [&'a str],
    ) -> impl Iterator<Item = (usize, &'a str)> {
        let tests = self.test_modules();
        self.finds(needles).filter(move |(at, _)| !tests.iter().any(|range| range.contains(at)))
    }

    fn test_modules(&self) -> Vec<Range<usize>> {
        let body = |(at, _)| block(&self.code, at).filter(|_| !self.is_test());
        self.finds(&["#[cfg(test)]"]).filter_map(body).collect()
    }

    /// Every function that has a body, in order.
    pub fn functions(&self) -> Vec<Function> {
        let function = |at: usize| {
            let rest = self.code[at + 2..].strip_prefix(' ')?;
            let name: String = rest.chars().take_while(|&c| is_word(c)).collect();
            let body = block(&self.code, at)?;
            let line = self.line(at);
            Some(Function { name, line, lines: self.line(body.end - 1) - line + 1, body })
        };
        words(&self.code, "fn").filter_map(function).collect()
    }

    /// The function around an offset, the innermost one.
    pub fn function_at(&self, at: usize) -> Option<Function> {
        self.functions().into_iter().rfind(|function| function.body.contains(&at))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `needle` stands and is not part of a longer word.
pub fn words<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let whole = move |&at: &usize| {
        let open = |c: char| !is_word(c);
        let (first, last) = (needle.starts_with(is_word), needle.ends_with(is_word));
        (!first || code[..at].chars().next_back().is_none_or(open))
            && (!last || code[at + needle.len()..].chars().next().is_none_or(open))
    };
    code.match_indices(needle).map(|(at, _)| at).filter(whole)
}

/// The first `{…}` behind `at`, unless the item ends before it.
fn block(code: &str, at: usize) -> Option<Range<usize>> {
    let mut depth = 0_usize;
    let mut open = None;
    for (i, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => {
                open = Some(i);
                break;
            }
            _ => {}
        }
    }
    let open = open?;
    let mut nested = 0_usize;
    for (i, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => nested += 1,
            b'}' if nested == 1 => return Some(open..i + 1),
            b'}' => nested -= 1,
            _ => {}
        }
    }
    None
}

/// What a mask blanks.
#[derive(Clone, Copy, PartialEq)]
pub enum Mask {
    /// Comments.
    Comments,
    /// Comments, strings and characters.
    Quotes,
}

/// `text` with blanks where `what` stood.
pub fn mask(text: &str, what: Mask) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (length, comment) = piece(&bytes[at..], at > 0 && is_word(bytes[at - 1] as char));
        if let Some(comment) = comment
            && (comment || what == Mask::Quotes)
        {
            let blank = |byte: &mut u8| *byte = if *byte == b'\n' { b'\n' } else { b' ' };
            out[at..at + length].iter_mut().for_each(blank);
        }
        at += length;
    }
    String::from_utf8(out).expect("a character is blanked whole or not at all")
}

/// How long the next piece is, and whether it is a comment (true), a literal (false) or code.
fn piece(rest: &[u8], in_word: bool) -> (usize, Option<bool>) {
    let until = |from: usize, end: &[u8]| {
        let found = rest[from..].windows(end.len()).position(|window| window == end);
        found.map_or(rest.len(), |i| from + i + end.len())
    };
    match rest {
        [b'/', b'/', ..] => (until(0, b"\n"), Some(true)),
        [b'/', b'*', ..] => (until(2, b"*/"), Some(true)),
        [b'"', ..] => (quoted(rest, b'"'), Some(false)),
        [b'\'', b'\\', ..] => (quoted(rest, b'\''), Some(false)),
        [b'\'', ..] => {
            // A character has up to four bytes; what has no second quote behind it is a lifetime.
            let character = |&end: &usize| {
                rest.get(end) == Some(&b'\'')
                    && str::from_utf8(&rest[1..end]).is_ok_and(|text| text.chars().count() == 1)
            };
            (2..=5).find(character).map_or((1, None), |end| (end + 1, Some(false)))
        }
        [b'r', ..] | [b'b' | b'c', b'r', ..] if !in_word => {
            let prefix = if rest[0] == b'r' { 1 } else { 2 };
            let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
            if rest.get(prefix + hashes) != Some(&b'"') {
                return (1, None);
            }
            let end = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            (until(prefix + hashes + 1, &end), Some(false))
        }
        _ => (1, None),
    }
}

fn quoted(rest: &[u8], end: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != end {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}
