//! The laws of the tree, as tests. A failure names file and line and says what to do instead.
//!
//! An exception has a reason beside it, and one that nothing needs any more is a failure, too, so
//! that the lists only get shorter.

#![forbid(unsafe_code)]

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::process::Command;

use source::{Mask, Source, mask, tree, words};

/// A place that breaks a law.
struct Hit {
    path: String,
    line: usize,
    what: String,
}

/// A path, or the beginning of some, and why it may break the law.
type Excuse = (&'static str, &'static str);

fn hit(source: &Source, at: usize, what: impl Into<String>) -> Hit {
    Hit { path: source.path.clone(), line: source.line(at), what: what.into() }
}

/// Fails for every hit that has no excuse and for every excuse that has no hit.
fn judge(hits: Vec<Hit>, excuses: &[Excuse], instead: &str) {
    let excused = |hit: &Hit| excuses.iter().any(|(path, _)| hit.path.starts_with(path));
    let needless = |(path, _): &&Excuse| !hits.iter().any(|hit| hit.path.starts_with(path));
    let mut lines: Vec<String> = excuses
        .iter()
        .filter(needless)
        .map(|(path, why)| format!("{path}:1: needs no exception any more ({why}); strike it out"))
        .collect();
    let line = |hit: &Hit| format!("{}:{}: {}; {instead}", hit.path, hit.line, hit.what);
    lines.extend(hits.iter().filter(|hit| !excused(hit)).map(line));
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// What a crate may depend on, tests of its own aside. `*` is any crate that is not ours.
const CRATES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "*",
            "ringlane-api",
            "ringlane-rdma-stub",
            "ringlane-reactor",
            "ringlane-shm",
            "ringlane-tcp",
            "ringlane-uds",
        ],
    ),
    ("api/", &["bytes", "log"]),
    ("benches/", &["*", "ringlane"]),
    ("fuzz/", &["*", "ringlane"]),
    ("rdma-stub/", &["log", "ringlane-api", "ringlane-shm", "ringlane-tcp", "ringlane-uds"]),
    ("reactor/", &["io-uring", "libc", "log", "nix", "ringlane-api", "signal-hook", "socket2"]),
    ("shm/", &["libc", "log", "loom", "memmap2", "ringlane-api", "ringlane-uds"]),
    ("tcp/", &["log", "ringlane-api"]),
    ("tests/kit/", &["ringlane-api"]),
    ("uds/", &["log", "ringlane-api"]),
];

/// The dependencies that users of a crate get, with the line of each.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let (mut section, mut depth, mut found) = ("", 0, Vec::new());
    for (i, line) in manifest.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if depth == 0 && line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            let (table, name) = section.rsplit_once('.').unwrap_or(("", ""));
            if is_dependencies(table) {
                found.push((i + 1, name.to_string()));
            }
            continue;
        }
        if depth == 0 && is_dependencies(section) && !line.is_empty() {
            let renamed =
                line.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
            let key = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.push((i + 1, renamed.unwrap_or(key).to_string()));
        }
        depth += line.matches(['[', '{']).count();
        depth -= line.matches([']', '}']).count();
    }
    found
}

fn is_dependencies(section: &str) -> bool {
    let last = section.rsplit('.').next().unwrap_or_default();
    ["dependencies", "build-dependencies"].contains(&last) && !section.starts_with("workspace")
}

#[test]
fn a_crate_knows_only_the_crates_that_stand_under_it() {
    let mut hits = Vec::new();
    for manifest in tree("Cargo.toml") {
        let dir = manifest.path.trim_end_matches("Cargo.toml");
        let Some((_, allowed)) = CRATES.iter().find(|(crate_dir, _)| *crate_dir == dir) else {
            hits.push(hit(&manifest, 0, "a crate of which CRATES in tests/tidy.rs does not know"));
            continue;
        };
        for (line, name) in dependencies(&manifest.text) {
            let foreign = !name.starts_with("ringlane") && allowed.contains(&"*");
            if !foreign && !allowed.contains(&name.as_str()) {
                let what = format!("depends on {name}");
                hits.push(Hit { path: manifest.path.clone(), line, what });
            }
        }
    }
    let instead = "ask through api (Op, Sys, Transport), or change CRATES and ARCHITECTURE.md";
    judge(hits, &[], instead);
}

