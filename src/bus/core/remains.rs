//! What is left of a channel whose receiver is gone, or whose streams begin anew.

use std::collections::VecDeque;
use std::rc::Rc;

use super::out::{Out, Waiting, Way};
use super::{Core, Event, Millis, kind};
use crate::bus::error::BusError;
use crate::bus::event::{PeerEvent, Undelivered};
use crate::bus::local::ToRelay;
use crate::shm::{MORE, RecordHeader};

/// A name that has no way is asked for again after so long.
const NO_PATH: Millis = 1000;

impl Core {
    pub(super) fn no_path(&mut self, id: u32, why: String) {
        if self.group_has_no_path(id, &why) {
            return;
        }
        let until = self.now + NO_PATH;
        let Some((_, out)) = self.out_by_id(id) else { return };
        let undelivered = out.undelivered(1);
        out.way = Way::None { why: why.clone(), until };
        let wanted = out.wanted.take().is_some();
        let (node, chan, closing) = (Rc::clone(&out.node), out.chan, out.closing);
        self.peer_ends(&node, chan, wanted);
        self.events.push_back(Event::Peer(PeerEvent::NoPath { node, chan, why, undelivered }));
        if closing && let Some(key) = self.out_ids.get(&id).copied() {
            self.forget(key);
            self.closed_if_through();
        }
    }

    /// Calls to a peer that is gone end, and who waits for room may try again.
    fn peer_ends(&mut self, node: &Rc<str>, chan: u16, wanted: bool) {
        for call in self.calls.of(node, chan) {
            self.events.push_back(Event::CallFailed { call, why: BusError::PeerGone });
        }
        if wanted {
            self.events.push_back(Event::Writable { to: Rc::clone(node), chan });
        }
    }

    /// The receiver has died.
    pub(super) fn gone(&mut self, id: u32, epoch: u64, first: u32, exact: bool) {
        let relayed = self.out_by_id(id).is_none_or(|(_, out)| !out.is_direct());
        if relayed {
            self.say_line(ToRelay::GoneSeen { id });
        }
        let Some((key, out)) = self.out_by_id(id) else { return };
        let sent = match &mut out.way {
            Way::Ring { outlet, .. } => outlet.sent().unwrap_or_else(|_| outlet.written()),
            _ => out.written(),
        };
        let mut undelivered = out.undelivered(first);
        let Some(out) = self.forget(key) else { return };
        let (node, chan) = (Rc::clone(&out.node), out.chan);
        self.peer_ends(&node, chan, out.wanted.is_some());
        let again = take_posted(&out, &mut undelivered);
        let gone = PeerEvent::Gone { node, chan, epoch, first, exact, sent, undelivered };
        self.events.push_back(Event::Peer(gone));
        self.post_again(again);
        self.closed_if_through();
    }
}

impl Out {
    /// What the receiver has not consumed, from message `first` on: of the ring, then what waits.
    pub fn undelivered(&mut self, first: u32) -> Vec<Undelivered> {
        let after = first.wrapping_sub(1);
        let records: Vec<(u32, RecordHeader, Vec<u8>)> = match &mut self.way {
            Way::Ring { outlet, .. } => outlet.undelivered(after).collect(),
            // The first record was the token.
            Way::Direct { neighbour, .. } => neighbour
                .unread()
                .into_iter()
                .filter(|(seq, header, _)| *seq > first && header.channel == self.chan)
                .map(|(seq, header, bytes)| (seq - 1, header, bytes))
                .collect(),
            _ => Vec::new(),
        };
        let waiting = self.queue.drain(..).map(|waiting| {
            let header = RecordHeader { len: 0, kind: waiting.kind, channel: self.chan };
            (0, header, waiting.payload[waiting.at..].to_vec())
        });
        let whole = together(records.into_iter().chain(waiting));
        self.queued = 0;
        whole
    }

    /// Takes back for a fresh ring what was not acknowledged.
    pub fn begin_anew(&mut self) {
        let (Ok(acked), Way::Ring { outlet, .. }) = (self.acked(), &mut self.way) else { return };
        let records: Vec<_> = outlet.undelivered(acked).collect();
        let queued: VecDeque<Waiting> = std::mem::take(&mut self.queue);
        self.queued = 0;
        let mut open: Option<Waiting> = None;
        for (_, header, bytes) in records {
            let mut waiting = open.take().unwrap_or(Waiting {
                kind: header.kind & !MORE,
                payload: Vec::new(),
                at: 0,
            });
            waiting.payload.extend_from_slice(&bytes);
            if header.kind & MORE != 0 {
                open = Some(waiting);
            } else {
                self.enqueue(waiting);
            }
        }
        for mut waiting in queued {
            if let Some(begun) = open.take() {
                waiting.payload.splice(..waiting.at, begun.payload);
                (waiting.kind, waiting.at) = (begun.kind, 0);
            }
            self.enqueue(waiting);
        }
        self.way = Way::Asked;
        self.posted.clear();
    }
}

/// Takes out of what was not delivered what another member of a group may have.
fn take_posted(out: &Out, undelivered: &mut Vec<Undelivered>) -> Vec<(usize, u16, Undelivered)> {
    let mut again = Vec::new();
    undelivered.retain(|message| {
        let group = out.posted.iter().find(|(seq, _)| *seq == message.seq && message.seq != 0);
        let Some((_, group)) = group else { return true };
        again.push((*group, out.chan, message.clone()));
        message.is_request
    });
    again.retain(|(_, _, message)| !message.is_request);
    again
}

/// Messages out of records: pieces together, without what precedes the user's bytes.
fn together(records: impl Iterator<Item = (u32, RecordHeader, Vec<u8>)>) -> Vec<Undelivered> {
    let mut whole: Vec<Undelivered> = Vec::new();
    let mut open = false;
    for (seq, header, bytes) in records {
        if std::mem::replace(&mut open, header.kind & MORE != 0)
            && let Some(last) = whole.last_mut()
        {
            last.seq = seq;
            last.bytes.extend_from_slice(&bytes);
            continue;
        }
        let of = header.kind & !MORE & !kind::DEADLINE;
        let deadline = if header.kind & kind::DEADLINE != 0 { 8 } else { 0 };
        let number = if of == kind::MESSAGE { 0 } else { 8 };
        let bytes = bytes.get(deadline + number..).unwrap_or_default().to_vec();
        if [kind::MESSAGE, kind::REQUEST].contains(&of) {
            whole.push(Undelivered { seq, is_request: of == kind::REQUEST, bytes });
        } else {
            // Nobody asks for an answer again.
            open = false;
        }
    }
    whole
}
