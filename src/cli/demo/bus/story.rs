//! What happens in the demo of the bus.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringlane::relay::handshake::random;

use super::hosts::{Folder, Process};

/// Who sends to whom.
pub type Pair = (String, String);

/// What came on a channel between two marks.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// One more than the last number.
    pub next: u64,
    pub lost: u64,
    pub doubled: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// All processes of the demo.
pub struct Story {
    engine: String,
    config: PathBuf,
    relays: BTreeMap<&'static str, Process>,
    agents: BTreeMap<&'static str, Process>,
    sent: BTreeMap<Pair, u64>,
    /// Goes last.
    _folder: Folder,
}

/// Which nodes are where.
const NODES: [(&str, &str); 4] = [("login", "a"), ("web", "a"), ("db", "b"), ("audit", "b")];

fn socket(host: &str) -> String {
    format!("@ringlane-demo-{}-{host}", std::process::id())
}

/// A port that is free now; the relay takes it at once.
fn port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a port")?;
    Ok(listener.local_addr().context("a port")?.port())
}

impl Story {
    /// Writes the configuration, and starts everybody.
    pub fn begin(engine: &str) -> Result<Story> {
        let folder = Folder::new()?;
        let secret: [u8; 16] = random().context("random bytes")?;
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        folder.write("demo.secret", &secret)?;
        let mut text = "[cluster]\nname = \"demo\"\nsecret_file = \"demo.secret\"\n".to_string();
        for host in ["a", "b"] {
            let nodes = NODES.iter().filter(|(_, at)| *at == host);
            let nodes: Vec<String> = nodes.map(|(name, _)| format!("{name:?}")).collect();
            text.push_str(&format!(
                "[[host]]\nname = \"{host}\"\nrelay = [\"tcp://127.0.0.1:{}\"]\nnodes = [{}]\n",
                port()?,
                nodes.join(", ")
            ));
        }
        let config = folder.write("cluster.toml", &text)?;
        let mut story = Story {
            engine: engine.to_string(),
            config,
            relays: BTreeMap::new(),
            agents: BTreeMap::new(),
            sent: BTreeMap::new(),
            _folder: folder,
        };
        for host in ["a", "b"] {
            story.start(host)?;
        }
        for (name, host) in NODES {
            story.agents.insert(name, Process::agent(name, engine, &socket(host))?);
        }
        Ok(story)
    }

    /// Starts the relay of a host.
    pub fn start(&mut self, host: &'static str) -> Result<()> {
        let relay = Process::relay(host, &self.engine, &self.config, &socket(host))?;
        self.relays.insert(host, relay);
        Ok(())
    }

    /// Kills the relay of a host.
    pub fn kill(&mut self, host: &str) -> Result<()> {
        self.relays.remove(host).context("no such relay")?.kill()
    }

    pub fn sleep(&self, millis: u64) {
        std::thread::sleep(Duration::from_millis(millis));
    }

    fn agent(&mut self, name: &str) -> Result<&mut Process> {
        self.agents.get_mut(name).with_context(|| format!("no process {name}"))
    }

    /// A first message on every channel, so that all of them stand.
    pub fn meet(&mut self, pairs: &[(&str, &str)]) -> Result<()> {
        self.pace(pairs, 1000, 1).map(drop)
    }

    /// So many messages on every channel, so many per second; what came.
    pub fn pace(
        &mut self,
        pairs: &[(&str, &str)],
        rate: u64,
        count: u64,
    ) -> Result<BTreeMap<Pair, Heard>> {
        self.pace_and(pairs, rate, count, |_| Ok(()))
    }

    /// The same, while something happens.
    pub fn pace_and(
        &mut self,
        pairs: &[(&str, &str)],
        rate: u64,
        count: u64,
        meanwhile: impl FnOnce(&mut Story) -> Result<()>,
    ) -> Result<BTreeMap<Pair, Heard>> {
        for (from, to) in pairs {
            self.agent(from)?.tell(&format!("pace {to} 0 {rate} {count}"))?;
            *self.sent.entry((from.to_string(), to.to_string())).or_default() += count;
        }
        meanwhile(self)?;
        for name in NODES.map(|(name, _)| name) {
            for _ in pairs.iter().filter(|(from, _)| *from == name) {
                self.agent(name)?.until(|line| line.starts_with("paced "))?;
            }
        }
        self.mark()
    }

    /// As many messages as fast as it may; how many per second it was.
    pub fn burst(&mut self, from: &str, to: &str, count: u64, bytes: u64) -> Result<f64> {
        let agent = self.agent(from)?;
        agent.tell(&format!("burst {to} 0 {count} {bytes}"))?;
        let lines = agent.until(|line| line.starts_with("burst "))?;
        let nanos = lines.last().and_then(|line| line.rsplit(' ').next());
        let nanos: f64 = nanos.context("no time")?.parse().context("no time")?;
        *self.sent.entry((from.to_string(), to.to_string())).or_default() += count;
        self.mark()?;
        Ok(count as f64 / nanos * 1e9)
    }

    /// Everybody says what came, when everything has.
    fn mark(&mut self) -> Result<BTreeMap<Pair, Heard>> {
        let mut all: BTreeMap<Pair, Heard> = BTreeMap::new();
        for to in NODES.map(|(name, _)| name) {
            // What is acknowledged is in the receiver's ring, and read a moment later.
            for turn in 0.. {
                let agent = self.agent(to)?;
                agent.tell("mark")?;
                let lines = agent.until(|line| line == "marked")?;
                for line in &lines {
                    take_line(line, to, &mut all)?;
                }
                let came = self.sent.iter().filter(|((_, receiver), _)| *receiver == to);
                let mut came = came.map(|(pair, sent)| (all.get(pair), *sent));
                if came.all(|(heard, sent)| heard.is_some_and(|heard| heard.next > sent)) {
                    break;
                }
                if turn > 100 {
                    bail!("not everything that was acknowledged has come to {to}");
                }
                self.sleep(20);
            }
        }
        Ok(all)
    }

    /// How many messages were sent on each channel.
    pub fn numbers(&self) -> BTreeMap<Pair, u64> {
        self.sent.clone()
    }

    /// Everybody ends in peace.
    pub fn end(mut self) -> Result<()> {
        for (_, agent) in std::mem::take(&mut self.agents) {
            agent.end()?;
        }
        for (_, relay) in std::mem::take(&mut self.relays) {
            relay.terminate()?;
        }
        Ok(())
    }
}

/// Reads `from NAME CHAN got N next N …`, keeping the worst of several marks.
fn take_line(line: &str, to: &str, all: &mut BTreeMap<Pair, Heard>) -> Result<()> {
    let mut words = line.split_whitespace();
    let (Some("from"), Some(from), Some(_)) = (words.next(), words.next(), words.next()) else {
        return Ok(());
    };
    let words: Vec<&str> = words.collect();
    let field = |name: &str| -> Result<u64> {
        let pair = words.chunks_exact(2).find(|pair| pair[0] == name);
        let value = pair.with_context(|| format!("no {name} in `{line}`"))?[1];
        value.parse().with_context(|| format!("{name} in `{line}`"))
    };
    let heard = all.entry((from.to_string(), to.to_string())).or_default();
    heard.next = field("next")?;
    heard.lost = field("lost")?;
    heard.doubled = field("doubled")?;
    heard.p50_us = heard.p50_us.max(field("p50")? / 1000);
    heard.p99_us = heard.p99_us.max(field("p99")? / 1000);
    heard.max_us = heard.max_us.max(field("max")? / 1000);
    Ok(())
}
