//! What is left of a channel whose receiver is gone, or whose streams begin anew.

use std::collections::VecDeque;

use super::kind;
use super::out::{Out, Waiting, Way};
use crate::bus::event::Undelivered;
use crate::shm::{MORE, RecordHeader};

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
