//! Wrong configs: every problem, its place, and what to do.

use super::*;

/// What is said of a text: line, column, what and help of each problem.
fn wrong(text: &str) -> Vec<(usize, usize, String)> {
    let errors = Cluster::parse(text).expect_err("it is wrong");
    let said = |problem: &Problem| {
        let help = problem.help.as_deref().unwrap_or_default();
        (problem.line, problem.column, format!("{} = {help}", problem.what))
    };
    errors.problems().iter().map(said).collect()
}

/// What is said of the smallest file with more under it, if it is one thing.
fn one(more: &str) -> String {
    let found = wrong(&format!("{SMALLEST}{more}"));
    assert_eq!(found.len(), 1, "{more}: {found:#?}");
    found[0].2.clone()
}

#[test]
fn an_unknown_key_is_shown_with_its_place_and_the_nearest_one() {
    let found = wrong(&SMALLEST.replace("nodes = [\"db\"", "nodse = [\"db\""));
    assert_eq!(found, [(12, 1, "unknown key `nodse` in [[host]] = did you mean `nodes`?".into())]);
    assert!(one("[metric]\n").contains("did you mean `metrics`?"));
    assert!(one("[limits]\ncolour = 1\n").contains("it takes processes, processes_per_uid"));
}

#[test]
fn everything_that_is_wrong_is_said_at_once_in_the_order_of_the_lines() {
    let more = "[[channel]]\nfrom = \"logni\"\nring = \"3MiB\"\npriority = 4\nchan = 65536\n\
                [link]\nping = 5\ndead_after = \"soon\"\n[acl]\ndefault = \"maybe\"\n";
    let found = wrong(&format!("{SMALLEST}{more}"));
    let lines: Vec<usize> = found.iter().map(|(line, ..)| *line).collect();
    assert_eq!(lines, [14, 15, 16, 17, 19, 20, 22], "{found:#?}");
    assert!(found[0].2.contains("did you mean `login`?"), "{found:?}");
}

#[test]
fn names_are_there_once_and_are_names() {
    for (more, part) in [
        ("[[host]]\nname = \"a\"\nrelay = [\"tcp://h:1\"]\n", "a host `a` in line 5 already"),
        ("[[host]]\nname = \"c\"\nrelay = [\"tcp://h:1\"]\nnodes = [\"db\"]\n", "on host `b`"),
        ("[[host]]\nname = \"c\"\nrelay = [\"tcp://10.0.0.1:7000\"]\n", "host in line 5, too"),
        ("[[host]]\nname = \"c\"\n", "[[host]] needs `relay`"),
        ("[[host]]\nname = \"c\"\nrelay = []\n", "no other relay could dial this one"),
        ("[[node]]\nname = \"db\"\nhost = \"a\"\n", "a node `db` on host `b` in line 12"),
        ("[[node]]\nname = \"new\"\n", "no host has a node `new`"),
        ("[[node]]\nname = \"new\"\nhost = \"B\"\n", "there is no host `B`"),
        ("[[node]]\nname = \"a b\"\nhost = \"b\"\n", "cannot be the name of a node"),
        ("[[node]]\nname = \"@x\"\nhost = \"b\"\n", "cannot be the name of a node"),
        ("[[group]]\nname = \"g\"\nmembers = []\n", "has no members"),
        ("[[group]]\nname = \"g\"\nmembers = [\"@g\"]\n", "no groups"),
        ("[[group]]\nname = \"g\"\nmembers = [\"db@a\"]\n", "is on host `b`, and not on `a`"),
    ] {
        assert!(one(more).contains(part), "{more}: {}", one(more));
    }
    let twice = "[[group]]\nname = \"g\"\nmembers = [\"db\"]\n".repeat(2);
    assert!(one(&twice).contains("there is a group `g` in line 13 already"));
    let described = "[[node]]\nname = \"db\"\nuid = 7\n".repeat(2);
    assert!(one(&described).contains("a node `db` on host `b`"));
    let long = format!("[[node]]\nhost = \"a\"\nname = \"{}\"\n", "x".repeat(65));
    assert!(one(&long).contains("1 to 64 letters"));
}

