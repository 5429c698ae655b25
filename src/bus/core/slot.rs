//! A message that is written where it will be read from.

use std::fmt;

use super::Core;
use super::neighbour::Neighbour;
use super::out::{Head, Offer, Out, Way};
use super::outs::Post;
use crate::bus::error::BusError;
use crate::shm::Refused;
use crate::shm::through::Outlet;

/// Room for a message's bytes, in the channel's ring or, where there is none yet, beside it.
pub struct Slot<'a> {
    put: &'a mut dyn FnMut(usize, &[u8]),
    len: usize,
}

impl Slot<'_> {
    /// Bytes of the message.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes into it.
    ///
    /// # Panics
    /// Panics where the bytes do not lie inside.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let inside = at.checked_add(bytes.len()).is_some_and(|end| end <= self.len);
        assert!(inside, "a message is written inside its {} bytes", self.len);
        (self.put)(at, bytes);
    }
}

impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({} bytes)", self.len)
    }
}

/// Writes a message of `len` bytes.
pub(super) type Fill<'a> = &'a mut dyn FnMut(&mut Slot<'_>);

impl Core {
    /// Sends a message of `len` bytes that `fill` writes where it will be read from. What it does
    /// not write is arbitrary. It is called once if the message is accepted, and perhaps if not.
    pub fn send_in_place(
        &mut self,
        post: Post<'_>,
        len: usize,
        fill: &mut dyn FnMut(&mut Slot<'_>),
    ) -> Result<(), BusError> {
        if !post.to.starts_with('@')
            && self.may_post()
            && let Some((key, kind, head)) = self.place_of(post)?
            && let Some(out) = self.outs.get_mut(key)
            && out.write_in_place((kind, head), len, fill)
        {
            self.mark_dirty(key);
            return Ok(());
        }
        let mut bytes = vec![0; len];
        let mut put = |at: usize, from: &[u8]| bytes[at..at + from.len()].copy_from_slice(from);
        fill(&mut Slot { put: &mut put, len });
        self.send(post, &bytes)
    }
}

impl Out {
    /// Whether the ring has taken the message.
    fn write_in_place(&mut self, (kind, head): (u16, Head), len: usize, fill: Fill<'_>) -> bool {
        let probe = Offer { kind, head, body: &[], large: false };
        if !self.takes_now(probe.len() + len) {
            return false;
        }
        let chan = self.chan;
        let written = match &mut self.way {
            Way::Ring { outlet, .. } => write_to_ring(outlet, (kind, chan), &head, len, fill),
            Way::Direct { neighbour, sent } => {
                let written = write_to(&**neighbour, (kind, chan), &head, len, fill);
                *sent = sent.wrapping_add(u32::from(written.is_ok()));
                written
            }
            _ => Err(Refused::Full),
        };
        self.counts.accepted += u64::from(written.is_ok());
        written.is_ok()
    }
}

fn write_to_ring(
    outlet: &mut Outlet,
    (kind, chan): (u16, u16),
    head: &Head,
    len: usize,
    fill: Fill<'_>,
) -> Result<(), Refused> {
    let head = head.as_bytes();
    let whole = u32::try_from(head.len() + len).map_err(|_| Refused::TooLong)?;
    let mut place = outlet.reserve(whole)?;
    place.write(0, head);
    fill(&mut Slot { put: &mut |at, bytes| place.write(head.len() + at, bytes), len });
    place.commit(kind, chan);
    Ok(())
}

fn write_to(
    neighbour: &dyn Neighbour,
    of: (u16, u16),
    head: &Head,
    len: usize,
    fill: Fill<'_>,
) -> Result<(), Refused> {
    let head = head.as_bytes();
    let whole = u32::try_from(head.len() + len).map_err(|_| Refused::TooLong)?;
    neighbour.push_in_place(of, whole, &mut |put| {
        put(0, head);
        fill(&mut Slot { put: &mut |at, bytes| put(head.len() + at, bytes), len });
    })
}
