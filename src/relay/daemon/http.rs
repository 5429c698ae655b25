//! Counters over HTTP/1.0: `GET /metrics`, for Prometheus and curl.
//!
//! One request, one answer, and the connection is closed. Whoever sends too much, too slowly or
//! nonsense loses its own connection; when many are open at once the oldest is closed, so that a
//! crowd that says nothing keeps nobody from being answered.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::{BevEvent, Bufferevent, Listener, READ};

use super::{ConnId, Inner};

/// Bytes of a request. What Prometheus sends is about 400.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Connections at once.
const CONNECTIONS_MAX: usize = 32;

/// From a connection's beginning to its end, at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address that could not be had is tried again so often: another relay may hold it that hangs.
const AGAIN: Duration = Duration::from_secs(2);

/// Media type of what `prometheus-client` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PLAIN: &str = "text/plain; charset=utf-8";

/// Who is asking, and where.
#[derive(Default)]
pub struct Readers {
    listener: Option<Listener>,
    /// The oldest first.
    open: VecDeque<Bufferevent>,
}

/// What a request wants, as far as it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    /// There is more to come.
    Unfinished,
    Metrics {
        body: bool,
    },
    Elsewhere {
        body: bool,
    },
    /// Another method.
    Deed,
    Nonsense,
    TooLong,
}

/// Reads a request's first line; the others do not matter.
fn wish(head: &[u8]) -> Wish {
    let ended = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
    if !ended(b"\r\n\r\n") && !ended(b"\n\n") {
        return if head.len() >= HEAD_BYTES_MAX { Wish::TooLong } else { Wish::Unfinished };
    }
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let Ok(line) = str::from_utf8(line) else { return Wish::Nonsense };
    let mut words = line.trim_end_matches('\r').split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, words.next())
    else {
        return Wish::Nonsense;
    };
    if !version.starts_with("HTTP/1.") || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Wish::Nonsense;
    }
    let body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => return Wish::Deed,
    };
    match target.split('?').next() {
        Some("/metrics") => Wish::Metrics { body },
        _ => Wish::Elsewhere { body },
    }
}

/// Whether what a connection has said first can be a request.
pub fn is_request(said: &[u8]) -> bool {
    said.starts_with(b"GET /") || said.starts_with(b"HEAD /")
}

fn response(status: &str, kind: &str, text: &str, body: bool) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = text.len();
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
         Connection: close\r\n\r\n"
    );
    [head.as_bytes(), if body { text.as_bytes() } else { b"" }].concat()
}

impl Inner {
    /// The answer to a request, once it is whole.
    fn answer_request(&self, head: &[u8]) -> Option<Vec<u8>> {
        let answer = match wish(head) {
            Wish::Unfinished => return None,
            Wish::Metrics { body } => response("200 OK", OPEN_METRICS, &self.metrics(), body),
            Wish::Elsewhere { body } => {
                response("404 Not Found", PLAIN, "only /metrics is here\n", body)
            }
            Wish::Deed => {
                response("405 Method Not Allowed", PLAIN, "counters can only be read\n", true)
            }
            Wish::Nonsense => response("400 Bad Request", PLAIN, "say GET /metrics\n", true),
            Wish::TooLong => {
                response("431 Request Header Fields Too Large", PLAIN, "too long\n", true)
            }
        };
        Some(answer)
    }

    /// Listens where the configuration says that counters are to be shown. An address that cannot
    /// be had keeps no message from its way: it is said, and tried again.
    pub(super) fn listen_for_readers(self: &Rc<Self>) {
        let cluster = Rc::clone(&self.cluster.borrow());
        let own = cluster.host(&self.options.host).and_then(|host| host.metrics.as_ref());
        let Some(address) = own.or(cluster.metrics.as_ref()) else { return };
        if self.try_to_show(&address.to_string(), true) {
            return;
        }
        let (inner, address) = (Rc::downgrade(self), address.to_string());
        self.base.every(AGAIN, move |again| {
            let inner = inner.upgrade().filter(|inner| !inner.ending.get());
            if inner.is_none_or(|inner| inner.try_to_show(&address, false)) {
                again.free();
            }
        });
    }

    fn try_to_show(self: &Rc<Self>, address: &str, first: bool) -> bool {
        let inner = Rc::downgrade(self);
        let listener = self.base.listen(address, move |bev| match inner.upgrade() {
            Some(inner) => inner.meet_reader(bev),
            None => bev.abort(),
        });
        match listener {
            Ok(listener) => {
                self.readers.borrow_mut().listener = Some(listener);
                true
            }
            Err(error) => {
                if first {
                    log::error!("counters are not shown at {address}: {error}; trying again");
                }
                false
            }
        }
    }

