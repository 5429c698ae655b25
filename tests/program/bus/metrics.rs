//! Counters over HTTP, at a port and on the relay's own socket, for those who ask nicely and for
//! those who do not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::running::{tcp, unix};

use super::{Cluster, badly, output, well};

/// Everything that comes back for some bytes, until the other side closes.
fn asked(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    // One that was closed in the middle has nothing more to say.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

impl Cluster {
    /// Where the relay at home shows its counters.
    fn metrics(&self) -> String {
        let said = well(&self.at_home(&["status"]));
        let line = said.lines().find(|line| line.contains(" metrics ")).expect("it is configured");
        line.split_whitespace().last().expect("an address").to_string()
    }
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n";

#[test]
fn counters_are_shown_over_http_and_by_status() {
    let cluster = Cluster::start("metrics");
    let address = cluster.metrics();
    let said = asked(tcp(&address), GET);
    assert!(said.starts_with("HTTP/1.0 200 OK\r\n"), "{said}");
    for part in ["ringlane_records_sent_total 0", "ringlane_link_up{host=", "# EOF"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let (_, body) = said.split_once("\r\n\r\n").expect("a head and a body");
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(said.contains(&length), "{length} is not in\n{said}");
    let uid = nix::unistd::geteuid();
    let socket = format!("unix://@ringlane-{uid}-{}", cluster.home);
    let said = asked(unix(&socket), GET);
    assert!(said.starts_with("HTTP/1.0 200 OK\r\n") && said.ends_with("# EOF\n"), "{said}");
    let said = well(&cluster.at_home(&["status", "--metrics"]));
    assert!(said.contains("ringlane_processes 0") && said.ends_with("# EOF\n"), "{said}");
}

#[test]
fn one_who_ends_its_direction_behind_the_request_gets_the_answer() {
    let cluster = Cluster::start("half");
    let mut stream = tcp(&cluster.metrics());
    stream.write_all(GET).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert!(asked(stream, b"").ends_with("# EOF\n"));
}

#[test]
fn what_is_no_request_costs_its_own_connection_only() {
    let cluster = Cluster::start("hostile");
    let address = cluster.metrics();
    for (bytes, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\xff\xfe\x00\r\n\r\n", "400"),
        (b"GET /metrics\r\n\r\n", "400"),
        (&[b'x'; 100_000], "431"),
    ] {
        let said = asked(tcp(&address), bytes);
        // One that goes on sending may be cut off before it has read the answer.
        let cut = status == "431" && said.is_empty();
        assert!(cut || said.starts_with(&format!("HTTP/1.0 {status} ")), "{status}: {said}");
    }
    let silent: Vec<TcpStream> = (0..100).map(|_| tcp(&address)).collect();
    let said = asked(tcp(&address), GET);
    assert!(said.starts_with("HTTP/1.0 200 OK\r\n"), "{said}");
    drop(silent);
    well(&cluster.at_home(&["status"]));
}

#[test]
fn a_place_that_is_taken_does_not_keep_the_relay_from_its_messages() {
    let mut cluster = Cluster::new("taken");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = format!("tcp://{}", holder.local_addr().expect("bound"));
    let config = std::fs::read_to_string(&cluster.config).expect("it was written");
    std::fs::write(&cluster.config, config.replace("tcp://127.0.0.1:0", &taken)).expect("again");
    let relay = cluster.relay(&cluster.home);
    cluster.relays.push(relay);
    let errors = std::fs::read_to_string(cluster.dir.0.join(format!("{}.err", cluster.home)));
    assert!(errors.expect("it was made").contains(&taken));
    well(&cluster.at_home(&["status"]));
    badly(&output(&["status", "--host", &cluster.abroad]));
    drop(holder);
    crate::running::until("the port to be had", || {
        well(&cluster.at_home(&["status"])).contains(&taken)
    });
}
