//! Registered memory of the software device: who owns which bytes at the moment.
//!
//! Invariant: no byte is written by the device and touched by anybody else at the same time. What
//! the device will write is overwritten with [`POISON`] when it is handed over, so that somebody
//! who looks at more than what arrived finds no plausible old message there.

use super::super::verbs::{DeviceLimits, Piece, Refusal, Region};

/// What fills a posted receive until bytes arrive.
pub const POISON: u8 = 0xA5;

/// What the device does with memory it owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// It sends it.
    Reads,
    /// It places a message there.
    Writes,
}

struct Lock {
    offset: u32,
    length: u32,
    access: Access,
}

struct Memory {
    key: u32,
    bytes: Vec<u8>,
    locks: Vec<Lock>,
}

/// All regions of a device.
#[derive(Default)]
pub(super) struct Regions {
    table: Vec<Option<Memory>>,
    keys: u32,
    registered: usize,
}

impl Lock {
    fn overlaps(&self, piece: &Piece) -> bool {
        let end = u64::from(self.offset) + u64::from(self.length);
        let piece_end = u64::from(piece.offset) + u64::from(piece.length);
        u64::from(piece.offset) < end && u64::from(self.offset) < piece_end
    }
}

impl Regions {
    pub(super) fn register(
        &mut self,
        bytes: usize,
        limits: &DeviceLimits,
    ) -> Result<Region, Refusal> {
        if bytes > limits.region_bytes_max || bytes > u32::MAX as usize {
            return Err(Refusal::Limit);
        }
        if self.registered.saturating_add(bytes) > limits.registered_bytes_max {
            return Err(Refusal::NoMemory);
        }
        let free = self.table.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.table.push(None);
            self.table.len() - 1
        });
        // Odd steps visit every key before one comes again.
        self.keys = self.keys.wrapping_add(0x9E37_79B9);
        let memory = Memory { key: self.keys, bytes: vec![POISON; bytes], locks: Vec::new() };
        self.table[index] = Some(memory);
        self.registered += bytes;
        Ok(Region { index: index as u32, key: self.keys })
    }

    pub(super) fn registered(&self) -> usize {
        self.registered
    }

    pub(super) fn deregister(&mut self, region: Region) -> Result<(), Refusal> {
        let memory = self.find(region)?;
        if !memory.locks.is_empty() {
            return Err(Refusal::Busy);
        }
        self.registered -= memory.bytes.len();
        self.table[region.index as usize] = None;
        Ok(())
    }

    fn find(&self, region: Region) -> Result<&Memory, Refusal> {
        let memory = self.table.get(region.index as usize).and_then(Option::as_ref);
        memory.filter(|memory| memory.key == region.key).ok_or(Refusal::NotRegistered)
    }

    fn find_mut(&mut self, region: Region) -> Result<&mut Memory, Refusal> {
        let memory = self.table.get_mut(region.index as usize).and_then(Option::as_mut);
        memory.filter(|memory| memory.key == region.key).ok_or(Refusal::NotRegistered)
    }

    /// Key and bounds, as the device checks them when the work's turn comes.
    pub(super) fn check(&self, piece: Piece) -> Result<(), Refusal> {
        let memory = self.find(piece.region)?;
        let end = u64::from(piece.offset) + u64::from(piece.length);
        if end > memory.bytes.len() as u64 { Err(Refusal::OutOfBounds) } else { Ok(()) }
    }

    /// Hands a piece over. One that is not there is taken as it is: hardware finds that out later.
    pub(super) fn lock(&mut self, piece: Piece, access: Access) -> Result<(), Refusal> {
        if self.check(piece).is_err() {
            return Ok(());
        }
        if self.owned(piece, access)? {
            return Err(Refusal::DeviceOwned);
        }
        let memory = self.find_mut(piece.region)?;
        memory.locks.push(Lock { offset: piece.offset, length: piece.length, access });
        if access == Access::Writes {
            range_mut(memory, piece).fill(POISON);
        }
        Ok(())
    }

    /// Takes a piece back.
    pub(super) fn unlock(&mut self, piece: Piece, access: Access) {
        let Ok(memory) = self.find_mut(piece.region) else { return };
        let same = |lock: &Lock| {
            (lock.offset, lock.length, lock.access) == (piece.offset, piece.length, access)
        };
        if let Some(at) = memory.locks.iter().position(same) {
            memory.locks.swap_remove(at);
        }
    }

    /// Whether the device does with any of these bytes what forbids `access` to them.
    fn owned(&self, piece: Piece, access: Access) -> Result<bool, Refusal> {
        let conflicts = |lock: &Lock| {
            lock.overlaps(&piece) && (lock.access == Access::Writes || access == Access::Writes)
        };
        Ok(self.find(piece.region)?.locks.iter().any(conflicts))
    }

    pub(super) fn read(&self, piece: Piece) -> Result<&[u8], Refusal> {
        self.check(piece)?;
        if self.owned(piece, Access::Reads)? {
            return Err(Refusal::DeviceOwned);
        }
        Ok(range(self.find(piece.region)?, piece))
    }

    pub(super) fn write(&mut self, piece: Piece) -> Result<&mut [u8], Refusal> {
        self.check(piece)?;
        if self.owned(piece, Access::Writes)? {
            return Err(Refusal::DeviceOwned);
        }
        Ok(range_mut(self.find_mut(piece.region)?, piece))
    }

    /// The device reads what it sends.
    pub(super) fn gather(&self, piece: Piece, into: &mut Vec<u8>) -> Result<(), Refusal> {
        self.check(piece)?;
        into.extend_from_slice(range(self.find(piece.region)?, piece));
        Ok(())
    }

    /// The device places what arrived.
    pub(super) fn place(&mut self, piece: Piece, bytes: &[u8]) -> Result<(), Refusal> {
        self.check(piece)?;
        range_mut(self.find_mut(piece.region)?, piece)[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

fn range(memory: &Memory, piece: Piece) -> &[u8] {
    &memory.bytes[piece.offset as usize..(piece.offset + piece.length) as usize]
}

fn range_mut(memory: &mut Memory, piece: Piece) -> &mut [u8] {
    &mut memory.bytes[piece.offset as usize..(piece.offset + piece.length) as usize]
}
