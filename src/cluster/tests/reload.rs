//! What a reload says, and what it refuses.

use super::*;

fn lines(old: &str, new: &str) -> Vec<String> {
    diff(&right(old), &right(new)).unwrap_or_else(|no| panic!("{no}")).lines
}

fn refused(old: &str, new: &str) -> String {
    let no = diff(&right(old), &right(new)).expect_err("refused");
    assert_eq!(no.reasons.len(), 1, "{no}");
    no.to_string()
}

#[test]
fn the_same_file_changes_nothing() {
    let same = diff(&right(SMALLEST), &right(SMALLEST)).expect("it may");
    assert!(same.is_empty() && same.to_string().contains("nothing is different"), "{same}");
    let full = docs::full();
    assert_eq!(lines(&full, &full), [""; 0]);
}

#[test]
fn every_difference_is_a_line() {
    let new = SMALLEST
        .replace("\"audit\"", "\"log\", \"cache\"")
        .replace("tcp://10.0.0.2:7000", "tcp://10.0.0.3:7000")
        + "[[host]]\nname = \"c\"\nrelay = [\"tcp://c:1\"]\n[[node]]\nname = \"db\"\nuid = 70\n\
           [[group]]\nname = \"g\"\nmembers = [\"db\"]\n[defaults]\nring = \"4MiB\"\n\
           [[channel]]\nto = \"db\"\npriority = 0\n[acl]\ndefault = \"deny\"\nadmins = [5]\n\
           [limits]\nroutes = 5\n[metrics]\nlisten = \"tcp://127.0.0.1:1\"\n";
    let found = lines(SMALLEST, &new).join("\n");
    for part in [
        "host b: relay tcp://10.0.0.2:7000 -> tcp://10.0.0.3:7000",
        "host b: listen tcp://10.0.0.2:7000 -> tcp://10.0.0.3:7000 (when its relay starts next)",
        "host c is new",
        "2 nodes added: log, cache",
        "1 nodes gone: audit",
        "uid of 1 nodes, when they register next: db the relay's -> 70",
        "group @g is new: any of 1: db",
        "[defaults] ring: 1MiB -> 4MiB",
        "+ [[channel]] from * to db: class reliable, ring 4MiB, priority 0",
        "access: no [[acl.rule]] fits, and [acl] default is \"deny\"",
        "admins: [] -> [5]",
        "[limits] routes: 262144 -> 5",
        "[metrics] listen: none -> tcp://127.0.0.1:1",
    ] {
        assert!(found.contains(part), "{part} is not in\n{found}");
    }
    let back = diff(&right(&new), &right(SMALLEST)).expect("it may");
    assert_eq!((back.hosts_removed, back.nodes_added), (vec!["c".into()], vec!["audit".into()]));
}

#[test]
fn the_order_of_rules_is_a_difference() {
    let one = "[[channel]]\nto = \"db\"\nring = \"4MiB\"\n";
    let other = "[[channel]]\nto = \"web\"\n";
    let (old, new) = (format!("{SMALLEST}{one}{other}"), format!("{SMALLEST}{other}{one}"));
    assert_eq!(lines(&old, &new), ["the order of [[channel]] is another one"]);
}

#[test]
fn whoever_holds_a_name_goes_on_holding_it() {
    let other = refused(SMALLEST, &SMALLEST.replace("demo\"\nsecret", "other\"\nsecret"));
    assert!(other.contains("stop all relays to rename it"), "{other}");
    let moved = SMALLEST.replace("\"web\"]", "\"web\", \"db\"]").replace("[\"db\", ", "[");
    let moved = refused(SMALLEST, &moved);
    assert!(moved.contains("node db would move from b to a"), "{moved}");
    let third = "[[host]]\nname = \"c\"\nrelay = [\"tcp://10.0.0.2:7000\"]\n";
    let taken = SMALLEST.replace("tcp://10.0.0.2:7000", "tcp://10.0.0.9:7000") + third;
    let taken = refused(SMALLEST, &taken);
    assert!(taken.contains("was the relay of b, and would be that of c"), "{taken}");
    let (head, hosts) = SMALLEST.split_at(SMALLEST.find("[[host]]").expect("a host"));
    let (a, b) = hosts.split_at(hosts.rfind("[[host]]").expect("another"));
    let order = refused(SMALLEST, &format!("{head}{b}{a}"));
    assert!(order.contains("the order of the hosts"), "{order}");
}

#[test]
fn a_generation_that_is_counted_goes_up() {
    let of = |n: u32, more: &str| {
        SMALLEST.replace("[cluster]", &format!("[cluster]\ngeneration = {n}")) + more
    };
    let more = "[limits]\nroutes = 5\n";
    assert!(refused(&of(3, ""), &of(2, more)).contains("the file is an older one"));
    assert!(refused(&of(3, ""), &of(3, more)).contains("write generation = 4"));
    assert_eq!(lines(&of(3, ""), &of(4, more)).len(), 1);
    assert_eq!(lines(&of(0, ""), &of(0, more)).len(), 1);
}
