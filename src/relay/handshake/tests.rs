use proptest::prelude::*;

use super::*;

fn me(host: &str) -> Identity {
    let instance = [host.as_bytes()[0]; 16];
    Identity::new("demo", host, instance, b"a shared secret")
}

fn received(bytes: &mut Vec<u8>) -> Evbuffer {
    Evbuffer::from(&std::mem::take(bytes)[..])
}

/// Two relays and the bytes between them.
struct Pair {
    a: Identity,
    b: Identity,
    dialler: Handshake,
    acceptor: Handshake,
    to_b: Vec<u8>,
    to_a: Vec<u8>,
    hosts: Vec<&'static str>,
}

impl Pair {
    fn new(a: Identity, b: Identity) -> Pair {
        let mut to_b = Vec::new();
        let dialler = Handshake::dial(&a, "b", [1; 32], &mut to_b);
        let acceptor = Handshake::accept([2; 32]);
        Pair { a, b, dialler, acceptor, to_b, to_a: Vec::new(), hosts: vec!["a", "b", "c"] }
    }

    fn at_b(&mut self) -> Result<Step, Refusal> {
        let mut input = received(&mut self.to_b);
        let is_host = |host: &str| self.hosts.contains(&host);
        self.acceptor.on_bytes(&self.b, is_host, &mut input, &mut self.to_a)
    }

    fn at_a(&mut self) -> Result<Step, Refusal> {
        let mut input = received(&mut self.to_a);
        let is_host = |host: &str| self.hosts.contains(&host);
        self.dialler.on_bytes(&self.a, is_host, &mut input, &mut self.to_b)
    }

    /// Goes on until one side knows the other or refuses; both sides' last words.
    fn run(&mut self) -> [Result<Step, Refusal>; 2] {
        let (mut a, mut b) = (Ok(Step::Wait), Ok(Step::Wait));
        for _ in 0..4 {
            if b == Ok(Step::Wait) {
                b = self.at_b();
                if let Ok(Step::Known(_)) = b {
                    self.acceptor.admit(&mut self.to_a);
                }
            }
            if a == Ok(Step::Wait) {
                a = self.at_a();
            }
        }
        [a, b]
    }
}

fn refused(by: By, why: Refused) -> impl Fn(&Result<Step, Refusal>) -> bool {
    move |result| matches!(result, Err(refusal) if refusal.by == by && refusal.why == why)
}

#[test]
fn two_relays_with_one_secret_know_each_other_by_host_and_instance() {
    let [a, b] = Pair::new(me("a"), me("b")).run();
    let peer = |host: &str, byte| Peer { host: host.to_string(), instance: [byte; 16], version: 1 };
    assert_eq!(a, Ok(Step::Known(peer("b", b'b'))));
    assert_eq!(b, Ok(Step::Known(peer("a", b'a'))));
}

/// Worked out from `docs/wire.md` by another program.
#[test]
fn the_proofs_are_those_that_the_page_of_the_wire_describes() {
    let mut pair = Pair::new(me("a"), me("b"));
    assert_eq!((pair.at_b(), pair.at_a()), (Ok(Step::Wait), Ok(Step::Wait)));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let dialler = "c7db979dc46537261f972cf1e347ee934316d752186328a96c18c8eeebabbb80";
    assert_eq!(hex(&pair.to_b[8..]), dialler);
    assert!(matches!(pair.at_b(), Ok(Step::Known(_))));
    pair.acceptor.admit(&mut pair.to_a);
    let acceptor = "76209ad77a4a7bb0e76a5d66c044da6c547d9bac311ffd942b585d484f23613f";
    assert_eq!(hex(&pair.to_a[8..]), acceptor);
}

#[test]
fn the_page_of_the_wire_has_every_reason_of_a_refusal() {
    let page = include_str!("../../../docs/wire.md");
    for why in Refused::ALL.iter().filter(|&&why| why != Refused::NotARelay) {
        let row = format!("\n| {} | {why}", *why as u8);
        assert!(page.contains(&row), "docs/wire.md lacks {row:?}");
    }
}

