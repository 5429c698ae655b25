//! What operators ask.

use std::rc::Rc;

use serde_json::json;

use crate::bus::local::{FromRelay, Question};
use crate::cluster::explain;

use super::{ConnId, Inner};

impl Inner {
    /// Answers a question, if whoever asks may.
    pub(super) fn answer(self: &Rc<Self>, conn: ConnId, question: Question) {
        let uid = self.uid_of(conn).unwrap_or(u32::MAX);
        let cluster = Rc::clone(&self.cluster.borrow());
        if uid != 0 && uid != self.options.uid && !cluster.admins().contains(&uid) {
            let why = format!("uid {uid} may not ask; add it to acl.admins in the configuration");
            self.send_line(conn, &FromRelay::Refused { why });
            return self.drop_local(conn);
        }
        let text = match question {
            Question::Status => self.status(),
            Question::Metrics => self.metrics(),
            Question::Explain { src, dst, chan } => self.explain(&src, &dst, chan),
            Question::Reload => {
                let why = "send SIGHUP to the relay's process".to_string();
                self.send_line(conn, &FromRelay::Refused { why });
                return self.drop_local(conn);
            }
            Question::Ping { to } => {
                let asked = self.core.borrow_mut().ping(conn, &to);
                match asked {
                    // The answer comes when it does.
                    Ok(()) => return self.kick(),
                    Err(why) => {
                        self.send_line(conn, &FromRelay::Refused { why });
                        return self.drop_local(conn);
                    }
                }
            }
        };
        self.send_line(conn, &FromRelay::Answer { text });
        self.drop_local(conn);
    }

    /// Everything at one moment, as JSON.
    fn status(&self) -> String {
        let status = self.core.borrow_mut().status();
        let links = self.links.borrow();
        let now = self.base.now();
        let route = |route: crate::relay::routes::Route<'_>| {
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
            })
        };
        let routes: Vec<_> = links
            .routes
            .routes()
            .filter(|route| route.name != self.options.host)
            .map(route)
            .collect();
        json!({
            "relay": status,
            "routes": routes,
            "names": links.routes.names_len(),
            "local_connections": self.local_count(),
            "socket": self.options.socket,
            "reloads": self.reloads.get(),
        })
        .to_string()
    }

    fn explain(&self, src: &str, dst: &str, chan: u16) -> String {
        let cluster = Rc::clone(&self.cluster.borrow());
        let explained = explain(&cluster, src, dst, chan);
        let status = self.core.borrow_mut().status();
        let name = |text: &str| text.split('@').next().unwrap_or(text).to_string();
        let (from, to) = (name(src), name(dst));
        let channel =
            status.channels.iter().find(|one| one.src == from && one.dst == to && one.chan == chan);
        let here = |node: &str| status.processes.iter().find(|one| one.node == node);
        json!({
            "config": explained.ok(),
            "channel": channel,
            "sender": here(&from),
            "receiver": here(&to),
        })
        .to_string()
    }
}
