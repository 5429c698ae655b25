//! What is explained of a channel, and of a host.

use super::*;

fn rows(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

#[test]
fn a_channel_between_hosts_goes_through_both_relays() {
    let cluster = right(SMALLEST);
    let said = explain(&cluster, "login", "db@b", 7).expect("both are there");
    assert_eq!((said.way, said.allowed, said.chan), (Way::Remote, true, 7));
    assert_eq!(
        said.hops,
        [
            "login@a",
            "ring of 1MiB",
            "relay a",
            "tcp://10.0.0.2:7000",
            "relay b",
            "ring of 1MiB",
            "db@b"
        ]
    );
    let link = said.link.as_ref().expect("one");
    assert_eq!((link.from.as_str(), link.kept.as_str(), link.tls), ("a", "a", false));
    let text = said.to_string();
    assert!(text.starts_with("login@a -> db@b, channel 7: through two relays\n"), "{text}");
    assert!(rows(&text).contains(&"why         db is on host b, login on host a"), "{text}");
    let back = explain(&cluster, "db", "login", 0).expect("both are there");
    assert_eq!(back.link.expect("one").kept, "a");
}

#[test]
fn a_channel_at_home_is_direct_unless_a_rule_says_relay() {
    let cluster = with("[[channel]]\nto = \"web\"\nchan = 1\npath = \"relay\"\n");
    let said = |chan| explain(&cluster, "login", "web", chan).expect("both are there");
    assert_eq!((said(0).way, said(0).hops.len(), said(0).link), (Way::Direct, 3, None));
    assert_eq!((said(1).way, said(1).hops.len(), said(1).rule_line), (Way::Relay, 5, Some(13)));
    assert!(said(1).why.contains("line 13"), "{}", said(1).why);
}

#[test]
fn what_is_denied_is_explained_with_the_rule_and_so_are_answers() {
    let cluster = with(
        "[acl]\ndefault = \"deny\"\n[[acl.rule]]\nfrom = \"login\"\nto = \"db\"\n\
         action = \"allow\"\n",
    );
    let said = explain(&cluster, "login", "db", 0).expect("both are there");
    assert_eq!((said.allowed, said.reply_allowed, said.access_line), (true, false, Some(15)));
    assert!(said.to_string().contains("answers are denied"), "{said}");
    let said = explain(&cluster, "db", "login", 0).expect("both are there");
    assert!(!said.allowed && said.to_string().contains("DENIED: no [[acl.rule]] fits"), "{said}");
}

#[test]
fn a_name_that_is_not_there_gets_the_nearest_one_and_a_group_its_members() {
    let cluster = with("[[group]]\nname = \"dbs\"\nmembers = [\"db\", \"audit\"]\n");
    let said = |dst| explain(&cluster, "login", dst, 0).expect_err("no node").to_string();
    assert!(said("bd").ends_with("did you mean `db`?"), "{}", said("bd"));
    assert!(said("db@a").contains("is on host `b`, and not on `a`"), "{}", said("db@a"));
    assert!(said("@dbs").ends_with("one of its members: db, audit"), "{}", said("@dbs"));
    assert!(said("@nobody").contains("no node"), "{}", said("@nobody"));
}

#[test]
fn an_explanation_for_machines_has_the_same_facts() {
    let said = explain(&right(SMALLEST), "login", "db", 0).expect("both are there");
    let json = serde_json::to_value(&said).expect("plain data");
    assert_eq!(json["way"], "remote");
    assert_eq!(json["link"]["addresses"][0], "tcp://10.0.0.2:7000");
    assert_eq!((&json["ring"], &json["rule_line"]), (&(1 << 20).into(), &serde_json::Value::Null));
}

#[test]
fn the_plan_of_a_host_says_where_it_listens_and_whom_it_dials() {
    let cluster = with("[metrics]\nlisten = \"tcp://127.0.0.1:9464\"\n");
    let text = cluster.plan("b").expect("it is there").to_string();
    let rows = rows(&text);
    for row in [
        "the relay of host b, line 9",
        "processes   unix:///run/ringlane/b.sock, or unix://@ringlane-UID-b",
        "listens at  tcp://10.0.0.2:7000",
        "dials       a at tcp://10.0.0.1:7000",
        "metrics     on its own socket and at tcp://127.0.0.1:9464",
        "registers   db (its own uid), audit (its own uid)",
    ] {
        assert!(rows.contains(&row), "{row} is not in\n{text}");
    }
    assert!(cluster.plan("c").is_none());
}