#[test]
fn the_library_without_the_program_is_under_20_crates() {
    let features = "uring,epoll,tcp,uds,shm";
    let tree = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--offline", "--locked", "-p", "ringlane", "-e", "normal"])
        .args(["--prefix", "none", "--no-default-features", "--features", features])
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "Cargo.toml:1: cargo tree failed: {said}");
    let text = String::from_utf8_lossy(&tree.stdout);
    let crates: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split(" (").next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(crates.len() > 4, "Cargo.toml:1: cargo tree shows only {crates:?}");
    let instead = "hang what only the program needs on its feature";
    assert!(crates.len() < 20, "Cargo.toml:1: {} crates; {instead}: {crates:#?}", crates.len());
}

#[test]
fn engines_are_named_in_the_reactor_only() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        let own = |name| source.path.starts_with(&format!("reactor/src/{name}"));
        let inside = source.path.starts_with("reactor/");
        for (at, name) in source.finds(&["epoll::", "uring::", "Epoll", "Uring"]) {
            // `Engine::Epoll` is a wish; nix's epoll is the system call.
            let before = &source.code[..at];
            if !inside && !before.ends_with("Engine::") && !before.ends_with("nix::sys::") {
                hits.push(hit(&source, at, format!("names {name}")));
            }
        }
        for (at, name) in source.finds(&["crate::epoll", "crate::uring"]) {
            if inside && !own(&name["crate::".len()..]) {
                hits.push(hit(&source, at, format!("one engine names {name}")));
            }
        }
        if source.path.starts_with("api/src/") {
            let spoken = mask(&source.text, Mask::Comments);
            for name in ["epoll", "uring"] {
                let what = format!("the api names {name}");
                hits.extend(words(&spoken, name).map(|at| hit(&source, at, what.clone())));
            }
        }
    }
    let excuses = [
        ("benches/src/load.rs", "the generator's own epoll, from nix"),
        ("benches/peers/epoll_echo.rs", "a peer: the bare epoll server, from nix"),
    ];
    judge(hits, &excuses, "take an engine by ringlane_reactor::best and speak to dyn Reactor");
}

#[test]
fn transports_are_named_in_the_registry_only() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        let beside = source.is_test() || source.is_beside();
        let names = ["ringlane_rdma_stub", "ringlane_shm", "ringlane_tcp", "ringlane_uds"];
        for (at, name) in source.finds(&names) {
            let dir = format!("{}/", name.trim_start_matches("ringlane_").replace('_', "-"));
            // It owns one, for the hand-over.
            let inner = source.path.starts_with("shm/") && name == "ringlane_uds";
            if inner {
                continue;
            }
            if !beside && source.path != "src/registry.rs" && !source.path.starts_with(&dir) {
                hits.push(hit(&source, at, format!("names {name}")));
            }
        }
    }
    let excuses = [
        ("rdma-stub/src/lib.rs", "its links are introduced by TCP, or by a Unix socket"),
        ("rdma-stub/src/soft/memory.rs", "the map and the rings of memory that a peer may write"),
        ("rdma-stub/src/transport/memory.rs", "the map of such memory"),
    ];
    judge(hits, &excuses, "open addresses through EventBase, which has them from src/registry.rs");
}

#[test]
fn the_api_and_the_transports_make_no_system_call_through_std() {
    let needles = [
        "std::fs",
        "std::process",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "UnixListener",
        "UnixDatagram",
        "ToSocketAddrs",
        "thread::spawn",
        "thread::sleep",
        "stdout",
        "stderr",
        "println!",
        "eprintln!",
    ];
    let mut hits = Vec::new();
    let ours = |source: &Source| {
        let dirs = ["api/src/", "rdma-stub/src/", "shm/src/", "tcp/src/", "uds/src/"];
        dirs.iter().any(|dir| source.path.starts_with(dir)) && !source.is_test()
    };
    for source in tree(".rs").iter().filter(|source| ours(source)) {
        hits.extend(source.finds_untested(&needles).map(|(at, what)| hit(source, at, what)));
    }
    let excuses = [("shm/src/model.rs", "loom's threads, in a model")];
    judge(hits, &excuses, "ask the reactor: Cx::push for what takes time, Cx::sys for the rest");
}

