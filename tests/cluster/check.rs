//! Exactly once, in order, and no more said of the dead than is true.

use std::collections::BTreeMap;

use ringlane::bus::PeerEvent;
use ringlane::shm::crash::Point;

use crate::message::{Letter, Read};
use crate::process::{Line, Process};
use crate::world::World;

/// What a receiver has of one channel of one sender.
#[derive(Clone, Copy, Debug)]
struct Got {
    /// The next message's number.
    next: u32,
    epoch: u64,
    /// The last message's last record.
    seq: u32,
    /// The receiver was told that this stream is over.
    ended: bool,
}

/// Who has got what: receiver, sender, channel.
#[derive(Default)]
pub struct Book(BTreeMap<(u32, u32, u16), Got>);

/// The first message from `from` on that may not be missing.
fn skip(line: &Line, from: u32) -> u32 {
    let may_be_missing = |at: &u32| line.letters.get(*at as usize).copied().unwrap_or(false);
    (from..).find(|at| !may_be_missing(at)).unwrap_or(from)
}

fn plain(line: &Line) -> bool {
    !line.ttl && !line.large
}

impl World {
    /// Looks at what a process has got and was told in a turn.
    pub fn check_process(&mut self, process: usize) {
        let epoch = self.processes[process].core.epoch();
        if self.processes[process].epochs.last() != Some(&epoch) {
            self.processes[process].epochs.push(epoch);
        }
        if let Some(why) = self.processes[process].over.take() {
            self.fail(|| format!("process {process}: {why}"));
        }
        let got = self.processes[process].got.take();
        for read in got {
            self.tally.messages += 1;
            if let Err(why) = self.check_read(process, &read) {
                let (node, seq) = (read.node, read.seq);
                self.fail(|| format!("process {process} gets record {seq} of {node}: {why}"));
            }
        }
        let told = std::mem::take(&mut self.processes[process].told);
        for event in told {
            self.log(|| format!("process {process} is told {:.300}", format!("{event:?}")));
            if let Err(why) = self.check_told(process, &event) {
                let what = format!("{event:?}");
                self.fail(|| format!("process {process} is told {what:.200}: {why}"));
            }
        }
    }

    fn line(&self, from: u32, to: usize, chan: u16) -> Option<&Line> {
        let sender = self.processes.get(from as usize)?;
        sender.lines.iter().find(|line| line.to == to && line.chan == chan)
    }

    fn check_read(&mut self, process: usize, read: &Read) -> Result<(), String> {
        let Letter { from, counter, chan } = read.letter.clone()?;
        let me = self.processes[process].node;
        let line = self.line(from, me, chan).ok_or("a message of nobody's")?;
        let sender = &self.processes[from as usize];
        if self.plan.nodes[sender.node].name != read.node || chan != read.chan {
            return Err(format!("it is from process {from}, of another node or channel"));
        }
        let at = (process as u32, from, chan);
        let before = self.book.0.get(&at).copied();
        let fits = match before {
            Some(got) => counter >= got.next && skip(line, got.next) >= counter,
            None => line.bases.iter().any(|base| counter >= *base && skip(line, *base) >= counter),
        };
        // A clock that went back, and a relay that knew of no later epoch: the sender is told on
        // the way, and what was not acknowledged then goes once more.
        let anew = before.is_some_and(|got| got.epoch != read.epoch && counter < got.next);
        // And a receiver that began anew was taken for another one.
        let renewed = self.processes[process].epochs.len() > 1 && line.bases.contains(&counter);
        let fits = fits || anew && sender.epochs.len() > 1 || renewed;
        if !fits {
            let bases = &line.bases;
            return Err(format!("message {counter} of {from}, after {before:?}, of {bases:?}"));
        }
        let next = before.filter(|got| got.epoch == read.epoch).map(|got| got.seq + 1);
        // In its stream, or in the one that begins with the other one that it was taken for.
        let over = before.is_some_and(|got| got.ended);
        let begins = renewed && over && read.seq == 1;
        if plain(line) && !begins && next.is_some_and(|next| next != read.seq) {
            return Err(format!("record {next:?} was next"));
        }
        let got = Got { next: counter + 1, epoch: read.epoch, seq: read.seq, ended: false };
        self.book.0.insert(at, got);
        Ok(())
    }

