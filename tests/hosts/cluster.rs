//! Nine processes on three hosts, each talking to all others, and what is known of their messages.

use std::thread;
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, PATIENCE};
use crate::ledger::{Log, now, seconds};

const HOSTS: [(&str, &[&str]); 3] =
    [("a", &["a1", "a2", "a3"]), ("b", &["b1", "b2", "b3"]), ("c", &["c1", "c2", "c3"])];

/// Messages per second of every pair,
const RATE: u64 = 100;

/// and of one.
const FAST: (&str, &str, u64) = ("a1", "b1", 1000);

/// After the first message from everybody gaps are looked for so long.
const LOOK: Duration = Duration::from_millis(1000);

/// What neighbours notice of a relay's death.
pub const NEIGHBOURS: &str = "neighbours while relays are dead";

/// Pairs that take longer are counted.
const SLOW: Duration = Duration::from_millis(300);

/// What a fault cost: the longest time without a message of a pair after its cause was gone.
pub struct Recovery {
    pub what: &'static str,
    pub gap: Duration,
    /// Of which pair.
    pub pair: String,
}

pub struct Cluster {
    pub fleet: Fleet,
    pub logs: Vec<Log>,
    pub recoveries: Vec<Recovery>,
    /// Messages that dead receivers had under work: their log has them, their relay has not.
    pub under_work: u64,
    /// Messages to receivers that died which they had not consumed, by the senders' reports.
    pub reported: u64,
    /// Messages that came to processes which are dead.
    buried: u64,
}

/// What a sender was told of a receiver's death.
struct Gone {
    first: u32,
    exact: bool,
    next: u64,
}

fn parse_gone(line: &str) -> Gone {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |key: &str| {
        let at = words.iter().position(|word| *word == key).unwrap_or_else(|| panic!("{line}"));
        words[at + 1]
    };
    Gone {
        first: after("first").parse().unwrap(),
        exact: after("exact") == "true",
        next: after("next").parse().unwrap(),
    }
}

impl Cluster {
    pub fn start() -> Cluster {
        let fleet = Fleet::start(&HOSTS, "");
        let logs = fleet.agents.iter().map(|agent| Log::open(&agent.name, &agent.log)).collect();
        let (recoveries, under_work, reported, buried) = (Vec::new(), 0, 0, 0);
        let mut cluster = Cluster { fleet, logs, recoveries, under_work, reported, buried };
        let begun = now();
        for at in 0..cluster.fleet.agents.len() {
            cluster.talk(at);
        }
        cluster.recovered("start", begun);
        for log in &cluster.logs {
            assert!(
                log.heard.values().all(|one| one.first == 1),
                "{} missed a beginning",
                log.name
            );
        }
        cluster
    }

    /// A process sends to all others from now on.
    fn talk(&mut self, at: usize) {
        let names = self.others(at);
        let agent = &mut self.fleet.agents[at];
        for to in names {
            let fast = (&*agent.name, &*to) == (FAST.0, FAST.1);
            let rate = if fast { FAST.2 } else { RATE };
            agent.run.order(&format!("pace {to} 0 {rate} 1000000000"));
        }
    }

    fn others(&self, at: usize) -> Vec<String> {
        let others = self.fleet.agents.iter().enumerate().filter(|(other, _)| *other != at);
        others.map(|(_, agent)| agent.name.clone()).collect()
    }

