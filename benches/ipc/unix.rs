//! A Unix stream socket with blocking calls and nothing above it.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use crate::ends::Ends;

/// What the reader takes at a time.
const READ_BYTES: usize = 256 << 10;

pub struct Socket {
    socket: UnixStream,
    size: usize,
    out: Vec<u8>,
    room: Vec<u8>,
    /// Bytes of a message whose rest has not come.
    held: usize,
}

impl Socket {
    fn new(socket: UnixStream, size: usize) -> Socket {
        Socket { socket, size, out: Vec::new(), room: vec![0; READ_BYTES], held: 0 }
    }

    pub fn listen(name: &str, size: usize) -> io::Result<Socket> {
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        println!("ready");
        Ok(Socket::new(listener.accept()?.0, size))
    }

    pub fn connect(name: &str, size: usize) -> io::Result<Socket> {
        let socket = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        Ok(Socket::new(socket, size))
    }
}

impl Ends for Socket {
    fn send(&mut self, message: &[u8], flush: bool) -> io::Result<()> {
        if flush && self.out.is_empty() {
            return self.socket.write_all(message);
        }
        self.out.extend_from_slice(message);
        if flush {
            self.socket.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    fn receive(&mut self, see: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        loop {
            let n = self.socket.read(&mut self.room[self.held..])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let there = self.held + n;
            let whole = there - there % self.size;
            let done = self.room[..whole].chunks_exact(self.size).any(&mut *see);
            self.room.copy_within(whole..there, 0);
            self.held = there - whole;
            if done {
                return Ok(());
            }
        }
    }
}
