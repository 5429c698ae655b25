//! What a config may say, and what is said of a wrong one.

use super::*;

#[test]
fn the_smallest_file_is_enough() {
    let cluster = Cluster::parse(SMALLEST).expect("it is enough");
    assert_eq!((cluster.name.as_str(), cluster.node_count()), ("demo", 4));
    assert_eq!(cluster.node("db").expect("named").host.name, "b");
    assert!(cluster.node("db@b").is_some() && cluster.node("db@a").is_none());
    assert_eq!(*cluster.rule("web", "db", 3), ChannelRule::default());
    assert_eq!(cluster.may("web", "db"), Ok(()));
    assert_eq!(cluster.host("a").expect("named").relays[0].to_string(), "tcp://10.0.0.1:7000");
    assert!(cluster.notes().is_empty(), "{:?}", cluster.notes());
}

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
