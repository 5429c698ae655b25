use super::*;
use proptest::prelude::*;

use pair::Pair;

mod pair;

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn dial_gaps(pair: &Pair, side: usize) -> Vec<Duration> {
    let dials = &pair.relays[side].dials;
    dials.windows(2).map(|two| two[1].0 - two[0].0).collect()
}

#[test]
fn of_two_links_that_were_dialled_at_once_the_one_of_the_lower_name_stays() {
    for seed in 0..500 {
        let mut pair = Pair::new(seed);
        pair.want(1);
        let apart = pair.random(60);
        pair.run(millis(apart));
        pair.want(0);
        pair.run(millis(2_000));
        let (agreed, open) = (pair.agreed(), pair.open());
        assert!(agreed.is_some() && open == 1, "seed {seed}: {agreed:?}, {open} open");
        let both = pair.relays.iter().all(|relay| !relay.dials.is_empty());
        assert!(agreed == Some(0) || !both || apart > 10, "seed {seed}");
        pair.run(millis(10_000));
        assert_eq!((pair.agreed(), pair.open()), (agreed, 1), "seed {seed}: it stays");
    }
}

#[test]
fn nobody_dials_before_somebody_wants_to() {
    let mut pair = Pair::new(1);
    pair.run(millis(60_000));
    assert!(pair.relays.iter().all(|relay| relay.dials.is_empty()));
    pair.want(0);
    pair.want(0);
    assert_eq!(pair.relays[0].dials.len(), 1);
    let route = pair.relays[0].routes.route(pair.relays[0].host).expect("it is known");
    assert_eq!((route.state, route.name, route.address), (State::Dialling, "b", Some("good")));
}

#[test]
fn a_dead_relay_is_dialled_every_100_ms_for_30_s_and_then_ever_more_rarely() {
    let mut pair = Pair::new(7);
    pair.want(0);
    pair.run(millis(10_000));
    pair.kill(1);
    let (killed, before) = (pair.now, pair.relays[0].dials.len());
    pair.run(millis(60_000));
    let late = |at: Instant| at.saturating_duration_since(killed);
    let dials: Vec<_> = pair.relays[0].dials[before..].iter().map(|dial| late(dial.0)).collect();
    let fast = dials.iter().filter(|at| **at < millis(30_000)).count();
    assert!((270..=300).contains(&fast), "{fast} dials in 30 s");
    let gaps = dial_gaps(&pair, 0);
    assert!(gaps.iter().all(|gap| *gap >= millis(100)), "{gaps:?}");
    let slow = &gaps[gaps.len() - 10..];
    let most = millis(2_000 + 1_000);
    assert!(slow.iter().all(|gap| (millis(1_000)..most).contains(gap)), "{slow:?}");
    assert!(slow.windows(2).any(|two| two[0] != two[1]), "without jitter: {slow:?}");
    let host = pair.relays[0].host;
    assert_ne!(pair.relays[0].routes.route(host).expect("it is known").state, State::Up);

    pair.restart(1);
    assert!(pair.until_agreed(millis(3_000)).is_some());
    assert_eq!(pair.relays[0].routes.route(host).expect("it is known").state, State::Up);
}

#[test]
fn a_silent_link_is_pinged_every_second_and_dead_after_three() {
    let mut pair = Pair::new(3);
    pair.want(0);
    pair.run(millis(10_000));
    let link = pair.relays[0].uses.expect("it is up");
    let host = pair.relays[0].host;
    let rtt = pair.relays[0].routes.route(host).and_then(|route| route.rtt);
    assert!(rtt.is_some_and(|rtt| rtt < millis(50)), "{rtt:?}");
    pair.cut = true;
    pair.run(millis(1_900));
    assert_eq!(pair.relays[0].uses, Some(link));
    pair.run(millis(1_200));
    assert_eq!(pair.relays[0].uses, None);
    assert_eq!(pair.relays[0].closed.first(), Some(&Closing::Dead));
    pair.run(millis(5_000));
    pair.cut = false;
    let took = pair.until_agreed(millis(1_000));
    assert!(took.is_some(), "within a second after the network is healed");
}