#[test]
fn what_does_not_fit_together_is_said_with_the_way_out() {
    for (more, part) in [
        ("[[channel]]\non_full = \"drop-old\"\n", "write class = \"lossy\""),
        ("[[channel]]\nclass = \"lossy\"\non_full = \"block\"\n", "\"drop-new\" or \"drop-old\""),
        ("[[channel]]\nclass = \"latest\"\nack = \"consumed\"\n", "only a reliable channel"),
        ("[[channel]]\non_full = \"block:soon\"\n", "`soon` is not a duration"),
        ("[[channel]]\nring = \"3MiB\"\n", "write \"4MiB\""),
        ("[[channel]]\nring = \"1KiB\"\n", "from 4KiB to 64MiB"),
        ("[[channel]]\nchan = []\n", "leave `chan` out"),
        ("[limits]\nmessage = \"64MiB\"\n", "`message` is 64MiB, more than `reassembly`"),
        ("[link]\nping = \"5s\"\n", "`ping` is 5s, more than `dead_after`, which is 3s"),
        ("[ageing]\nidle_link = \"1ms\"\n", "from 100ms to 720h"),
        ("[tls]\nkey = \"k\"\nauthority = \"ca\"\n", "[tls] needs `certificate`"),
        ("[[acl.rule]]\nto = \"db\"\n", "[[acl.rule]] needs `action`"),
        ("[[acl.rule]]\naction = \"alow\"\n", "did you mean \"allow\"?"),
        ("[channel]\n", "an array of tables: [[channel]]"),
        ("[[limits]]\n", "a table: [limits]"),
        ("[metrics]\nlisten = 9464\n", "text in quotes, and this is a whole number"),
    ] {
        assert!(one(more).contains(part), "{more}: {}", one(more));
    }
    let found = wrong(&SMALLEST.replace("tcp://10.0.0.1", "tls+tcp://10.0.0.1"));
    assert!(found[0].2.contains("write [tls]"), "{found:?}");
    let found = wrong(&SMALLEST.replace("secret_file = \"demo.secret\"", ""));
    assert!(found[0].2.contains("[cluster] needs `secret_file`"), "{found:?}");
}

#[test]
fn an_empty_file_says_what_a_file_needs() {
    let said = Cluster::parse("").expect_err("it is empty").to_string();
    assert!(said.contains("[cluster] needs `name`") && said.contains("there is no host"), "{said}");
}

#[test]
fn broken_syntax_is_said_for_every_place_and_alone() {
    let found = wrong("a = \nb = 2\nb = 3\n[x\n");
    let lines: Vec<usize> = found.iter().map(|(line, ..)| *line).collect();
    assert_eq!(lines, [1, 3, 4], "{found:?}");
}

#[test]
fn bytes_that_are_no_text_are_shown_where_they_begin() {
    let errors = build::as_text(b"[cluster]\nname = \"\xff\"\n", "x.toml").expect_err("no text");
    let problem = &errors.problems()[0];
    assert_eq!((problem.line, problem.column), (2, 9), "{errors}");
}

#[test]
fn whatever_the_bytes_are_they_are_read_to_an_end() {
    let full = docs::full();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    const ALPHABET: &[u8] = b"[]{}=\",.\\#\n'0aZ_-@* \xc3\xa9\xff\0";
    for round in 0..400 {
        let mut bytes = full.clone().into_bytes();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = ALPHABET[random(ALPHABET.len())],
                1 => drop(bytes.remove(at)),
                2 => bytes.truncate(at + 1),
                _ => bytes.insert(at, ALPHABET[random(ALPHABET.len())]),
            }
        }
        if round % 8 == 0 {
            bytes = (0..64).map(|_| ALPHABET[random(ALPHABET.len())]).collect();
        }
        fuzz(&bytes);
    }
}

#[test]
fn what_is_nested_or_repeated_without_end_is_refused_and_not_followed() {
    const MANY: usize = 20_000;
    for text in [
        "a.".repeat(MANY) + "a = 1",
        "[".repeat(MANY),
        format!("a = {}", "[".repeat(MANY)),
        format!("a = {}", "{a=".repeat(MANY)),
        format!("[a{}]", ".a".repeat(MANY)),
        (0..MANY).map(|n| format!("[[a{n}]]\n")).collect(),
        "= \n".repeat(MANY),
    ] {
        let errors = Cluster::parse(&text).expect_err("refused");
        assert!(!errors.problems().is_empty() && errors.problems().len() <= limits::PROBLEMS_MAX);
    }
}