    /// Where counters are shown.
    pub(super) fn showing(&self) -> Option<String> {
        let readers = self.readers.borrow();
        readers.listener.as_ref().map(|listener| listener.address().to_string())
    }

    pub(super) fn stop_showing(&self) {
        if let Some(listener) = self.readers.borrow_mut().listener.take() {
            listener.free();
        }
    }

    fn meet_reader(self: &Rc<Self>, bev: Bufferevent) {
        let mut readers = self.readers.borrow_mut();
        readers.open.retain(Bufferevent::is_alive);
        let oldest = (readers.open.len() >= CONNECTIONS_MAX).then(|| readers.open.pop_front());
        readers.open.push_back(bev.clone());
        drop(readers);
        if let Some(oldest) = oldest.flatten() {
            oldest.abort();
        }
        let inner = Rc::downgrade(self);
        bev.on_read(move |bev| {
            if let Some(inner) = inner.upgrade() {
                inner.hear_reader(bev);
            }
        });
        bev.on_event(|bev, event| {
            // Who ends its direction behind its request waits for the answer.
            let waits = matches!(event, BevEvent::Eof) && !bev.output().is_empty();
            if event.is_end() && !waits {
                bev.abort();
            }
        });
        bev.set_read_watermark(0, HEAD_BYTES_MAX);
        bev.enable(READ);
        // The handle owns nothing: one that has ended by then does not mind.
        self.base.once(PATIENCE, move |_| bev.abort());
    }

    fn hear_reader(self: &Rc<Self>, bev: &Bufferevent) {
        let Some(answer) = self.answer_request(&bev.input().to_vec()) else { return };
        bev.disable(READ);
        bev.output().add(&answer);
        bev.finish();
        bev.on_write(Bufferevent::free);
        self.kick();
    }

    /// The same on the relay's own socket, for whoever may ask. Whether that is what came.
    pub(super) fn hear_request(self: &Rc<Self>, conn: ConnId, said: &[u8]) -> bool {
        if !is_request(said) {
            return false;
        }
        if wish(said) == Wish::Unfinished {
            return true;
        }
        let may = self.begins_to_ask(conn).and_then(|()| self.may_ask(conn));
        let answer = match may {
            Ok(()) => self.answer_request(said),
            Err(why) => Some(response("403 Forbidden", PLAIN, &format!("{why}\n"), true)),
        };
        if let Some(answer) = answer {
            self.send_bytes(conn, &answer);
            self.drop_local(conn);
            self.kick();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_first_line() {
        let (get, head) = (Wish::Metrics { body: true }, Wish::Metrics { body: false });
        for (said, meant) in [
            ("GET /metrics HTTP/1.0\r\n\r\n", get),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n", get),
            ("GET /metrics?x=1 HTTP/1.1\n\n", get),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", head),
            ("GET / HTTP/1.1\r\n\r\n", Wish::Elsewhere { body: true }),
            ("POST /metrics HTTP/1.1\r\n\r\n", Wish::Deed),
            ("get /metrics HTTP/1.1\r\n\r\n", Wish::Nonsense),
            ("GET /metrics\r\n\r\n", Wish::Nonsense),
            ("GET /metrics HTTP/2\r\n\r\n", Wish::Nonsense),
            ("GET /a b HTTP/1.1\r\n\r\n", Wish::Nonsense),
            ("\r\n\r\n", Wish::Nonsense),
            ("GET /metrics HTTP/1.1\r\nHost:", Wish::Unfinished),
            ("", Wish::Unfinished),
        ] {
            assert_eq!(wish(said.as_bytes()), meant, "{said:?}");
        }
        assert_eq!(wish(b"\xff\xfe HTTP/1.1\r\n\r\n"), Wish::Nonsense);
        assert_eq!(wish(&[b'x'; HEAD_BYTES_MAX]), Wish::TooLong);
    }

    #[test]
    fn an_answer_says_how_long_it_is_and_that_it_is_the_last() {
        let text = String::from_utf8(response("200 OK", PLAIN, "12345", true)).expect("text");
        assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("\r\n\r\n12345"));
        assert!(text.contains("Content-Length: 5\r\n") && text.contains("Connection: close\r\n"));
        let text = String::from_utf8(response("200 OK", PLAIN, "12345", false)).expect("text");
        assert!(text.contains("Content-Length: 5\r\n") && text.ends_with("\r\n\r\n"));
    }
}
