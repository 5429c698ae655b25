//! The handshake: what anybody who can connect may say to a relay.
//!
//! Input: a byte that says to whom, a byte that says in which pieces, then what is said. Without
//! the secret nobody becomes known.

use ringlane::Evbuffer;
use ringlane::relay::handshake::{Handshake, Identity, MESSAGE_BYTES_MAX, Step};

fn identity(host: &str) -> Identity {
    Identity::new("demo", host, [host.as_bytes()[0]; 16], b"a secret that no fuzzer knows")
}

/// Says the bytes to a machine.
pub fn run(data: &[u8]) {
    let [whom, cut, bytes @ ..] = data else { return };
    let (a, b) = (identity("a"), identity("b"));
    let is_host = |host: &str| ["a", "b", "c"].contains(&host);
    let (mut said, mut input) = (Vec::new(), Evbuffer::new());
    let mut hello = Vec::new();
    let mut dialler = Handshake::dial(&a, "b", [1; 32], &mut hello);
    let mut acceptor = Handshake::accept([2; 32]);
    let (machine, me) = match whom % 3 {
        0 => (&mut acceptor, &b),
        1 => (&mut dialler, &a),
        // One who waits for the proof of a relay that has said hello.
        _ => {
            input.add(&hello);
            let step = acceptor.on_bytes(&b, is_host, &mut input, &mut said);
            assert_eq!(step, Ok(Step::Wait));
            (&mut acceptor, &b)
        }
    };
    let mut refused = false;
    for piece in bytes.chunks(usize::from(*cut) + 1) {
        input.add(piece);
        match machine.on_bytes(me, is_host, &mut input, &mut said) {
            Ok(Step::Known(peer)) => panic!("{peer:?} knows no secret"),
            Ok(Step::Wait) => assert!(refused || input.len() < MESSAGE_BYTES_MAX),
            Err(_) => refused = true,
        }
    }
    assert!(said.len() <= 2 * MESSAGE_BYTES_MAX, "a stranger makes a relay talk");
}
