//! What comes over links.

use ringlane_api::Evbuffer;
use ringlane_api::slab::Key;

use crate::frame::{Frame, Malformed};

use super::{Core, LinkId, Now, Out};

impl Core {
    /// Takes the frames off the front of a link's input. After an error the link is to be closed;
    /// what came before it was good.
    pub fn link_input(&mut self, link: LinkId, input: &mut Evbuffer) -> Result<(), Malformed> {
        let Some(one) = self.links.get_mut(link.0) else {
            input.drain(usize::MAX);
            return Ok(());
        };
        let mut decoder = std::mem::take(&mut one.decoder);
        let result = loop {
            match decoder.next(input) {
                Ok(Some(frame)) => self.heard(link.0, frame),
                Ok(None) => break Ok(()),
                Err(malformed) => break Err(malformed),
            }
        };
        decoder.settle(input);
        if let Some(one) = self.links.get_mut(link.0) {
            one.decoder = decoder;
        }
        self.counts.broken += u64::from(result.is_err());
        result
    }

    /// What was written to ourselves.
    pub(super) fn loop_back(&mut self, link: Key) {
        let Some(one) = self.links.get_mut(link) else { return };
        let mut input = std::mem::take(&mut one.out);
        let heard = self.link_input(LinkId(link), &mut input);
        debug_assert!(heard.is_ok(), "what was encoded here is well formed: {heard:?}");
    }

    fn heard(&mut self, link: Key, frame: Frame<'_>) {
        match frame {
            Frame::Data { bind, seq, gaps, body } => self.data(link, bind, seq, gaps, body),
            Frame::Open(open) => self.opened(link, &open),
            Frame::Skip { bind, seq, to } => self.skip(link, bind, seq, to),
            Frame::Fin { bind, last } => self.fin(link, bind, Some(last)),
            Frame::Abort { bind } => self.fin(link, bind, None),
            Frame::GoneOk { bind } => self.gone_heard(link, bind),
            Frame::Ping { id } => self.frame(link, &Frame::Pong { id }),
            Frame::Pong { id } => self.out.push_back(Out::Pong(LinkId(link), id)),
            Frame::Bye { why, .. } => self.out.push_back(Out::Bye(LinkId(link), why)),
            Frame::Stuck { .. } => {}
            Frame::Probe { id, src, dst, stamps } => self.probed_here(link, id, src, dst, stamps),
            Frame::Probed { id, stamps, .. } => self.probe_came_back(link, id, stamps),
            _ => self.heard_back(link, frame),
        }
    }

    /// Frames to the side that sends, which counts for its present binding only.
    fn heard_back(&mut self, link: Key, frame: Frame<'_>) {
        let key = self.links.get(link).and_then(|link| link.nears.get(&frame.bind()).copied());
        let Some(key) = key else {
            self.counts.stray += 1;
            return;
        };
        match frame {
            Frame::Resume { next, limit, epoch, record_bytes_max, .. } => {
                self.resumed(key, next, limit, epoch, record_bytes_max);
            }
            Frame::Ack { stored, limit, consumed, expired, .. } => {
                self.acked(key, stored, limit, consumed, expired);
            }
            Frame::Pending { why, .. } => self.pending(key, why.to_string()),
            Frame::Stale { known, .. } => self.stale(key, known),
            Frame::Unreach { why, text, .. } => self.refused(key, why, text),
            Frame::Gone { epoch, first, exact, .. } => self.gone(key, epoch, first, exact),
            Frame::Closed { .. } => self.closed(key),
            _ => {}
        }
    }

    /// Time has passed: a tenth of a second or so.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        self.look_after();
        self.forget_probes();
    }
}