#[test]
fn an_idle_link_is_closed_by_both_and_dialled_by_nobody() {
    let mut pair = Pair::new(4);
    pair.want(0);
    pair.run(millis(1_000));
    let dials = pair.relays[0].dials.len();
    pair.run(millis(290_000));
    assert!(pair.agreed().is_some());
    pair.run(millis(20_000));
    assert_eq!((pair.agreed(), pair.open()), (None, 0));
    pair.run(millis(60_000));
    assert_eq!((pair.relays[0].dials.len(), pair.relays[1].dials.len()), (dials, 0));
    for relay in &pair.relays {
        assert_eq!(relay.routes.route(relay.host).expect("it is known").state, State::Idle);
    }
    pair.want(1);
    assert!(pair.until_agreed(millis(1_000)).is_some());
}

#[test]
fn a_link_with_unacknowledged_bytes_or_in_use_is_not_idle() {
    let mut pair = Pair::new(5);
    pair.want(0);
    pair.run(millis(1_000));
    for side in 0..2 {
        let relay = &mut pair.relays[side];
        relay.routes.set_unacked(relay.host, 1);
    }
    pair.run(millis(900_000));
    assert!(pair.agreed().is_some());
    for side in 0..2 {
        let relay = &mut pair.relays[side];
        relay.routes.set_unacked(relay.host, 0);
        relay.routes.touch(relay.host, pair.now);
    }
    pair.run(millis(299_000));
    assert!(pair.agreed().is_some());
    pair.run(millis(2_500));
    assert_eq!(pair.open(), 0);
}

#[test]
fn addresses_are_tried_in_turn_and_the_one_that_answers_is_kept() {
    let mut pair = Pair::with_addresses(6, &["hole", "refuses", "good"]);
    pair.want(0);
    assert!(pair.until_agreed(millis(3_000)).is_some());
    let tried: Vec<_> = pair.relays[0].dials.iter().map(|(_, address)| &**address).collect();
    assert_eq!(tried, ["hole", "refuses", "good"]);
    let host = pair.relays[0].host;
    let route = pair.relays[0].routes.route(host).expect("it is known");
    assert_eq!((route.address, route.tries), (Some("good"), 0));
    pair.run(millis(5_000));
    pair.kill(1);
    pair.restart(1);
    assert!(pair.until_agreed(millis(1_000)).is_some());
    assert_eq!(pair.relays[0].dials.last().map(|dial| &*dial.1), Some("good"));
}

#[test]
fn the_peer_that_gave_the_link_up_gets_its_new_one_soon() {
    let mut pair = Pair::new(8);
    pair.want(0);
    pair.run(millis(5_000));
    assert_eq!(pair.agreed(), Some(0));
    pair.kill(1);
    pair.cut = true;
    pair.run(millis(500));
    pair.restart(1);
    pair.cut = false;
    pair.want(1);
    let took = pair.until_agreed(millis(1_000));
    assert!(took.is_some_and(|took| took < millis(300)), "a newer instance wins: {took:?}");
    assert_eq!(pair.agreed(), Some(1));

    // Now the link of the lower name looks alive there, and the other side has lost it.
    pair.kill(1);
    pair.restart(1);
    assert!(pair.until_agreed(millis(1_000)).is_some());
    pair.run(millis(5_000));
    assert_eq!(pair.agreed(), Some(0));
    pair.break_at(1);
    let took = pair.until_agreed(millis(1_000));
    assert!(took.is_some_and(|took| took < millis(300)), "{took:?}");
}

