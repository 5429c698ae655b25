//! The calls that are answered at once.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use ringlane_api::fd::{Fd, FdKind};
use ringlane_api::reactor::{
    Credentials, Family, Memory, Occupant, SharedWord, Side, SockName, SockOption, Sys,
};

use super::desc::{DescId, Options, What};
use super::fault::Fault;
use super::files;
use super::memory;
use super::names::{errno, os};
use super::reactor::SimReactor;

impl SimReactor {
    fn id(&self, fd: &Fd) -> io::Result<DescId> {
        if fd.as_os().is_some() {
            return Err(os(errno::ENOTSOCK));
        }
        self.world.state().table.id(fd.number()).ok_or_else(|| os(errno::EBADF))
    }

    fn with_options(&self, id: DescId, change: impl FnOnce(&mut Options)) {
        let mut state = self.world.state();
        match state.table.descs.get_mut(&id).map(|desc| &mut desc.what) {
            Some(What::Fresh(fresh)) => change(&mut fresh.options),
            Some(What::Listener(listener)) => change(&mut listener.options),
            Some(What::End(end)) => change(&mut end.options),
            _ => {}
        }
    }

    fn family(&self, id: DescId) -> io::Result<Family> {
        match self.world.state().table.descs.get(&id).map(|desc| &desc.what) {
            Some(What::Fresh(fresh)) => Ok(fresh.family),
            Some(What::Listener(listener)) => Ok(listener.family),
            Some(What::End(end)) => Ok(end.family),
            _ => Err(os(errno::ENOTSOCK)),
        }
    }
}

impl Sys for SimReactor {
    fn socket(&mut self, family: Family) -> io::Result<Fd> {
        let mut state = self.world.state();
        if !state.table.has_room(1) {
            return Err(os(errno::EMFILE));
        }
        let id = state.socket(family);
        self.world.open(&mut state, id).ok_or_else(|| os(errno::EMFILE))
    }

    fn pair(&mut self) -> io::Result<(Fd, Fd)> {
        let mut state = self.world.state();
        if !state.table.has_room(2) {
            return Err(os(errno::EMFILE));
        }
        let (a, b) = state.pair();
        let a = self.world.open(&mut state, a).ok_or_else(|| os(errno::EMFILE))?;
        let b = self.world.open(&mut state, b).ok_or_else(|| os(errno::EMFILE))?;
        Ok((a, b))
    }