#[test]
fn a_cfg_chooses_modules_and_stands_in_no_function() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        if source.is_test() || source.is_beside() {
            continue;
        }
        for (at, what) in source.finds_untested(&["cfg!(", "cfg_select!", "#[cfg(", "#[cfg_attr("])
        {
            let item =
                source.code[at..].lines().map(str::trim).find(|line| !line.starts_with("#["));
            let module = item.is_some_and(|line| {
                ["mod ", "pub mod ", "pub(crate) mod ", "use ", "pub use "]
                    .iter()
                    .any(|start| line.starts_with(start))
            });
            if source.function_at(at).is_some() || !module {
                hits.push(hit(&source, at, format!("{what} is not on a module")));
            }
        }
    }
    judge(hits, &[], "make two modules with the same names and let cfg choose one, as registry.rs");
}

#[test]
fn every_crate_forbids_unsafe_code_but_for_three_rooms() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        let root = ["src/lib.rs", "src/main.rs"].iter().any(|end| source.path.ends_with(end));
        let rooms: &[&str] = match source.path.as_str() {
            "reactor/src/lib.rs" => &["mod sys;", "mod uring;"],
            "shm/src/lib.rs" => &["pub mod map;"],
            _ => &[],
        };
        let first =
            if !rooms.is_empty() { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        if root && !source.code.lines().any(|line| line == first) {
            hits.push(hit(&source, 0, format!("lacks {first}")));
        }
        for (at, what) in source.finds(&["allow(unsafe_code)", "expect(unsafe_code)"]) {
            let next = source.code[at..].lines().nth(1).unwrap_or_default();
            if !rooms.contains(&next) {
                hits.push(hit(&source, at, what));
            }
        }
    }
    let excuses = [
        ("reactor/tests/cost.rs", "counts allocations: GlobalAlloc is an unsafe trait"),
        ("tests/allocations.rs", "counts allocations: GlobalAlloc is an unsafe trait"),
        ("tests/conformance/main.rs", "its module fork"),
    ];
    judge(hits, &excuses, "unsafe code lives in the reactor's sys and uring, and in shm's map");
}

#[test]
fn unsafe_is_written_in_its_rooms_only() {
    let rooms = [
        "reactor/src/sys.rs",
        "reactor/src/sys/",
        "reactor/src/uring/",
        "shm/src/map.rs",
        "shm/src/map/",
    ];
    let mut hits = Vec::new();
    for source in tree(".rs") {
        if !rooms.iter().any(|room| source.path.starts_with(room)) {
            hits.extend(source.finds(&["unsafe"]).map(|(at, what)| hit(&source, at, what)));
        }
    }
    let excuses = [
        ("reactor/tests/cost.rs", "counts allocations: GlobalAlloc is an unsafe trait"),
        ("reactor/tests/fork.rs", "forks"),
        ("tests/allocations.rs", "counts allocations: GlobalAlloc is an unsafe trait"),
        ("tests/conformance/fork.rs", "forks"),
        ("tests/shm_death.rs", "forks: a peer that does is what it is about"),
    ];
    judge(hits, &excuses, "give Sys or Op what you need, or put it into reactor/src/sys/");
}

#[test]
fn every_unsafe_block_says_right_above_why_it_is_sound() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, _) in source.finds(&["unsafe"]) {
            let next = source.code[at + "unsafe".len()..].trim_start();
            if !(next.starts_with('{') || next.starts_with("impl")) {
                continue;
            }
            // Up through the statement that the block stands in, then through the comment.
            let mut above = lines[..source.line(at) - 1].iter().rev().map(|line| line.trim());
            let first = above.find(|line| {
                line.starts_with("//") || line.is_empty() || line.ends_with([';', '{', '}'])
            });
            let rest = above.take_while(|line| line.starts_with("//"));
            let said = |line: &str| line.starts_with("//") && line.contains("SAFETY:");
            if !first.into_iter().chain(rest).any(said) {
                hits.push(hit(&source, at, "unsafe without a reason"));
            }
        }
    }
    judge(hits, &[], "write // SAFETY: above it: which invariant, and who upholds it");
}

#[test]
fn no_line_of_code_is_wider_than_100_columns() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        for (i, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > 100 {
                let what = format!("{columns} columns");
                hits.push(Hit { path: source.path.clone(), line: i + 1, what });
            }
        }
    }
    judge(hits, &[], "break the line");
}

#[test]
fn nothing_is_left_for_later() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        let macros = source.finds(&["todo!", "unimplemented!", "dbg!", "#[ignore"]);
        hits.extend(macros.map(|(at, what)| hit(&source, at, what)));
        for note in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            hits.extend(words(&source.text, note).map(|at| hit(&source, at, note)));
        }
    }
    judge(hits, &[], "do it, or open an issue; what a machine lacks is a skip with its reason");
}