#[test]
fn the_newest_version_that_both_speak_is_taken() {
    let [a, b] = Pair::new(me("a").speaking(1..=4), me("b").speaking(3..=9)).run();
    for side in [a, b] {
        let Ok(Step::Known(peer)) = side else { panic!("{side:?}") };
        assert_eq!(peer.version, 4);
    }
}

#[test]
fn two_relays_without_a_common_version_say_so_to_each_other() {
    let [a, b] = Pair::new(me("a").speaking(3..=4), me("b").speaking(1..=2)).run();
    assert!(refused(By::Us, Refused::NoCommonVersion)(&b), "{b:?}");
    assert!(refused(By::Peer, Refused::NoCommonVersion)(&a), "{a:?}");
    let said = a.expect_err("it was refused").to_string();
    let expected = "the other relay refuses: no common version: \
                    b speaks versions 1 to 2, the other relay 3 to 4";
    assert_eq!(said, expected);
}

#[test]
fn a_hello_of_a_later_version_whose_fields_are_others_is_refused_for_its_version() {
    let mut pair = Pair::new(me("a"), me("b"));
    pair.to_b = b"RLNK\x01\x00\x06\x00\x07\x00\x08\x00\xff\xff".to_vec();
    let b = pair.at_b();
    assert!(refused(By::Us, Refused::NoCommonVersion)(&b), "{b:?}");
}

#[test]
fn what_a_later_version_puts_behind_a_hello_is_passed_over_and_covered_by_the_proof() {
    for tampered in [false, true] {
        let mut pair = Pair::new(me("a"), me("b"));
        pair.dialler.ours.push(7);
        let len = u16::try_from(pair.dialler.ours.len() - 8).expect("it is short");
        pair.dialler.ours[6..8].copy_from_slice(&len.to_le_bytes());
        pair.to_b = pair.dialler.ours.clone();
        *pair.to_b.last_mut().expect("it is there") += u8::from(tampered);
        let [_, b] = pair.run();
        assert_eq!(matches!(b, Ok(Step::Known(_))), !tampered, "{b:?}");
    }
}

#[test]
fn another_secret_is_refused_before_the_acceptor_has_proved_anything() {
    let other = Identity::new("demo", "b", [9; 16], b"another secret");
    let mut pair = Pair::new(me("a"), other);
    let [a, b] = pair.run();
    assert!(refused(By::Us, Refused::WrongSecret)(&b), "{b:?}");
    assert!(refused(By::Peer, Refused::WrongSecret)(&a), "{a:?}");
}

#[test]
fn an_acceptor_that_does_not_know_the_secret_is_refused_by_the_dialler() {
    let mut pair = Pair::new(me("a"), me("b"));
    assert_eq!((pair.at_b(), pair.at_a()), (Ok(Step::Wait), Ok(Step::Wait)));
    put_proof(&mut pair.to_a, [0; 32]);
    let a = pair.at_a();
    assert!(refused(By::Us, Refused::WrongSecret)(&a), "{a:?}");
    let last = message::take(&mut Evbuffer::from(&pair.to_b[40..]));
    let last = last.expect("it is a message").expect("it is whole");
    let text = "the secret files of a and b are not the same";
    let refuse = Message::Refuse { why: Refused::WrongSecret, text };
    assert_eq!(Message::parse(&last), Ok(refuse));
}

#[test]
fn names_that_do_not_fit_are_refused_on_the_side_that_sees_it_and_told_to_the_other() {
    let cluster = Identity::new("other", "b", [2; 16], b"a shared secret");
    let impostor = Identity::new("demo", "b", [9; 16], b"a shared secret");
    let cases = [
        (me("a"), cluster, Refused::WrongCluster),
        (me("x"), me("b"), Refused::UnknownHost),
        (me("a"), me("c"), Refused::WrongHost),
        (me("b"), me("b"), Refused::Itself),
        (impostor, me("b"), Refused::DuplicateHost),
    ];
    for (a, b, why) in cases {
        let [a, b] = Pair::new(a, b).run();
        assert!(refused(By::Us, why)(&b), "{why}: {b:?}");
        assert!(refused(By::Peer, why)(&a), "{why}: {a:?}");
    }
}