    fn adopt(&mut self, fd: OwnedFd) -> io::Result<Fd> {
        let file = File::from(fd);
        if file.metadata()?.is_file() {
            return Ok(Fd::from_os(file.into(), FdKind::File));
        }
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the simulator has no use for a kernel descriptor that is not a regular file",
        ))
    }

    fn bind(&mut self, fd: &Fd, name: &SockName) -> io::Result<()> {
        let id = self.id(fd)?;
        self.world.state().bind(id, name)
    }

    fn listen(&mut self, fd: &Fd, backlog: u32) -> io::Result<()> {
        let id = self.id(fd)?;
        self.world.state().start_listening(id, backlog)
    }

    fn set(&mut self, fd: &Fd, option: SockOption) -> io::Result<()> {
        let id = self.id(fd)?;
        let unix = self.family(id)? == Family::Unix;
        match option {
            SockOption::NoDelay(_) | SockOption::Keepalive { .. } | SockOption::UserTimeout(_)
                if unix =>
            {
                return Err(os(errno::EOPNOTSUPP));
            }
            SockOption::ReusePort(on) => self.with_options(id, |o| o.reuse_port = on),
            SockOption::ResetOnClose(on) => self.with_options(id, |o| o.reset_on_close = on),
            SockOption::SendBuffer(n) => self.with_options(id, |o| o.send_bytes = n as usize),
            SockOption::ReceiveBuffer(n) => {
                self.with_options(id, |o| o.receive_bytes = (n as usize).max(1024));
            }
            _ => {}
        }
        Ok(())
    }

    fn local_name(&mut self, fd: &Fd) -> io::Result<SockName> {
        let id = self.id(fd)?;
        let state = self.world.state();
        match state.table.descs.get(&id).map(|desc| &desc.what) {
            Some(What::Fresh(fresh)) => Ok(fresh.name.clone().unwrap_or(SockName::Unnamed)),
            Some(What::Listener(listener)) => Ok(listener.name.clone()),
            Some(What::End(end)) => Ok(end.local.clone()),
            _ => Err(os(errno::ENOTSOCK)),
        }
    }

    fn peer_name(&mut self, fd: &Fd) -> io::Result<SockName> {
        let id = self.id(fd)?;
        let mut state = self.world.state();
        match state.table.end(id) {
            Some(end) => Ok(end.remote.clone()),
            None => Err(os(errno::ENOTCONN)),
        }
    }

    fn credentials(&mut self, fd: &Fd) -> io::Result<Credentials> {
        let id = self.id(fd)?;
        if self.family(id)? != Family::Unix {
            return Err(os(errno::EOPNOTSUPP));
        }
        Ok(Credentials { pid: std::process::id() as i32, uid: 0, gid: 0 })
    }

    fn shutdown(&mut self, fd: &Fd, side: Side) -> io::Result<()> {
        let id = self.id(fd)?;
        self.world.state().shutdown(id, side)
    }

    fn occupant(&mut self, path: &Path) -> io::Result<Occupant> {
        Ok(self.world.state().occupant(path))
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.world.state().unlink(path)
    }

    fn chmod(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        self.world.state().chmod(path, mode)
    }

    fn signal(&mut self, number: i32) -> io::Result<Fd> {
        let mut state = self.world.state();
        let id = state.table.add(What::Signal { number, pending: 0 });
        self.world.open(&mut state, id).ok_or_else(|| os(errno::EMFILE))
    }

    fn drain(&mut self, fd: &Fd) -> io::Result<u64> {
        let id = self.id(fd)?;
        let mut state = self.world.state();
        match state.table.descs.get_mut(&id).map(|desc| &mut desc.what) {
            Some(What::Signal { pending, .. }) => Ok(std::mem::take(pending)),
            _ => Err(os(errno::EINVAL)),
        }
    }

    fn memory(&mut self, bytes: u64) -> io::Result<Fd> {
        if self.world.state().strikes(Fault::MemoryRefused) {
            return Err(os(errno::ENOMEM));
        }
        memory::make(bytes)
    }

    fn memory_of(&mut self, fd: &Fd) -> io::Result<Memory> {
        memory::look_at(fd)
    }

    fn futex_wake(&mut self, word: &dyn SharedWord) -> io::Result<u32> {
        *self.world.state().rings.entry(word.place()).or_default() += 1;
        Ok(1)
    }

    fn event(&mut self) -> io::Result<Fd> {
        let mut state = self.world.state();
        let id = state.table.add(What::Event { rung: 0 });
        self.world.open(&mut state, id).ok_or_else(|| os(errno::EMFILE))
    }

    fn ring(&mut self, event: &Fd) -> io::Result<()> {
        let id = self.id(event)?;
        match self.world.state().table.descs.get_mut(&id).map(|desc| &mut desc.what) {
            Some(What::Event { rung }) => *rung += 1,
            _ => return Err(os(errno::EINVAL)),
        }
        Ok(())
    }

    fn ring_shared(&mut self, event: &Fd) -> io::Result<()> {
        // The kernel of one seed in four has no way to do it.
        if self.world.state().setup.seed % 4 == 3 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.ring(event).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    fn pidfd(&mut self, socket: &Fd) -> io::Result<Fd> {
        self.id(socket)?;
        let mut state = self.world.state();
        let id = state.process();
        self.world.open(&mut state, id).ok_or_else(|| os(errno::EMFILE))
    }

    fn uid(&mut self) -> u32 {
        0
    }

    fn give_way(&mut self) {}

    fn cpus(&mut self) -> usize {
        1
    }

    fn read_at(&mut self, file: &Fd, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        files::read_at(file, offset, into)
    }
}