    /// Something is going to be broken: what came until now belongs to what was before.
    pub fn read(&mut self) {
        for log in &mut self.logs {
            log.read();
        }
        let wrong: Vec<&String> = self.logs.iter().flat_map(|log| &log.wrong).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Relays are going to die: their processes must not notice it among themselves.
    pub fn watch(&mut self) {
        self.read();
        let since = now();
        self.logs.iter_mut().for_each(|log| log.measure(since));
    }

    /// For how long neighbours have not heard of each other since [`Cluster::watch`].
    pub fn watched(&mut self) {
        let (gap, pair) = self
            .gaps()
            .into_iter()
            .rfind(|(_, pair)| pair.as_bytes()[0] == pair.as_bytes()[6])
            .expect("there are neighbours");
        self.recoveries.push(Recovery { what: NEIGHBOURS, gap, pair });
    }

    /// The longest gap of each pair since gaps are measured, the longest last.
    fn gaps(&mut self) -> Vec<(Duration, String)> {
        let gaps = self.logs.iter_mut().flat_map(|log| {
            let (gaps, to) = (log.gaps(), log.name.clone());
            let pair = move |(from, gap)| (Duration::from_nanos(gap), format!("{from} to {to}"));
            gaps.into_iter().map(pair)
        });
        let mut gaps: Vec<(Duration, String)> = gaps.collect();
        gaps.sort();
        gaps
    }

    /// The cause of a fault is gone: from now on gaps are looked for.
    pub fn gone(&mut self, since: u64) {
        for log in &mut self.logs {
            log.measure(since);
        }
    }

    /// Waits until something has come of everybody since the cause of a fault was gone, and notes
    /// how long that took.
    pub fn recovered(&mut self, what: &'static str, since: u64) {
        self.gone(since);
        self.settled(what, since);
    }

    /// The same, when [`Cluster::gone`] was said before.
    pub fn settled(&mut self, what: &'static str, since: u64) {
        let peers: Vec<Vec<String>> = (0..self.logs.len()).map(|at| self.others(at)).collect();
        let until = Instant::now() + PATIENCE;
        loop {
            self.read();
            let late = self.logs.iter().zip(&peers).find(|(log, peers)| !log.came(peers));
            let Some((log, peers)) = late else { break };
            if Instant::now() > until {
                let of = peers.iter().find(|peer| !log.came(&[(*peer).clone()]));
                panic!("{what}: nothing comes from {of:?} to {}", log.name);
            }
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(LOOK);
        let mut gaps = self.gaps();
        let slow = gaps.iter().filter(|(gap, _)| *gap > SLOW).count();
        let (gap, pair) = gaps.pop().expect("there are processes");
        let time = seconds(since);
        println!("  {time:.3} {what}: {} ms, {pair}; {slow} pairs slow", gap.as_millis());
        self.recoveries.push(Recovery { what, gap, pair });
        self.read();
    }

    /// A process dies, and is started anew, at once or after everybody has heard of it.
    pub fn kill_process(&mut self, at: usize, at_once: bool) {
        self.read();
        let name = self.fleet.agents[at].name.clone();
        let heard: Vec<usize> = self.fleet.agents.iter().map(|agent| agent.run.lines()).collect();
        self.fleet.agents[at].run.kill();
        let mut since = now();
        if at_once {
            self.fleet.again(at);
        }
        let begins = format!("peer {name} 0 gone ");
        let others: Vec<usize> = (0..heard.len()).filter(|other| *other != at).collect();
        let gone = others.iter().map(|&other| {
            (other, parse_gone(&self.fleet.agents[other].run.wait_for(heard[other], &begins)))
        });
        let gone: Vec<(usize, Gone)> = gone.collect();
        if !at_once {
            since = now();
            self.fleet.again(at);
        }
        let agent = &self.fleet.agents[at];
        agent.run.wait_for(0, "here ");
        let mut dead = std::mem::replace(&mut self.logs[at], Log::open(&name, &agent.log));
        dead.read();
        assert!(dead.wrong.is_empty(), "{:#?}", dead.wrong);
        self.talk(at);
        self.recovered("process", since);
        for (other, gone) in gone {
            self.judge_receiver(&dead, at, other, &gone);
            self.judge_sender(&dead, other);
        }
        self.buried += dead.heard.values().map(|one| one.count).sum::<u64>();
    }

    /// What a sender was told of a dead receiver is what that one has written down; and what comes
    /// to its next instance begins where the sender had said so.
    fn judge_receiver(&mut self, dead: &Log, at: usize, other: usize, gone: &Gone) {
        let other = &self.logs[other].name;
        let one = dead.heard.get(other).cloned().unwrap_or_default();
        let what = format!("{other} on the death of {}", dead.name);
        assert!(gone.exact, "{what}: not exact, and its relay was there");
        // The log is written before the message counts as consumed.
        let under_work = gone.first == one.seq;
        assert!(
            under_work || gone.first == one.seq + 1,
            "{what}: told {}, and {} is the last in its log",
            gone.first,
            one.seq
        );
        self.under_work += u64::from(under_work);
        self.reported += gone.next - one.last - 1;
        let first = self.logs[at].heard[other].first;
        assert_eq!(first, gone.next, "{what}: what comes after it begins elsewhere");
    }

    /// Everything that a dead process had sent was consumed by those who live.
    fn judge_sender(&self, dead: &Log, other: usize) {
        let other = &self.logs[other];
        let one = &other.heard[&dead.name];
        let last = one.before.last().map_or(0, |(_, _, last)| *last);
        let accepted = dead.accepted.get(&other.name).copied().unwrap_or(0);
        // Its log has what was accepted before its last turns.
        assert!(
            last >= accepted,
            "{}, which died, had sent {accepted} to {}, which got {last}",
            dead.name,
            other.name
        );
        assert_eq!(one.first, 1, "{} anew to {}", dead.name, other.name);
    }

    /// Everybody stops, and everything has come. How many messages.
    pub fn finish(&mut self) -> u64 {
        for agent in &mut self.fleet.agents {
            agent.run.order("stop");
        }
        for agent in &self.fleet.agents {
            agent.run.wait_for(0, "stopped");
        }
        let until = Instant::now() + PATIENCE;
        let mut missing = self.missing();
        while !missing.is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
            missing = self.missing();
        }
        assert!(missing.is_empty(), "lost: {missing:#?}");
        let counts = self.logs.iter().flat_map(|log| log.heard.values()).map(|one| one.count);
        counts.sum::<u64>() + self.buried
    }

    /// What was accepted and has not come.
    fn missing(&mut self) -> Vec<String> {
        self.read();
        let mut missing = Vec::new();
        for sender in &self.logs {
            for receiver in self.logs.iter().filter(|log| log.name != sender.name) {
                let accepted = sender.accepted.get(&receiver.name).copied().unwrap_or(0);
                let got = receiver.heard.get(&sender.name).map_or(0, |one| one.last);
                if got != accepted {
                    let (from, to) = (&sender.name, &receiver.name);
                    missing.push(format!("{from} to {to}: {accepted} accepted, {got} came"));
                }
            }
        }
        missing
    }
}