#[test]
fn a_dialler_does_not_take_another_host_for_the_one_it_wants() {
    let mut pair = Pair::new(me("a"), me("b"));
    pair.to_a = me("c").hello("a", [3; 32]);
    let a = pair.at_a();
    assert!(refused(By::Us, Refused::WrongHost)(&a), "{a:?}");
}

#[test]
fn who_is_known_may_still_be_refused_by_the_owner() {
    let mut pair = Pair::new(me("a"), me("b"));
    assert_eq!((pair.at_b(), pair.at_a()), (Ok(Step::Wait), Ok(Step::Wait)));
    assert!(matches!(pair.at_b(), Ok(Step::Known(_))));
    let text = "another relay of a has a link";
    pair.acceptor.refuse(Refused::DuplicateHost, text, &mut pair.to_a);
    pair.acceptor.refuse(Refused::Busy, "only one refusal is sent", &mut pair.to_a);
    let refusal = Refusal { by: By::Peer, why: Refused::DuplicateHost, text: text.to_string() };
    assert_eq!(pair.at_a(), Err(refusal));
}

#[test]
fn a_proof_that_was_heard_on_one_link_does_not_serve_on_another() {
    let mut heard = Vec::new();
    let mut pair = Pair::new(me("a"), me("b"));
    heard.extend_from_slice(&pair.to_b);
    assert_eq!((pair.at_b(), pair.at_a()), (Ok(Step::Wait), Ok(Step::Wait)));
    heard.extend_from_slice(&pair.to_b);
    assert!(matches!(pair.at_b(), Ok(Step::Known(_))));
    let mut again = Handshake::accept([3; 32]);
    let mut out = Vec::new();
    let replayed = again.on_bytes(&me("b"), |_| true, &mut received(&mut heard), &mut out);
    assert!(refused(By::Us, Refused::WrongSecret)(&replayed), "{replayed:?}");
}

#[test]
fn an_acceptor_that_gives_back_what_it_hears_learns_nothing_and_is_refused() {
    let mut pair = Pair::new(me("a"), me("b"));
    pair.to_a = pair.to_b.clone();
    let a = pair.at_a();
    assert!(refused(By::Us, Refused::WrongHost)(&a), "{a:?}");
    // Even under the right name: the dialler's proof is no acceptor's.
    let mut pair = Pair::new(me("a"), me("b"));
    assert_eq!((pair.at_b(), pair.at_a()), (Ok(Step::Wait), Ok(Step::Wait)));
    pair.to_a = pair.to_b.clone();
    let a = pair.at_a();
    assert!(refused(By::Us, Refused::WrongSecret)(&a), "{a:?}");
}

#[test]
fn what_is_no_relay_is_not_answered() {
    for greeting in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"R\n", b"RLNx"] {
        let mut pair = Pair::new(me("a"), me("b"));
        pair.to_b = greeting.to_vec();
        let b = pair.at_b();
        assert!(refused(By::Us, Refused::NotARelay)(&b), "{b:?}");
        assert!(pair.to_a.is_empty());
    }
}

#[test]
fn a_message_out_of_turn_or_too_long_is_refused() {
    let proof = |out: &mut Vec<u8>| put_proof(out, [0; 32]);
    let long = |out: &mut Vec<u8>| out.extend_from_slice(b"RLNK\x01\x00\xff\xff");
    let none = |out: &mut Vec<u8>| out.extend_from_slice(b"RLNK\x09\x00\x00\x00");
    let cut =
        |out: &mut Vec<u8>| out.extend_from_slice(b"RLNK\x01\x00\x05\x00\x01\x00\x01\x00\x01");
    for message in [&proof as &dyn Fn(&mut Vec<u8>), &long, &none, &cut] {
        let mut pair = Pair::new(me("a"), me("b"));
        pair.to_b.clear();
        message(&mut pair.to_b);
        let b = pair.at_b();
        assert!(refused(By::Us, Refused::Malformed)(&b), "{b:?}");
        assert!(refused(By::Peer, Refused::Malformed)(&pair.at_a()));
    }
    let mut twice = Pair::new(me("a"), me("b"));
    twice.to_b.extend_from_slice(&twice.dialler.ours.clone());
    assert!(refused(By::Us, Refused::Malformed)(&twice.at_b()));
}

