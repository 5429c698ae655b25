//! Connections: how they come about, carry bytes and end.
//!
//! A byte belongs to exactly one of: the writer (not yet taken), the wire (`flying` of the
//! receiving end), the receiving end (`rx_bytes`), the reader. Room is what the receiving end may
//! hold less the two in the middle, so a reader that stops pushes back on the writer.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ringlane_api::reactor::{Family, Side, SockName};

use super::desc::{Chunk, DescId, End, Fresh, Listener, Options, Passed, What};
use super::fault::Fault;
use super::names::{errno, os};
use super::wire::Parcel;
use super::world::State;

/// How long a connect to a full backlog waits before it knocks again.
const RETRY_NANOS: u64 = 1_000_000;

/// How often it knocks before it gives up.
const TRIES_MAX: u32 = 20_000;

/// How long a process lives at most that does not live long.
const LIFE_NANOS: u64 = 20_000_000;

/// What a read found.
pub(super) enum Read {
    /// Nothing yet.
    Nothing,
    /// So many bytes, and the descriptors on the first of them.
    Bytes(usize, Vec<Passed>),
    /// The end of the stream.
    Eof,
}

impl State {
    /// A new socket.
    pub fn socket(&mut self, family: Family) -> DescId {
        let bytes = self.setup.socket_bytes;
        let options = Options {
            reuse_port: false,
            reset_on_close: false,
            send_bytes: bytes,
            receive_bytes: bytes,
        };
        self.table.add(What::Fresh(Fresh { family, name: None, options, connecting: None }))
    }

    /// Two connected Unix sockets.
    pub fn pair(&mut self) -> (DescId, DescId) {
        let a = self.socket(Family::Unix);
        let b = self.socket(Family::Unix);
        self.join(a, b, SockName::Unnamed, SockName::Unnamed);
        (a, b)
    }

