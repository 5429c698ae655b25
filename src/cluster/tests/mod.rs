//! What a config may say, and what is said of a wrong one.

mod docs;
mod reload;
mod said;
mod wrong;

use super::*;

/// The one in the README.
const SMALLEST: &str = r#"
[cluster]
name = "demo"
secret_file = "demo.secret"
[[host]]
name = "a"
relay = ["tcp://10.0.0.1:7000"]
nodes = ["login", "web"]
[[host]]
name = "b"
relay = ["tcp://10.0.0.2:7000"]
nodes = ["db", "audit"]
"#;

fn right(text: &str) -> Cluster {
    Cluster::parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The smallest file, and more under it.
fn with(more: &str) -> Cluster {
    right(&format!("{SMALLEST}{more}"))
}

#[test]
fn the_smallest_file_is_enough() {
    let cluster = right(SMALLEST);
    assert_eq!((cluster.name.as_str(), cluster.node_count()), ("demo", 4));
    let db = cluster.node("db").expect("named");
    assert_eq!((db.host.name.as_str(), db.host.id, db.uid), ("b", 1, None));
    assert!(cluster.node("db@b").is_some() && cluster.node("db@a").is_none());
    assert_eq!(*cluster.rule("web", "db", 3), ChannelRule::default());
    assert_eq!(cluster.may("web", "db"), Ok(()));
    let host = cluster.host("a").expect("named");
    assert_eq!(host.relays[0].to_string(), "tcp://10.0.0.1:7000");
    assert_eq!(host.listen, host.relays);
    let names: Vec<&str> = cluster.nodes_of(host).map(|node| node.name).collect();
    assert_eq!(names, ["login", "web"]);
    assert!(cluster.notes().is_empty() && cluster.unusual().is_empty());
    assert_eq!((cluster.limits, cluster.ageing, cluster.links), Default::default());
}

#[test]
fn one_host_needs_neither_secret_nor_address() {
    let cluster = right("[cluster]\nname = \"x\"\n[[host]]\nname = \"a\"\nnodes = [\"n\"]\n");
    assert!(cluster.host("a").is_some_and(|host| host.relays.is_empty()));
}

#[test]
fn a_node_may_be_listed_and_described_or_only_described() {
    let cluster = with(
        "[[node]]\nname = \"db\"\nuid = 70\n[[node]]\nname = \"cache\"\nhost = \"a\"\n\
         [[node]]\nname = \"web\"\nhost = \"a\"\nuid = 33\n",
    );
    let uid = |name| cluster.node(name).expect("named").uid;
    assert_eq!(
        (uid("db"), uid("web"), uid("cache"), uid("login")),
        (Some(70), Some(33), None, None)
    );
    assert_eq!(cluster.node("cache").expect("named").host.name, "a");
}

#[test]
fn a_host_has_a_uid_for_those_of_its_nodes_that_have_none() {
    let text = SMALLEST.replace("nodes = [\"login\"", "uid = 1000\nnodes = [\"login\"");
    let cluster = right(&(text + "[[node]]\nname = \"web\"\nuid = 33\n"));
    let uid = |name| cluster.node(name).expect("named").uid;
    assert_eq!((uid("login"), uid("web"), uid("db")), (Some(1000), Some(33), None));
}

#[test]
fn a_group_has_members_by_name_and_by_pattern_each_once_in_the_order_of_the_file() {
    let cluster = with(
        "[[group]]\nname = \"g\"\nmembers = [\"web\", \"*@b\", \"db\"]\npick = \"hash\"\n\
         [[group]]\nname = \"every\"\nmembers = [\"*\"]\n",
    );
    let group = cluster.group("@g").expect("named");
    let names: Vec<&str> = cluster.members(group).map(|node| node.name).collect();
    assert_eq!((names, group.pick), (vec!["web", "db", "audit"], Pick::Hash));
    assert_eq!(cluster.group("every").map(Group::count), Some(4));
    assert!(cluster.group("@other").is_none());
}

#[test]
fn the_first_rule_that_fits_decides_and_what_it_leaves_out_comes_from_the_defaults() {
    let cluster = with(
        "[defaults]\nring = \"64KiB\"\nstuck_after = \"never\"\n\
         [[channel]]\nfrom = \"login\"\nto = \"@b\"\nchan = [1, 2]\nclass = \"lossy\"\n\
         on_full = \"drop-old\"\n\
         [[channel]]\nto = \"db*\"\nring = \"4MiB\"\npath = \"relay\"\npriority = 0\n\
         [[channel]]\nfrom = \"login\"\nring = \"8MiB\"\n\
         [[group]]\nname = \"b\"\nmembers = [\"*@b\"]\n",
    );
    let rule = |src, dst, chan| cluster.rule(src, dst, chan);
    assert_eq!(rule("login", "audit", 2).class, Class::Lossy(Loss::DropOld));
    assert_eq!(rule("login", "db", 1).ring, 64 << 10);
    assert_eq!(rule("login", "db", 3).ring, 4 << 20);
    assert_eq!(rule("login@a", "db@b", 3).priority, 0);
    assert_eq!((rule("web", "db", 0).path, rule("web", "db", 0).stuck_after), (Path::Relay, None));
    assert_eq!(rule("login", "web", 0).ring, 8 << 20);
    let without = rule("web", "login", 0);
    assert_eq!((without.ring, without.which.line), (64 << 10, None));
    let which = &rule("login", "db", 1).which;
    assert_eq!(which.to_string(), "[[channel]] from login to @b chan [1, 2], line 16");
}

#[test]
fn access_is_decided_by_the_first_rule_and_else_by_its_default() {
    let cluster = with(
        "[acl]\ndefault = \"deny\"\nadmins = [7, 8]\n\
         [[acl.rule]]\nfrom = \"web\"\nto = \"audit\"\naction = \"deny\"\n\
         [[acl.rule]]\nfrom = \"*@a\"\nto = \"*@b\"\naction = \"allow\"\n",
    );
    assert!(cluster.may("login", "audit").is_ok() && cluster.may("web", "db").is_ok());
    let denied = cluster.may("web", "audit").expect_err("denied");
    assert_eq!(denied.rule.line, Some(16));
    assert!(denied.to_string().starts_with("web may not send to audit: [[acl.rule]] from web"));
    let denied = cluster.may("db", "web").expect_err("denied");
    assert!(denied.rule.text().contains("default is \"deny\""), "{denied}");
    assert!(cluster.may("stranger", "db").is_err());
    assert_eq!(cluster.admins(), [7, 8]);
}

#[test]
fn a_rule_that_never_decides_and_a_name_that_nobody_has_yet_are_noted() {
    let cluster =
        with("[[channel]]\nfrom = \"worker.*\"\n[[channel]]\n[[channel]]\nto = \"db\"\nchan = 3\n");
    let notes: Vec<String> = cluster.notes().iter().map(|note| note.text.clone()).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert_eq!(notes[0], "`worker.*` is nobody's name so far");
    assert!(notes[1].starts_with("never decides: [[channel]] from * to *, line 1"), "{notes:?}");
}

#[test]
fn files_for_tls_may_be_named_by_host() {
    let text = SMALLEST.replace("tcp://", "tls+tcp://");
    let tls = "[tls]\ncertificate = \"tls/{host}.pem\"\nkey = \"{host}.key\"\nauthority = \"ca\"\n";
    let cluster = right(&(text + tls));
    let files = cluster.tls.as_ref().expect("given").of("a");
    assert_eq!(files.certificate, PathBuf::from("tls/a.pem"));
    assert_eq!((files.key, files.authority), (PathBuf::from("a.key"), PathBuf::from("ca")));
    let plain = with(tls);
    assert_eq!(plain.notes().len(), 2, "{:?}", plain.notes());
}

#[test]
fn a_hundred_thousand_names_cost_each_the_same() {
    use std::fmt::Write;
    let mut text = format!("{SMALLEST}[[host]]\nname = \"c\"\nrelay = [\"tcp://c:1\"]\nnodes = [");
    (0..100_000).for_each(|n| writeln!(text, "\"worker.{n}\",").expect("into a String"));
    text.push_str("]\n[[group]]\nname = \"all\"\nmembers = [\"worker.*\"]\n");
    text.push_str(&"[[channel]]\nfrom = \"worker.9*\"\nto = \"worker.99999\"\n".repeat(500));
    let cluster = right(&text);
    assert_eq!(cluster.node_count(), 100_004);
    assert_eq!(cluster.group("all").map(Group::count), Some(100_000));
    assert!(cluster.node("worker.99999@c").is_some());
    assert!(diff(&right(SMALLEST), &cluster).is_ok_and(|diff| diff.nodes_added.len() == 100_000));
}
