//! What a seed means: which hosts and nodes, which channels, how much trouble.

use std::fmt::Write;
use std::time::Duration;

use ringlane_kit::sim::Rng;

use crate::HOSTS;
use crate::process::Line;

/// A node of the cluster.
pub struct Node {
    pub name: String,
    pub host: usize,
    pub lines: Vec<Line>,
}

pub struct Plan {
    pub hosts: usize,
    pub nodes: Vec<Node>,
    pub config: String,
    /// How long trouble is made, and from fault to fault.
    pub trouble: Duration,
    pub fault_every: u64,
    /// From message to message of a channel, in microseconds.
    pub send_every: u64,
    /// How long a line, a bell or bytes take, in microseconds.
    pub latency: u64,
    pub slow_kernel: bool,
    pub slow_consumers: bool,
    /// In thousandths of turns.
    pub stops_at: u16,
    pub kills_at: u16,
}

/// Channels have rules by their numbers.
struct Rule {
    ring: u32,
    consumed: bool,
    priority: u8,
    ttl: bool,
    large: bool,
}

fn rule(rng: &mut Rng, chan: u16) -> Rule {
    Rule {
        ring: 4096 << rng.below(4),
        consumed: rng.chance(250),
        priority: rng.below(4) as u8,
        ttl: chan == 2,
        large: chan == 3 || rng.chance(100),
    }
}

impl Plan {
    pub fn new(rng: &mut Rng) -> Plan {
        let hosts = 2 + usize::from(rng.chance(200));
        let mut nodes: Vec<Node> = Vec::new();
        for at in 0..hosts + rng.below(3) as usize {
            let host = at % hosts;
            let name = format!("{}{}", ["n", "m", "o"][host], at / hosts);
            nodes.push(Node { name, host, lines: Vec::new() });
        }
        let rules: Vec<Rule> = (0..4).map(|chan| rule(rng, chan)).collect();
        for _ in 0..1 + rng.below(4) {
            let from = rng.below(nodes.len() as u64) as usize;
            let to = rng.below(nodes.len() as u64) as usize;
            let chan = rng.below(4) as u16;
            let fits = |line: &Line| line.to == to && line.chan == chan;
            if from == to || nodes[from].lines.iter().any(fits) {
                continue;
            }
            let (name, rule) = (nodes[to].name.clone(), &rules[usize::from(chan)]);
            let (ring, ttl, large) = (rule.ring, rule.ttl, rule.large);
            let (letters, bases) = (Vec::new(), vec![0]);
            nodes[from].lines.push(Line { to, name, chan, ring, ttl, large, letters, bases });
        }
        let config = config(hosts, &nodes, &rules);
        Plan {
            hosts,
            nodes,
            config,
            trouble: Duration::from_millis(rng.between(300, 4_000)),
            fault_every: rng.between(20, 800) * 1000,
            send_every: 200 << rng.below(8),
            latency: 10 << rng.below(8),
            slow_kernel: rng.chance(200),
            slow_consumers: rng.chance(300),
            stops_at: rng.below(40) as u16,
            kills_at: rng.below(8) as u16,
        }
    }
}

fn config(hosts: usize, nodes: &[Node], rules: &[Rule]) -> String {
    let mut text = "[cluster]\nname = \"t\"\nsecret_file = \"t.secret\"\n".to_string();
    for (host, name) in HOSTS.iter().enumerate().take(hosts) {
        let of_host = nodes.iter().filter(|node| node.host == host);
        let names: Vec<String> = of_host.map(|node| format!("\"{}\"", node.name)).collect();
        let names = names.join(", ");
        let relay = format!("tcp://127.0.0.1:{}", 7000 + host);
        let _ =
            write!(text, "[[host]]\nname = \"{name}\"\nrelay = [\"{relay}\"]\nnodes = [{names}]\n");
    }
    for (chan, rule) in rules.iter().enumerate() {
        let ack = if rule.consumed { "consumed" } else { "stored" };
        let (ring, priority) = (rule.ring >> 10, rule.priority);
        let _ = write!(
            text,
            "[[channel]]\nchan = [{chan}]\nring = \"{ring}KiB\"\npath = \"relay\"\n\
             ack = \"{ack}\"\npriority = {priority}\nlinger = \"2s\"\n"
        );
    }
    text
}
