//! One connection of TLS between two buffers.

use std::io::{self, Read, Write};

use rustls::Connection;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;

use crate::Evbuffer;

pub(super) struct Machine {
    connection: Connection,
    /// It broke: the reason has been told, and nothing is handed up any more.
    broken: bool,
    /// The other end has said that nothing more will come.
    ended: bool,
    /// We have said so.
    closed: bool,
}

impl Machine {
    pub fn new(connection: Connection) -> Machine {
        Machine { connection, broken: false, ended: false, closed: false }
    }

    pub fn is_up(&self) -> bool {
        !self.broken && !self.connection.is_handshaking()
    }

    pub fn is(&self, host: &str) -> bool {
        if !self.is_up() {
            return false;
        }
        let Some([own, ..]) = self.connection.peer_certificates() else { return false };
        let Ok(name) = ServerName::try_from(host) else { return false };
        ParsedCertificate::try_from(own)
            .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
    }

    pub fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    pub fn input(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, end: bool) -> io::Result<()> {
        if self.broken || self.ended {
            from.drain(from.len());
            return Ok(());
        }
        let done = self.receive(from, to, end);
        self.broken = done.is_err();
        done
    }

    fn receive(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, end: bool) -> io::Result<()> {
        while !from.is_empty() {
            self.connection.read_tls(from)?;
            let state = self.connection.process_new_packets().map_err(told)?;
            let clear = state.plaintext_bytes_to_read();
            if clear > 0 {
                self.connection.reader().read_exact(&mut to.reserve(clear)[..clear])?;
                to.commit(clear);
            }
            self.ended = state.peer_has_closed();
            if self.ended {
                from.drain(from.len());
            }
        }
        if end && !self.ended {
            let text = "the connection ended without the end of TLS: it may have been cut";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(())
    }

    pub fn output(&mut self, from: &mut Evbuffer, to: &mut Evbuffer, end: bool) -> io::Result<()> {
        if self.is_up() {
            while let Some(piece) = from.front().map(|front| front.bytes()) {
                if piece.is_empty() {
                    let text = "a part of a file cannot be sent through TLS; send its bytes";
                    return Err(io::Error::new(io::ErrorKind::Unsupported, text));
                }
                // It takes as much as it has room for, and has room again when that is written.
                let n = self.connection.writer().write(piece)?;
                from.drain(n);
                self.send(to)?;
            }
        }
        if end && !self.closed {
            self.closed = true;
            self.connection.send_close_notify();
        }
        self.send(to)
    }

    fn send(&mut self, to: &mut Evbuffer) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(to)?;
        }
        Ok(())
    }
}

/// The reason in words of the relay's.
fn told(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("tls: {error}"))
}
