//! Those who connect, until they have proved who they are.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::relay::handshake::{self, Handshake, Refused, Step};
use crate::relay::lobby::Guest;
use crate::{Bufferevent, READ};

use super::Inner;
use super::links::{Conn, Links, Shaking, nonce, peer_of, vouches};

/// How long a refusal may take to leave.
const LAST_WORD: Duration = Duration::from_millis(500);

impl Links {
    /// Who was shown out, in one line a second.
    pub(super) fn tell_of_guests(&mut self, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < Duration::from_secs(1);
        if self.turned_away == 0 || self.said_so.is_some_and(lately) {
            return;
        }
        let n = std::mem::take(&mut self.turned_away);
        log::warn!("{n} connections were closed that had not proved who they are in time");
        self.said_so = Some(now);
    }
}

impl Inner {
    /// Somebody has connected.
    pub(super) fn meet(self: &Rc<Self>, bev: Bufferevent, tls: bool) {
        let source = bev.peer().map_or_else(String::new, |peer| host_part(peer.target()));
        let (bev, shield) = match tls {
            false => (bev, None),
            true => match self.accept_tls(bev) {
                Ok(made) => made,
                Err(error) => return log::debug!("TLS: {error}"),
            },
        };
        let mut links = self.links.borrow_mut();
        let (guest, evicted) = links.lobby.enter(source, self.base.now());
        let shaking = Shaking { bev: bev.clone(), handshake: Handshake::accept(nonce()), shield };
        links.guests.insert(guest, shaking);
        drop(links);
        if let Some(evicted) = evicted {
            self.show_out(evicted, Refused::Busy, "too many handshakes are under way");
        }
        let inner = Rc::downgrade(self);
        bev.on_read(move |_| {
            if let Some(inner) = inner.upgrade() {
                inner.shake(guest);
            }
        });
        let inner = Rc::downgrade(self);
        bev.on_event(move |bev, event| {
            if event.is_end() {
                bev.free();
                if let Some(inner) = inner.upgrade() {
                    let mut links = inner.links.borrow_mut();
                    links.lobby.leave(guest);
                    links.guests.remove(&guest);
                }
            }
        });
        bev.enable(READ);
    }

    pub(super) fn show_out(self: &Rc<Self>, guest: Guest, why: Refused, text: &str) {
        let Some(mut shaking) = self.links.borrow_mut().guests.remove(&guest) else { return };
        self.links.borrow_mut().turned_away += 1;
        let mut bytes = Vec::new();
        shaking.handshake.refuse(why, text, &mut bytes);
        self.dismiss(&shaking.bev, &bytes);
    }

    /// Says the last word, and waits a little for it to be heard: whoever has proved nothing keeps
    /// no connection.
    fn dismiss(&self, bev: &Bufferevent, last: &[u8]) {
        bev.output().add(last);
        bev.free();
        let bev = bev.clone();
        self.base.once(LAST_WORD, move |_| bev.abort());
    }

    /// A guest has said something.
    fn shake(self: &Rc<Self>, guest: Guest) {
        let Some(mut shaking) = self.links.borrow_mut().guests.remove(&guest) else { return };
        let (step, mut bytes) = self.step(&mut shaking.handshake, &shaking.bev);
        match step {
            Ok(Step::Wait) => {
                shaking.bev.output().add(&bytes);
                self.links.borrow_mut().guests.insert(guest, shaking);
            }
            Ok(Step::Known(peer)) if !vouches(shaking.shield.as_ref(), &peer.host) => {
                let text = "the certificate is not one of that host";
                log::warn!("no link with host {}: {text}", peer.host);
                self.links.borrow_mut().guests.insert(guest, shaking);
                self.links.borrow_mut().lobby.leave(guest);
                self.show_out(guest, Refused::WrongCertificate, text);
            }
            Ok(Step::Known(peer)) if self.links.borrow().is_full().is_some() => {
                let why = self.links.borrow().is_full().unwrap_or_default();
                log::warn!("no link with host {}: {why}", peer.host);
                self.links.borrow_mut().guests.insert(guest, shaking);
                self.links.borrow_mut().lobby.leave(guest);
                self.show_out(guest, Refused::Busy, &why);
            }
            Ok(Step::Known(peer)) => {
                shaking.handshake.admit(&mut bytes);
                shaking.bev.output().add(&bytes);
                self.links.borrow_mut().lobby.leave(guest);
                self.admitted(shaking.bev, &peer);
            }
            Err(refusal) => {
                let from = shaking.bev.peer().map(|peer| peer.to_string()).unwrap_or_default();
                log::warn!("no link with {from}: {refusal}");
                self.links.borrow_mut().lobby.leave(guest);
                self.dismiss(&shaking.bev, &bytes);
            }
        }
    }

    pub(super) fn step(
        &self,
        handshake: &mut Handshake,
        bev: &Bufferevent,
    ) -> (Result<Step, handshake::Refusal>, Vec<u8>) {
        let mut bytes = Vec::new();
        let identity = self.links.borrow().identity.clone();
        let cluster = Rc::clone(&self.cluster.borrow());
        let is_host = |name: &str| cluster.host(name).is_some();
        let step =
            bev.input().with(|input| handshake.on_bytes(&identity, is_host, input, &mut bytes));
        (step.unwrap_or(Ok(Step::Wait)), bytes)
    }

    /// One that dialled us has proved who it is.
    fn admitted(self: &Rc<Self>, bev: Bufferevent, peer: &handshake::Peer) {
        let (mut out, now) = (Vec::new(), self.base.now());
        let mut links = self.links.borrow_mut();
        let Some(host) = links.routes.host_named(&peer.host) else { return bev.abort() };
        let link = links.routes.accepted(host, peer_of(peer), now, &mut out);
        let host = peer.host.clone();
        log::info!("link from host {host}");
        let conn = Conn { bev: bev.clone(), host, shaking: None, used: None, bye: None };
        links.conns.insert(link, conn);
        drop(links);
        self.wire(&bev, link);
        self.follow(out);
    }
}

/// An address without its port: one machine.
fn host_part(target: &str) -> String {
    target.rsplit_once(':').map_or(target, |(host, _)| host).to_string()
}
