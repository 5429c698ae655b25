//! The documentation and the list of keys say the same, and the code does what both say.

use super::*;

const PAGE: &str = include_str!("../../../docs/config.md");
const README: &str = include_str!("../../../README.md");

/// A row of a table of keys: table, key, kind, default, example.
type Row = [String; 5];

fn rows() -> Vec<Row> {
    let (mut table, mut rows) = (String::new(), Vec::new());
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            table = heading.trim_matches(['`', '[', ']']).to_string();
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        if let ([key, kind, default, example, _], true) =
            (cells.as_slice(), line.starts_with("| `"))
        {
            let plain = |cell: &str| cell.trim_matches(['|', ' ', '`']).to_string();
            rows.push([table.clone(), plain(key), plain(kind), plain(default), plain(example)]);
        }
    }
    rows
}

#[test]
fn every_key_is_documented_with_its_type_its_default_and_an_example() {
    let want: Vec<Row> = KEYS
        .iter()
        .map(|key| {
            let kind = key.kind.name();
            let plain = |text: &str| text.trim_matches('`').to_string();
            let default = plain(key.default);
            [key.table, key.name, kind, &default, key.example].map(String::from)
        })
        .collect();
    let rows = rows();
    for (row, want) in rows.iter().zip(&want) {
        assert_eq!(row, want, "docs/config.md has the left one, src/cluster/keys.rs the right one");
    }
    assert_eq!(rows.len(), want.len(), "one list is longer");
}

/// A table of a file with its keys.
type Table = (&'static str, Vec<(&'static str, String)>);

/// A file with every table and what each needs.
fn base() -> Vec<Table> {
    let own = |keys: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        keys.iter().map(|(key, value)| (*key, value.to_string())).collect()
    };
    let b = [("name", "\"b\""), ("relay", "[\"tcp://b:1\"]"), ("nodes", "[\"db\", \"audit\"]")];
    let a = [("name", "\"a\""), ("relay", "[\"tcp://a:1\"]"), ("nodes", "[\"login\", \"web\"]")];
    let tls = [("certificate", "\"c\""), ("key", "\"k\""), ("authority", "\"a\"")];
    vec![
        ("cluster", own(&[("name", "\"demo\""), ("secret_file", "\"demo.secret\"")])),
        ("host", own(&a)),
        ("host", own(&b)),
        ("node", own(&[("name", "\"db\"")])),
        ("group", own(&[("name", "\"dbs\""), ("members", "[\"db\"]")])),
        ("channel", own(&[("class", "\"lossy\"")])),
        ("defaults", own(&[])),
        ("acl", own(&[])),
        ("acl.rule", own(&[("action", "\"allow\"")])),
        ("limits", own(&[])),
        ("ageing", own(&[])),
        ("link", own(&[])),
        ("tls", own(&tls)),
        ("metrics", own(&[])),
    ]
}

fn set(tables: &mut [Table], key: &Key, value: &str) {
    let table = tables.iter_mut().find(|(name, _)| *name == key.table).expect("in base()");
    table.1.retain(|(name, _)| *name != key.name);
    table.1.push((key.name, value.to_string()));
}

fn text(tables: &[Table]) -> String {
    let one = |(name, keys): &Table| {
        let keys: Vec<String> =
            keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        format!("{}\n{}", keys::heading(name), keys.concat())
    };
    tables.iter().map(one).collect()
}

/// A file in which every key stands, as its example.
pub(super) fn full() -> String {
    let mut tables = base();
    KEYS.iter().for_each(|key| set(&mut tables, key, key.example));
    text(&tables)
}

#[test]
fn the_example_of_every_key_is_accepted_alone_and_with_all_others() {
    for key in KEYS {
        let mut tables = base();
        set(&mut tables, key, key.example);
        let cluster = right(&text(&tables));
        let value = key.example.trim_matches('"');
        let settings = cluster.settings();
        let taken = settings.iter().find(|(t, k, _)| (*t, *k) == (key.table, key.name));
        assert!(taken.is_none_or(|(_, _, taken)| taken == value), "{key:?}: {taken:?}");
    }
    assert!(right(&full()).generation > 0);
}

#[test]
fn a_file_that_writes_every_default_is_the_file_without() {
    let mut tables = base();
    let plain = ["defaults", "limits", "ageing", "link"];
    for key in KEYS.iter().filter(|key| plain.contains(&key.table)) {
        set(&mut tables, key, key.default);
    }
    assert_eq!(right(&text(&tables)).settings(), right(&text(&base())).settings());
    let written = right(&text(&tables)).unusual();
    assert!(written.iter().all(|(table, ..)| *table == "tls"), "{written:?}");
}

#[test]
fn the_smallest_file_is_the_one_in_the_readme_and_in_the_documentation() {
    for page in [README, PAGE] {
        let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        assert_eq!(block.map(str::trim), Some(SMALLEST.trim()));
    }
}

#[test]
fn every_other_example_in_the_documentation_is_right_under_the_smallest_file() {
    let blocks: Vec<&str> = PAGE.split("```toml\n").skip(2).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let block = block.split("```").next().unwrap_or_default();
        with(block);
    }
}