#[test]
fn frames_that_come_before_the_acceptor_has_answered_the_proof_are_refused() {
    let mut pair = Pair::new(me("a"), me("b"));
    assert_eq!((pair.at_b(), pair.at_a()), (Ok(Step::Wait), Ok(Step::Wait)));
    pair.to_b.push(0);
    let b = pair.at_b();
    assert!(refused(By::Us, Refused::Malformed)(&b), "{b:?}");
}

#[test]
fn frames_right_behind_the_acceptors_proof_stay_in_the_diallers_input() {
    let mut pair = Pair::new(me("a"), me("b"));
    assert_eq!((pair.at_b(), pair.at_a()), (Ok(Step::Wait), Ok(Step::Wait)));
    assert!(matches!(pair.at_b(), Ok(Step::Known(_))));
    pair.acceptor.admit(&mut pair.to_a);
    pair.to_a.extend_from_slice(b"frame");
    let mut input = received(&mut pair.to_a);
    let step = pair.dialler.on_bytes(&pair.a, |_| true, &mut input, &mut pair.to_b);
    assert!(matches!(step, Ok(Step::Known(_))), "{step:?}");
    assert_eq!(input.take(), b"frame");
}

#[test]
fn a_refusal_for_a_reason_of_a_later_version_is_one_all_the_same() {
    let mut pair = Pair::new(me("a"), me("b"));
    pair.to_a = b"RLNK\x03\x00\x05\x00\xc8\x03why".to_vec();
    let a = pair.at_a();
    let text = "why".to_string();
    assert_eq!(a, Err(Refusal { by: By::Peer, why: Refused::Other, text }));
}

#[test]
fn a_secret_is_not_shown_by_what_is_printed() {
    let shown = format!("{:?}", me("a"));
    assert_eq!(shown, "Identity(a of demo, versions 1..=1)");
}

proptest! {
    #[test]
    fn a_handshake_whose_bytes_were_changed_anywhere_brings_up_no_link_on_both_sides(
        at in 0_usize..1000, xor in 1_u8..=255, message in 0..4,
    ) {
        let mut pair = Pair::new(me("a"), me("b"));
        let mut known = [false; 2];
        let change = |bytes: &mut Vec<u8>, n: i32| {
            if n == message && !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] ^= xor;
            }
        };
        change(&mut pair.to_b, 0);
        let _ = pair.at_b();
        change(&mut pair.to_a, 1);
        let _ = pair.at_a();
        change(&mut pair.to_b, 2);
        if let Ok(Step::Known(_)) = pair.at_b() {
            known[1] = true;
            pair.acceptor.admit(&mut pair.to_a);
        }
        change(&mut pair.to_a, 3);
        known[0] = matches!(pair.at_a(), Ok(Step::Known(_)));
        // The acceptor cannot know whether its proof arrives.
        prop_assert!(!known[0]);
        prop_assert_eq!(known[1], message == 3);
    }

    #[test]
    fn random_bytes_bring_up_no_link_and_are_not_hoarded(
        bytes in prop::collection::vec(any::<u8>(), 0..4000), magic: bool, cut in 1_usize..100,
    ) {
        let mut bytes = bytes;
        if magic {
            bytes.splice(0..0, *b"RLNK");
        }
        let (mut handshake, mut out) = (Handshake::accept([0; 32]), Vec::new());
        let mut input = Evbuffer::new();
        for piece in bytes.chunks(cut) {
            input.add(piece);
            let step = handshake.on_bytes(&me("b"), |_| true, &mut input, &mut out);
            if step.is_err() {
                break;
            }
            prop_assert_eq!(step, Ok(Step::Wait));
            prop_assert!(input.len() < MESSAGE_BYTES_MAX);
        }
        prop_assert!(out.len() <= 2 * MESSAGE_BYTES_MAX);
    }
}