    fn check_told(&mut self, process: usize, event: &PeerEvent) -> Result<(), String> {
        match event {
            PeerEvent::Gone { node, chan, epoch, first, exact, sent, undelivered } => {
                self.tally.gone[usize::from(!exact)] += 1;
                let of_node = |name: &str| self.plan.nodes.iter().position(|at| at.name == name);
                let to = of_node(node).ok_or("no such node")?;
                let line = self.line(process as u32, to, *chan).ok_or("no such channel")?;
                let mut dead = self.processes.iter().filter(|other| other.node == to);
                let dead = dead.find(|other| other.epochs.contains(epoch));
                let dead = dead.ok_or("nobody had that epoch")?;
                if dead.alive && dead.epochs.last() == Some(epoch) {
                    return Err(format!("process {} lives", dead.number));
                }
                let got = self.book.0.get(&(dead.number, process as u32, *chan));
                let got = got.filter(|got| got.next > line.bases[line.bases.len() - 2]);
                let seq = got.map_or(0, |got| got.seq);
                // The callback had returned, and the word was not stored.
                let amid = dead.died_at == Some(Point::Shown);
                let holds = match (exact, plain(line)) {
                    (true, true) => *first == seq + 1 || amid && *first == seq,
                    (true, false) => *first + u32::from(amid) > seq,
                    (false, _) => *first <= seq + 1,
                };
                if !holds || *sent < seq {
                    return Err(format!("process {} had consumed record {seq}", dead.number));
                }
                let mut counters = Vec::new();
                for one in undelivered.iter().filter(|_| plain(line)) {
                    let word = one.bytes.get(4..8).and_then(|word| word.try_into().ok());
                    counters.push(u32::from_le_bytes(word.ok_or("a message without a head")?));
                }
                let all = line.letters.len() as u32;
                let from = all.saturating_sub(counters.len() as u32);
                if !counters.iter().copied().eq(from..all) && plain(line) {
                    return Err(format!("undelivered are {counters:?} of {all}"));
                }
                Ok(())
            }
            PeerEvent::Ended { node, chan, epoch, last, .. } => {
                let me = self.processes[process].node;
                let of_node = |other: &&Process| self.plan.nodes[other.node].name == **node;
                let sender = self.processes.iter().find(of_node).ok_or("no such node")?;
                let line = self.line(sender.number, me, *chan).ok_or("no such channel")?;
                let mine = self.book.0.range((process as u32, 0, 0)..(process as u32 + 1, 0, 0));
                let of_stream = |(at, got): (&(u32, u32, u16), &Got)| {
                    let same = at.2 == *chan && got.epoch == *epoch;
                    (same && self.processes[at.1 as usize].node == sender.node).then_some(got.seq)
                };
                // Two instances may have had the same epoch; the last one counts.
                let seq = mine.filter_map(of_stream).next_back().unwrap_or(0);
                // A relay that comes back may ask for a ring for a stream that is over.
                if plain(line) && seq != *last && *last > 0 {
                    return Err(format!("record {seq} was the last that was shown"));
                }
                let node = sender.node;
                let mine = (process as u32, 0, 0)..(process as u32 + 1, 0, 0);
                for (at, got) in self.book.0.range_mut(mine) {
                    let same = at.2 == *chan && got.epoch == *epoch;
                    got.ended |= same && self.processes[at.1 as usize].node == node;
                }
                Ok(())
            }
            PeerEvent::NoPath { .. } | PeerEvent::TooLarge { .. } => Err("nonsense".into()),
            _ => Ok(()),
        }
    }

    /// What is still missing now that trouble is over.
    pub fn missing(&mut self) -> Option<String> {
        for node in 0..self.current.len() {
            let Some(process) = self.current[node] else { return Some("a process".into()) };
            for at in 0..self.processes[process].lines.len() {
                let line = &self.processes[process].lines[at];
                let all = line.letters.len() as u32;
                let base = line.bases.last().copied().unwrap_or(0);
                let Some(to) = self.current[line.to] else { return Some("a process".into()) };
                let got = self.book.0.get(&(to as u32, process as u32, line.chan));
                let next = got.map_or(base, |got| got.next.max(base));
                if skip(line, next) < all {
                    let (to, chan) = (&line.name, line.chan);
                    return Some(format!(
                        "process {process} to {to}/{chan}: {next} of {all} messages have come"
                    ));
                }
            }
            let left = self.processes[process].core.unacknowledged();
            if left > 0 {
                let status = self.processes[process].core.out_status();
                return Some(format!("process {process}: {left} are not acknowledged: {status:?}"));
            }
        }
        None
    }
}