#[test]
fn the_clock_is_read_by_engines_only() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        if source.is_test() || source.is_beside() {
            continue;
        }
        for (at, what) in source.finds_untested(&["Instant::now", "SystemTime::now", ".elapsed()"])
        {
            let now = source.function_at(at).is_some_and(|function| function.name == "now");
            if !(now && source.path.starts_with("reactor/src/")) {
                hits.push(hit(&source, at, what));
            }
        }
    }
    let excuses = [("tests/kit/src/sim/world.rs", "virtual time needs an origin of type Instant")];
    judge(hits, &excuses, "take the time of the turn: EventBase::now, Cx::now, Reactor::now");
}

#[test]
fn the_environment_is_read_by_main_and_config_only() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        let reader = ["src/main.rs", "reactor/src/config.rs"].contains(&source.path.as_str());
        if reader || source.is_test() || source.is_beside() || source.path.ends_with("build.rs") {
            continue;
        }
        hits.extend(
            source.finds_untested(&["env::", "std::env"]).map(|(at, what)| hit(&source, at, what)),
        );
    }
    let excuses = [
        ("src/cli/child.rs", "current_exe: child servers are this program again"),
        ("src/cli/demo/bus/hosts.rs", "temp_dir: a folder for the configuration of a cluster"),
        ("src/cli/perf/reference/names.rs", "temp_dir: a folder for fifos and mapped files"),
        ("tests/kit/src/sim/memory.rs", "temp_dir: nameless files that can be mapped"),
        ("tests/kit/src/suite/rig.rs", "temp_dir: files that the cases make"),
        ("tests/kit/src/suite/runner.rs", "a test program: which cases and rows, which watchdog"),
    ];
    judge(hits, &excuses, "add a field to reactor::Config, or an argument of the program");
}

const FILE_LINES: usize = 500;

/// What was longer when the law was made. These may shrink and may not grow.
const LONG_FILES: &[(&str, usize)] = &[];

#[test]
fn a_file_is_read_in_one_sitting() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        let lines = source.text.lines().count();
        let listed = LONG_FILES.iter().find(|(path, _)| *path == source.path);
        let most = listed.map_or(FILE_LINES, |(_, most)| *most);
        if lines > most {
            hits.push(hit(&source, 0, format!("{lines} lines, at most {most}")));
        } else if listed.is_some() && lines <= FILE_LINES {
            hits.push(hit(&source, 0, "short enough to leave LONG_FILES in tests/tidy.rs"));
        }
    }
    judge(hits, &[], "split it where the thought ends");
}

const FUNCTION_LINES: usize = 70;

#[test]
fn a_function_fits_a_screen() {
    let mut hits = Vec::new();
    for source in tree(".rs") {
        for function in source.functions() {
            if function.lines > FUNCTION_LINES {
                let (name, lines) = (&function.name, function.lines);
                let what = format!("{name} has {lines} lines, at most {FUNCTION_LINES}");
                hits.push(Hit { path: source.path.clone(), line: function.line, what });
            }
        }
    }
    judge(hits, &[], "give a part of it a name");
}

#[test]
fn a_page_has_one_title() {
    let mut hits = Vec::new();
    for source in tree(".md") {
        let (mut fenced, mut titles) = (false, Vec::new());
        for (i, line) in source.text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            if !fenced && line.starts_with("# ") {
                titles.push(i + 1);
            }
        }
        if titles.len() != 1 {
            let line = titles.get(1).copied().unwrap_or(1);
            let what = format!("{} titles", titles.len());
            hits.push(Hit { path: source.path.clone(), line, what });
        }
    }
    judge(hits, &[], "one line begins with one #, the sections with two");
}

#[test]
fn what_stands_in_quotes_and_comments_is_not_code() {
    let text = r##"let a = "unsafe \" {"; // unsafe
let b = r#"unsafe " {"#; let c: &'a u8 = &b'{'; let d = '\''; /* unsafe */ let é = 'é'; end"##;
    let code = mask(text, Mask::Quotes);
    assert_eq!(code.len(), text.len());
    assert!(!code.contains("unsafe") && !code.contains('{'), "{code}");
    assert!(code.contains("&'a u8") && code.contains("let é =") && code.ends_with("end"), "{code}");
    let spoken = mask(text, Mask::Comments);
    assert_eq!(spoken.matches("unsafe").count(), 2, "{spoken}");
}