/// Routes of host `a`, whose dial to `b` is through.
fn linked() -> (Instant, Routes, HostId, LinkId) {
    let limits = Limits { setting: "limits.names", entries_max: 9, idle_max: millis(60_000) };
    let now = Instant::now();
    let mut routes = Routes::new("a", Policy::default(), limits, 1, now);
    let host = routes.add_host("b", &["x", "y"]);
    let mut out = Vec::new();
    routes.want(host, now, &mut out);
    let RouteOut::Dial { link, .. } = out[0] else { panic!("{out:?}") };
    routes.connected(link, Peer { version: 1, instance: 5 }, now, &mut out);
    assert_eq!(out[1], RouteOut::Use { link, linkno: 1 });
    (now, routes, host, link)
}

#[test]
fn a_link_that_answers_is_kept_when_another_is_on_trial() {
    let (now, mut routes, host, link) = linked();
    let (mut out, peer) = (Vec::new(), Peer { version: 1, instance: 5 });
    let other = routes.accepted(host, peer, now + millis(10), &mut out);
    let [RouteOut::Ping { link: pinged, id }] = out[..] else { panic!("{out:?}") };
    assert_eq!(pinged, link);
    routes.pong(link, id, now + millis(20));
    out.clear();
    routes.tick(now + millis(211), &mut out);
    assert_eq!(out, [RouteOut::Close { link: other, why: Closing::Duplicate }]);
    assert_eq!(routes.link(host), Some(link));
}

#[test]
fn a_link_that_does_not_answer_is_replaced_by_the_one_on_trial() {
    let (now, mut routes, host, link) = linked();
    let (mut out, peer) = (Vec::new(), Peer { version: 1, instance: 5 });
    let other = routes.accepted(host, peer, now + millis(10), &mut out);
    out.clear();
    routes.tick(now + millis(211), &mut out);
    let close = RouteOut::Close { link, why: Closing::Dead };
    assert_eq!(out, [close, RouteOut::Use { link: other, linkno: 2 }]);
    let third = routes.accepted(host, peer, now + millis(300), &mut out);
    assert_eq!(routes.link(host), Some(third), "the same side dials anew: it knows better");
    out.clear();
    routes.lost(other, Loss::Broken, now + millis(301), &mut out);
    assert!(out.is_empty(), "nobody cares about a link that was left");
}

#[test]
fn an_older_instance_of_the_peer_gets_no_link_beside_the_newer() {
    let (now, mut routes, host, link) = linked();
    let mut out = Vec::new();
    let zombie = routes.accepted(host, Peer { version: 1, instance: 4 }, now, &mut out);
    assert_eq!(out, [RouteOut::Close { link: zombie, why: Closing::Superseded }]);
    out.clear();
    let newer = routes.accepted(host, Peer { version: 1, instance: 6 }, now, &mut out);
    let close = RouteOut::Close { link, why: Closing::Superseded };
    assert_eq!(out, [close, RouteOut::Use { link: newer, linkno: 2 }]);
}

#[test]
fn a_refused_handshake_is_not_repeated_in_a_hurry() {
    let (now, mut routes, host, link) = linked();
    let mut out = Vec::new();
    routes.lost(link, Loss::Refused, now + millis(4_000), &mut out);
    routes.tick(now + millis(4_900), &mut out);
    assert!(out.is_empty(), "{out:?}");
    let route = routes.route(host).expect("it is known");
    assert_eq!((route.state, route.last_loss), (State::Backoff, Some(Loss::Refused)));
    routes.tick(now + millis(6_100), &mut out);
    assert!(matches!(out[..], [RouteOut::Dial { .. }]), "{out:?}");
}

#[test]
fn who_lost_a_duplicate_waits_for_the_link_that_stays() {
    let (now, mut routes, host, link) = linked();
    let (mut out, later) = (Vec::new(), now + millis(4_000));
    routes.lost(link, Loss::Duplicate, later, &mut out);
    routes.tick(later + millis(90), &mut out);
    assert!(out.is_empty(), "{out:?}");
    let peer = Peer { version: 1, instance: 5 };
    let other = routes.accepted(host, peer, later + millis(95), &mut out);
    assert_eq!(out, [RouteOut::Use { link: other, linkno: 2 }]);
    out.clear();
    routes.tick(later + millis(900), &mut out);
    assert!(matches!(out[..], [RouteOut::Ping { .. }]), "{out:?}");
}

