//! What operators ask.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::bus::local::{FromRelay, Question};
use crate::cluster::explain;
use crate::relay::routes::Route;

use super::{ConnId, Inner};

impl Inner {
    /// Whether whoever is at the other end may ask.
    pub(super) fn may_ask(&self, conn: ConnId) -> Result<(), String> {
        let uid = self.uid_of(conn).unwrap_or(u32::MAX);
        let cluster = self.cluster.borrow();
        if uid == 0 || uid == self.options.uid || cluster.admins().contains(&uid) {
            return Ok(());
        }
        Err(format!("uid {uid} may not ask; add it to acl.admins in the configuration"))
    }

    /// Answers a question, if whoever asks may.
    pub(super) fn answer(self: &Rc<Self>, conn: ConnId, question: Question) {
        let may = self.begins_to_ask(conn).and_then(|()| self.may_ask(conn));
        let text = may.and_then(|()| match question {
            Question::Status => Ok(Some(self.status())),
            Question::Metrics => Ok(Some(self.metrics())),
            Question::Explain { src, dst, chan } => self.explain(&src, &dst, chan).map(Some),
            Question::Reload => self.reload().map(Some),
            // The answer comes when it does.
            Question::Ping { to } => self.core.borrow_mut().ping(conn, &to).map(|()| None),
        });
        match text {
            Ok(Some(text)) => self.send_line(conn, &FromRelay::Answer { text }),
            Ok(None) => return self.kick(),
            Err(why) => {
                self.send_line(conn, &FromRelay::Refused { why });
                // It may have asked for a link.
                self.kick();
            }
        }
        self.drop_local(conn);
    }

    /// Everything at one moment, as JSON.
    fn status(&self) -> String {
        let status = self.core.borrow_mut().status();
        let cluster = self.cluster.borrow();
        let links = self.links.borrow();
        let others = links.routes.routes().filter(|route| route.name != self.options.host);
        let routes: Vec<Value> = others.map(|route| self.route(&route)).collect();
        json!({
            "relay": status,
            "routes": routes,
            "names": links.routes.names_len(),
            "local_connections": self.local_count(),
            "socket": self.options.socket,
            "listening": self.listening(),
            "metrics": self.showing(),
            "now": self.clock.now(&self.base).unix_us,
            "generation": cluster.generation,
            "limits": cluster.limits,
            "ending": self.ending.get(),
            "reloads": self.reloads.get(),
        })
        .to_string()
    }

    fn route(&self, route: &Route<'_>) -> Value {
        let now = self.base.now();
        json!({
            "host": route.name,
            "state": format!("{:?}", route.state).to_lowercase(),
            "address": route.address,
            "addresses": route.addresses.iter().map(|one| &**one).collect::<Vec<_>>(),
            "dialled_by": if route.dialled { "us" } else { "them" },
            "version": route.peer.map(|peer| peer.version),
            "rtt_us": route.rtt.map(|rtt| rtt.as_micros() as u64),
            "unacked": route.unacked,
            "idle_ms": route.last_use
                .map(|at| now.saturating_duration_since(at).as_millis() as u64),
            "tries": route.tries,
            "why": route.last_loss.map(|loss| format!("{loss:?}").to_lowercase()),
        })
    }

    /// What the configuration says of a channel, and how it stands now, seen from this host.
    fn explain(&self, src: &str, dst: &str, chan: u16) -> Result<String, String> {
        let cluster = Rc::clone(&self.cluster.borrow());
        let explained = explain(&cluster, src, dst, chan).map_err(|unknown| unknown.to_string())?;
        let status = self.core.borrow_mut().status();
        let (from, to) = (&explained.src, &explained.dst);
        let channel = status
            .channels
            .iter()
            .find(|one| one.src == from.node && one.dst == to.node && one.chan == chan);
        let here = |node: &str| status.processes.iter().find(|one| one.node == node);
        let links = self.links.borrow();
        let other = [&from.host, &to.host].into_iter().find(|host| **host != self.options.host);
        let route = other.and_then(|host| links.routes.routes().find(|one| one.name == host));
        let answer = json!({
            "host": self.options.host,
            "now": self.clock.now(&self.base).unix_us,
            "config": explained,
            "text": explained.to_string(),
            "channel": channel,
            "sender": here(&from.node),
            "receiver": here(&to.node),
            "route": route.map(|route| self.route(&route)),
        });
        Ok(answer.to_string())
    }
}
