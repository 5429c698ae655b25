//! `ringlane ping`: to a process and back, with the time that each station took.

use std::time::{Duration, Instant};

use ringlane_api::slab::Key;

use crate::bus::local::FromRelay;
use crate::frame::{Frame, StampList, Stamps};

use super::{ConnId, Core, Out};

/// After so long no answer comes any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Probes that wait for an answer, at most: each is a person at a terminal.
const PROBES_MAX: usize = 1024;

/// Probes that wait for an answer.
#[derive(Default)]
pub struct Probes {
    waiting: Vec<Probe>,
    next: u64,
}

struct Probe {
    id: u64,
    /// Who is to hear the answer: somebody here, or a relay.
    back: Back,
    /// Whose answer it is: a process here, or the relay over a link.
    at: Key,
    since: Instant,
    dst: String,
}

enum Back {
    Here(ConnId),
    Link { link: Key, id: u64, src: String, stamps: StampList },
}

impl Core {
    /// Somebody asks how long it takes to a node and back. The answer is [`FromRelay::Answer`], one
    /// line for each station; or why there is none.
    pub fn ping(&mut self, conn: ConnId, to: &str) -> Result<(), String> {
        let node = self.cluster.node(to).ok_or_else(|| self.cluster.no_such_node(to))?;
        let (name, host) = (node.name.to_string(), node.host.name.clone());
        if host == *self.host {
            let at = *self.names.get(name.as_str()).ok_or_else(|| not_here(&name))?;
            return self.ask_process(at, Back::Here(conn), name);
        }
        let Some(link) = self.link_of(&host) else {
            self.out.push_back(Out::Want(host.as_str().into()));
            return Err(format!("there is no link to the relay of host `{host}` yet; try again"));
        };
        let id = self.wait_for(Back::Here(conn), link, name.clone())?;
        let src = self.host.to_string();
        let stamps = StampList::new();
        self.frame(link, &Frame::Probe { id, src: &src, dst: &name, stamps: stamps.stamps() });
        Ok(())
    }

    fn wait_for(&mut self, back: Back, at: Key, dst: String) -> Result<u64, String> {
        if self.probes.waiting.len() >= PROBES_MAX {
            return Err(format!("{PROBES_MAX} probes are under way"));
        }
        self.probes.next += 1;
        let (id, since) = (self.probes.next, self.now.instant);
        self.probes.waiting.push(Probe { id, back, at, since, dst });
        Ok(id)
    }

    fn ask_process(&mut self, at: Key, back: Back, dst: String) -> Result<(), String> {
        let id = self.wait_for(back, at, dst)?;
        self.say(at, FromRelay::Probe { id });
        Ok(())
    }

    /// A relay asks for a process of this host.
    pub(super) fn probed_here(
        &mut self,
        link: Key,
        id: u64,
        src: &str,
        dst: &str,
        stamps: Stamps<'_>,
    ) {
        let stamps = StampList::of(stamps);
        let here = self.names.get(dst).copied();
        let back = Back::Link { link, id, src: src.to_string(), stamps: stamps.clone() };
        if here.is_some_and(|at| self.ask_process(at, back, dst.to_string()).is_ok()) {
            return;
        }
        // Without a process the answer is the relay's own, which the missing stamp shows.
        self.frame(link, &Frame::Probed { id, src, dst, stamps: stamps.stamps() });
    }

    /// A process has answered.
    pub(super) fn probe_answered(&mut self, conn: Key, id: u64) {
        let fits = |one: &Probe| one.id == id && one.at == conn;
        let Some(at) = self.probes.waiting.iter().position(fits) else { return };
        let probe = self.probes.waiting.swap_remove(at);
        let took = self.now.instant.saturating_duration_since(probe.since);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        match probe.back {
            Back::Here(asker) => {
                let text = format!("process {} {nanos}\n", probe.dst);
                self.say(asker.0, FromRelay::Answer { text });
            }
            Back::Link { link, id, src, mut stamps } => {
                stamps.push(&probe.dst, nanos);
                let (src, dst, stamps) = (src.as_str(), probe.dst.as_str(), stamps.stamps());
                self.frame(link, &Frame::Probed { id, src, dst, stamps });
            }
        }
    }

    /// The answer to a probe of ours.
    pub(super) fn probe_came_back(&mut self, link: Key, id: u64, stamps: Stamps<'_>) {
        let fits = |one: &Probe| one.id == id && one.at == link;
        let Some(at) = self.probes.waiting.iter().position(fits) else { return };
        let probe = self.probes.waiting.swap_remove(at);
        let Back::Here(asker) = probe.back else { return };
        let whole = self.now.instant.saturating_duration_since(probe.since).as_nanos();
        let mut text = String::new();
        let mut inside = 0;
        for (hop, nanos) in stamps.iter() {
            inside += u128::from(nanos);
            text.push_str(&format!("process {hop} {nanos}\n"));
        }
        if inside == 0 {
            text.push_str(&format!("absent {}\n", probe.dst));
        }
        text.push_str(&format!("link {} {}\n", self.host, whole.saturating_sub(inside)));
        self.say(asker.0, FromRelay::Answer { text });
    }

    pub(super) fn forget_probes(&mut self) {
        let now = self.now.instant;
        let late = |one: &Probe| now.saturating_duration_since(one.since) > PATIENCE;
        let (gone, kept) = std::mem::take(&mut self.probes.waiting).into_iter().partition(late);
        self.probes.waiting = kept;
        let gone: Vec<Probe> = gone;
        for probe in gone {
            if let Back::Here(asker) = probe.back {
                let text = format!("no answer from {} in {} s\n", probe.dst, PATIENCE.as_secs());
                self.say(asker.0, FromRelay::Answer { text });
            }
        }
    }
}

fn not_here(name: &str) -> String {
    format!("no process has registered as `{name}`")
}