    /// listen(2).
    pub fn start_listening(&mut self, id: DescId, backlog: u32) -> io::Result<()> {
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.names.free_port());
        let Some(fresh) = self.table.fresh(id) else { return Err(os(errno::EINVAL)) };
        let name = match (&fresh.name, fresh.family) {
            (Some(name), _) => name.clone(),
            (None, Family::Unix) => return Err(os(errno::EINVAL)),
            (None, _) => SockName::Inet(loopback),
        };
        let listener = Listener {
            family: fresh.family,
            name,
            // unix(7) and tcp(7) hold one more than they were asked for.
            backlog: backlog as usize + 1,
            queue: VecDeque::new(),
            options: fresh.options.clone(),
            arrivals: 0,
        };
        self.table.descs.get_mut(&id).expect("it is a fresh socket").what =
            What::Listener(listener);
        Ok(())
    }

    /// The first half of connect(2): knocks. The answer is found in the description later.
    pub fn start_connecting(&mut self, id: DescId, to: &SockName) -> Result<(), i32> {
        let family = match self.table.fresh(id) {
            Some(fresh) => fresh.family,
            None => return Err(errno::EISCONN),
        };
        let right = match to {
            SockName::Inet(at) if at.is_ipv4() => Family::Inet4,
            SockName::Inet(_) => Family::Inet6,
            _ => Family::Unix,
        };
        if family != right {
            return Err(errno::EINVAL);
        }
        let now = self.clock;
        if family == Family::Unix {
            let listener = self.find_listener(to)?;
            let listener = self.table.listener(listener).expect("it was found listening");
            if listener.queue.len() >= listener.backlog {
                return Err(errno::EAGAIN);
            }
            self.wire.post(now, Parcel::Syn { from: id, to: to.clone(), tries: 0 });
            return Ok(());
        }
        if self.table.fresh(id).is_some_and(|fresh| fresh.name.is_none()) {
            let ip = match family {
                Family::Inet6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
                _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
            };
            // A connecting port is not shared with listeners here.
            self.bind(id, &SockName::Inet(SocketAddr::new(ip, 0))).map_err(|_| errno::EINVAL)?;
        }
        if !State::is_silent(to) {
            let at = now + self.latency();
            self.wire.post(at, Parcel::Syn { from: id, to: to.clone(), tries: 0 });
        }
        Ok(())
    }

    /// Whether a connect is answered: `None` not yet.
    pub fn connected(&mut self, id: DescId) -> Option<Result<(), i32>> {
        let now = self.clock;
        if let Some(end) = self.table.end(id) {
            return (end.open_at <= now).then_some(Ok(()));
        }
        let fresh = self.table.fresh(id)?;
        fresh.connecting.take().map(Err)
    }

    /// When a connect that was accepted over there is known over here.
    pub fn opens_at(&mut self, id: DescId) -> Option<u64> {
        self.table.end(id).map(|end| end.open_at)
    }

    /// A knock arrives.
    fn knock(&mut self, from: DescId, to: SockName, tries: u32) {
        if self.table.fresh(from).is_none() {
            return;
        }
        let listening = match self.find_listener(&to) {
            Ok(id) => id,
            Err(errno) => {
                let at = self.clock + self.latency();
                self.wire.post(at, Parcel::Refusal(from, errno));
                return;
            }
        };
        let listener = self.table.listener(listening).expect("it was found listening");
        if listener.queue.len() >= listener.backlog {
            let (at, again) = (self.clock + RETRY_NANOS, tries + 1);
            let parcel = match again < TRIES_MAX {
                true => Parcel::Syn { from, to, tries: again },
                false => Parcel::Refusal(from, errno::ETIMEDOUT),
            };
            self.wire.post(at, parcel);
            return;
        }
        let (family, options) = (listener.family, listener.options.clone());
        let accepted =
            self.table.add(What::Fresh(Fresh { family, name: None, options, connecting: None }));
        self.table.hold(accepted);
        let remote = self.table.fresh(from).and_then(|fresh| fresh.name.clone());
        self.join(accepted, from, to, remote.unwrap_or(SockName::Unnamed));
        let opens = match family {
            Family::Unix => self.clock,
            _ => self.clock + self.latency(),
        };
        if let Some(end) = self.table.end(from) {
            end.open_at = opens;
            end.last_arrival = opens;
        }
        let listener = self.table.listener(listening).expect("it was found listening");
        listener.queue.push_back(accepted);
        listener.arrivals += 1;
    }

    /// Makes two sockets the ends of one connection; `a` is the accepting one.
    fn join(&mut self, a: DescId, b: DescId, a_name: SockName, b_name: SockName) {
        let names = [(a, b, a_name.clone(), b_name.clone()), (b, a, b_name, a_name)];
        for (me, other, local, remote) in names {
            let desc = self.table.descs.get_mut(&me).expect("both were just looked up");
            let What::Fresh(fresh) = &desc.what else { continue };
            let mut end = End::new(fresh.family, local, remote, fresh.options.clone());
            end.peer = Some(other);
            desc.what = What::End(Box::new(end));
        }
    }

    /// Everything that has arrived by now is handed over. Returns whether anything was.
    pub fn deliver(&mut self) -> bool {
        let mut any = false;
        while let Some(parcel) = self.wire.pop(self.clock) {
            any = true;
            match parcel {
                Parcel::Data(to, chunk) => self.arrive(to, chunk),
                Parcel::Fin(to) => {
                    if let Some(end) = self.table.end(to) {
                        end.eof = true;
                        end.read_news += 1;
                    }
                }
                Parcel::Reset(to) => {
                    if let Some(end) = self.table.end(to) {
                        end.reset = true;
                        end.read_news += 1;
                        end.write_news += 1;
                    }
                }
                Parcel::Syn { from, to, tries } => self.knock(from, to, tries),
                Parcel::Refusal(to, errno) => {
                    if let Some(fresh) = self.table.fresh(to) {
                        fresh.connecting = Some(errno);
                    }
                }
                Parcel::Signal(number) => self.signalled(number),
                Parcel::Exit(process) => self.exited(process),
            }
        }
        any
    }

    fn arrive(&mut self, to: DescId, chunk: Chunk) {
        let Some(end) = self.table.end(to) else {
            self.drop_passed(chunk.fds);
            return;
        };
        let n = chunk.bytes.len();
        end.flying -= n;
        if end.reset || end.shut_read {
            self.drop_passed(chunk.fds);
            return;
        }
        end.rx_bytes += n;
        end.read_news += 1;
        end.rx.push_back(chunk);
    }

    fn signalled(&mut self, number: i32) {
        for desc in self.table.descs.values_mut() {
            if let What::Signal { number: mine, pending } = &mut desc.what
                && *mine == number
            {
                *pending += 1;
            }
        }
    }

    /// A process that is to be watched; some do not live long.
    pub fn process(&mut self) -> DescId {
        let id = self.table.add(What::Process { ended: false });
        if self.strikes(Fault::ProcessEnds) {
            let at = self.clock + self.rng.between(0, LIFE_NANOS);
            self.wire.post(at, Parcel::Exit(id));
        }
        id
    }

    fn exited(&mut self, process: DescId) {
        if let Some(desc) = self.table.descs.get_mut(&process)
            && let What::Process { ended } = &mut desc.what
        {
            *ended = true;
        }
    }

    pub fn drop_passed(&mut self, fds: Vec<Passed>) {
        for fd in fds {
            if let Passed::Virtual(id) = fd {
                self.release(id);
            }
        }
    }

    /// Bytes a write would take now, or why it fails.
    pub fn room(&mut self, id: DescId) -> Result<usize, i32> {
        let Some(end) = self.table.end(id) else { return Err(errno::ENOTCONN) };
        if end.reset {
            return Err(errno::ECONNRESET);
        }
        if end.shut_write {
            return Err(errno::EPIPE);
        }
        let (family, peer) = (end.family, end.peer);
        match peer.and_then(|peer| self.table.end(peer)) {
            Some(peer) => {
                let held = peer.rx_bytes + peer.flying;
                Ok(peer.options.receive_bytes.saturating_sub(held))
            }
            None if family == Family::Unix => Err(errno::EPIPE),
            // TCP learns of a closed peer from the answer to what it sends.
            None => Ok(usize::MAX),
        }
    }

    /// write(2) of bytes that fit.
    pub fn write(&mut self, id: DescId, bytes: Vec<u8>, fds: Vec<Passed>) {
        let travel = self.latency();
        let earliest = self.clock + travel;
        let Some(peer_id) = self.table.end(id).and_then(|end| end.peer) else { return };
        let Some(peer) = self.table.end(peer_id) else {
            self.drop_passed(fds);
            self.wire.post(earliest, Parcel::Reset(id));
            return;
        };
        let at = earliest.max(peer.last_arrival);
        peer.last_arrival = at;
        peer.flying += bytes.len();
        self.wire.post(at, Parcel::Data(peer_id, Chunk { bytes, taken: 0, fds }));
    }

    /// read(2) of at most `into.len()` bytes. Without `want_fds` descriptors are dropped, as the
    /// kernel does with control data nobody asked for.
    pub fn read(&mut self, id: DescId, into: &mut [u8], want_fds: bool) -> Result<Read, i32> {
        let Some(end) = self.table.end(id) else { return Err(errno::ENOTCONN) };
        if end.rx_bytes == 0 {
            return match end {
                _ if end.shut_read => Ok(Read::Eof),
                _ if end.reset => Err(errno::ECONNRESET),
                _ if end.eof => Ok(Read::Eof),
                _ => Ok(Read::Nothing),
            };
        }
        let mut n = 0;
        let mut fds: Vec<Passed> = Vec::new();
        while n < into.len()
            && let Some(chunk) = end.rx.front_mut()
        {
            if !chunk.fds.is_empty() {
                if !fds.is_empty() || (want_fds && n > 0) {
                    break;
                }
                fds.append(&mut chunk.fds);
            }
            let left = &chunk.bytes[chunk.taken..];
            let take = left.len().min(into.len() - n);
            into[n..n + take].copy_from_slice(&left[..take]);
            n += take;
            chunk.taken += take;
            if chunk.taken == chunk.bytes.len() {
                end.rx.pop_front();
            }
        }
        end.rx_bytes -= n;
        let peer = end.peer;
        if let Some(peer) = peer.and_then(|peer| self.table.end(peer))
            && std::mem::take(&mut peer.starved)
        {
            peer.write_news += 1;
        }
        if !want_fds {
            self.drop_passed(std::mem::take(&mut fds));
        }
        Ok(Read::Bytes(n, fds))
    }

    /// A write found no room; the next read over there is news.
    pub fn starve(&mut self, id: DescId) {
        if let Some(end) = self.table.end(id) {
            end.starved = true;
        }
    }

    /// shutdown(2).
    pub fn shutdown(&mut self, id: DescId, side: Side) -> io::Result<()> {
        let Some(end) = self.table.end(id) else { return Err(os(errno::ENOTCONN)) };
        if side != Side::Write {
            end.shut_read = true;
            end.read_news += 1;
            end.rx_bytes = 0;
            let unread = std::mem::take(&mut end.rx);
            for chunk in unread {
                self.drop_passed(chunk.fds);
            }
        }
        if side == Side::Read {
            return Ok(());
        }
        let Some(end) = self.table.end(id) else { return Ok(()) };
        if !std::mem::replace(&mut end.shut_write, true) {
            let peer = end.peer;
            self.send_fin(peer);
        }
        Ok(())
    }

    fn send_fin(&mut self, to: Option<DescId>) {
        let earliest = self.clock + self.latency();
        let Some(id) = to else { return };
        let Some(peer) = self.table.end(id) else { return };
        let at = earliest.max(peer.last_arrival);
        peer.last_arrival = at;
        self.wire.post(at, Parcel::Fin(id));
    }

    /// The last holder of an end is gone.
    pub fn close_end(&mut self, end: End) {
        let unread = end.rx_bytes + end.flying > 0 && !end.shut_read;
        for chunk in end.rx {
            self.drop_passed(chunk.fds);
        }
        if end.reset {
            return;
        }
        let Some(peer_id) = end.peer else { return };
        if !unread && !end.options.reset_on_close {
            if !end.shut_write {
                self.send_fin(Some(peer_id));
            }
            return;
        }
        // Closing with bytes unread resets the connection. What already lies at the peer stays
        // readable; what is on its way is lost on TCP and was never on its way on Unix sockets.
        let earliest = self.clock + self.latency();
        let Some(peer) = self.table.end(peer_id) else { return };
        let at = match end.family {
            Family::Unix => earliest.max(peer.last_arrival),
            _ => earliest,
        };
        self.wire.post(at, Parcel::Reset(peer_id));
    }

    /// Resets both ends of the connection of `id`, as a dying network would.
    pub fn break_connection(&mut self, id: DescId) {
        let Some(peer) = self.table.end(id).and_then(|end| end.peer) else { return };
        let now = self.clock;
        let later = now + self.latency();
        self.wire.post(now, Parcel::Reset(id));
        self.wire.post(later, Parcel::Reset(peer));
    }

    /// Sometimes a connection dies that has nothing on its way.
    pub fn socket_dies(&mut self) {
        let rate = self.setup.faults.rate(Fault::SocketDies);
        if self.rng.chance(rate) {
            let pick = self.rng.draw();
            if self.reset_one(pick) {
                self.tally.count(Fault::SocketDies);
            }
        }
    }

    pub fn reset_one(&mut self, pick: u64) -> bool {
        let ends: Vec<DescId> = self
            .table
            .descs
            .iter()
            .filter(|(_, desc)| matches!(&desc.what, What::End(end) if !end.reset))
            .map(|(id, _)| *id)
            .collect();
        if ends.is_empty() {
            return false;
        }
        self.break_connection(ends[(pick % ends.len() as u64) as usize]);
        true
    }
}