#[test]
fn a_retired_host_is_left_and_never_dialled_again() {
    let (now, mut routes, host, link) = linked();
    let mut out = Vec::new();
    routes.retire(host, &mut out);
    assert_eq!(out, [RouteOut::Close { link, why: Closing::Retired }]);
    out.clear();
    routes.want(host, now, &mut out);
    routes.tick(now + millis(60_000), &mut out);
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn names_from_the_config_stay_and_learned_ones_make_room_and_age() {
    let (now, mut routes, host, _) = linked();
    for at in 0..8 {
        routes.know(&format!("fixed{at}"), host, Source::Config, now).expect("there is room");
    }
    routes.know("learned", host, Source::Learned, now).expect("there is room");
    let later = now + millis(1_000);
    routes.know("newer", host, Source::Learned, later).expect("a learned one makes room");
    assert_eq!(routes.resolve("learned", later), None);
    assert_eq!(routes.resolve("newer", now + millis(50_000)), Some(host));
    routes.tick(now + millis(70_000), &mut Vec::new());
    assert_eq!((routes.names_len(), routes.resolve("newer", later)), (9, Some(host)));
    routes.tick(now + millis(200_000), &mut Vec::new());
    assert_eq!((routes.names_len(), routes.resolve("fixed7", later)), (8, Some(host)));
    routes.know("last", host, Source::Config, later).expect("there is room");
    let full = routes.know("more", host, Source::Learned, later).expect_err("nobody may go");
    assert_eq!(full.setting, "limits.names");
    routes.forget("last");
    assert_eq!(routes.host_named("b"), Some(host));
}

#[test]
fn the_same_seed_dials_at_the_same_times() {
    let dials = |seed| {
        let mut pair = Pair::new(seed);
        pair.kill(1);
        pair.want(0);
        pair.run(millis(60_000));
        dial_gaps(&pair, 0)
    };
    assert_eq!(dials(1), dials(1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Cuts, kills, silent losses, in any order; then both want a link, and soon have
    /// the same one and no other.
    #[test]
    fn whatever_happened_both_sides_soon_agree_on_one_link(
        seed in 0_u64..u64::MAX,
        faults in prop::collection::vec((0_u8..8, 0_u64..6_000), 1..12),
    ) {
        let mut pair = Pair::new(seed);
        pair.want(0);
        // After 30 s the pauses have grown up to 2 s, and a dial may be young.
        let in_hurry = faults.iter().map(|fault| fault.1).sum::<u64>() < 29_000;
        let most = if in_hurry { millis(1_000) } else { millis(4_000) };
        for (fault, time) in faults {
            let side = pair.random(2) as usize;
            match fault {
                0 => pair.cut = true,
                1 => pair.cut = false,
                2 if pair.relays[side].alive => pair.kill(side),
                2 | 3 if !pair.relays[side].alive => pair.restart(side),
                4 | 5 => pair.break_at(side),
                6 => pair.want(side),
                _ => pair.want(1 - side),
            }
            pair.run(millis(time));
        }
        for side in 0..2 {
            if !pair.relays[side].alive {
                pair.restart(side);
            }
        }
        pair.cut = false;
        pair.want(0);
        pair.want(1);
        let took = pair.until_agreed(most);
        prop_assert!(took.is_some(), "not within {:?}", most);
        pair.run(millis(5_000));
        prop_assert!(pair.agreed().is_some() && pair.open() == 1, "{} open", pair.open());
        let link = pair.relays.each_ref().map(|relay| relay.uses);
        pair.run(millis(60_000));
        prop_assert_eq!(pair.relays.each_ref().map(|relay| relay.uses), link);
    }
}
