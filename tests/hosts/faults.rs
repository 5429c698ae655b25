//! Relays killed and replaced, links cut, processes killed, while all pairs talk.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringlane_kit::sim::Rng;

use crate::Wish;
use crate::cluster::{Cluster, NEIGHBOURS};
use crate::ledger::now;
use crate::net::{Cut, has_nft};

/// Faults of relays when nobody says how many: ten killed, three stopped and replaced.
const RELAYS: usize = 13;

/// The same on links that lose packets.
const RELAYS_WITH_LOSS: usize = 4;

/// How long links are cut.
const CUT: Duration = Duration::from_secs(5);

const LOSS_PERCENT: u32 = 5;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    /// All relays at once.
    KillAll,
    Takeover,
    Cut,
    Process,
}

fn plan(relays: usize, rng: &mut Rng) -> Vec<Fault> {
    // A quarter of those of relays.
    let takeovers = relays / 4;
    let mut plan = vec![Fault::Takeover; takeovers];
    plan.extend(
        (0..relays - takeovers).map(|n| if n % 10 == 9 { Fault::KillAll } else { Fault::Kill }),
    );
    plan.extend(vec![Fault::Cut; (relays / 10).max(1)]);
    plan.extend(vec![Fault::Process; (relays / 5).max(1)]);
    for at in (1..plan.len()).rev() {
        plan.swap(at, rng.below(at as u64 + 1) as usize);
    }
    plan
}

pub fn run(wish: &Wish) {
    go(wish, wish.faults.unwrap_or(RELAYS), 0);
}

pub fn run_with_loss(wish: &Wish) {
    go(wish, wish.faults.map_or(RELAYS_WITH_LOSS, |n| n.div_ceil(5)), LOSS_PERCENT);
}

fn go(wish: &Wish, relays: usize, loss: u32) {
    let mut rng = Rng::new(wish.seed);
    let begun = Instant::now();
    let mut cluster = Cluster::start();
    if loss > 0 {
        cluster.fleet.net.lose(loss);
    }
    for fault in plan(relays, &mut rng) {
        let host = rng.below(3) as usize;
        print!("  {} {fault:?}", cluster.fleet.net.name(host));
        match fault {
            Fault::Kill => kill(&mut cluster, &[host], &mut rng),
            Fault::KillAll => kill(&mut cluster, &[0, 1, 2], &mut rng),
            Fault::Takeover => take_over(&mut cluster, host, wish.faults.is_some(), &mut rng),
            Fault::Cut => cut(&mut cluster, host, &mut rng),
            Fault::Process => {
                let at = rng.below(9) as usize;
                cluster.kill_process(at, rng.chance(500));
            }
        }
    }
    let messages = cluster.finish();
    report(&cluster);
    println!(
        "  {messages} messages in {} s: lost 0, doubled 0; {} were with receivers that died, {} of \
         them under work",
        begun.elapsed().as_secs(),
        cluster.reported,
        cluster.under_work
    );
}

fn pause(rng: &mut Rng, low: u64, high: u64) {
    thread::sleep(Duration::from_millis(rng.between(low, high)));
}

fn kill(cluster: &mut Cluster, hosts: &[usize], rng: &mut Rng) {
    cluster.watch();
    for &host in hosts {
        cluster.fleet.relays[host].kill();
    }
    pause(rng, 50, 700);
    cluster.watched();
    let since = now();
    for &host in hosts {
        cluster.fleet.relays[host] = cluster.fleet.relay(host, false);
    }
    cluster.recovered(if hosts.len() == 1 { "relay" } else { "all relays" }, since);
}

/// A relay hangs, another takes over, and the first goes on.
fn take_over(cluster: &mut Cluster, host: usize, long: bool, rng: &mut Rng) {
    cluster.read();
    let refused = cluster.fleet.count_errors(host, "is the relay of this host");
    let stopped = Instant::now();
    cluster.fleet.relays[host].signal(Signal::SIGSTOP);
    pause(rng, 200, 2500);
    let mut second = cluster.fleet.relay(host, false);
    assert!(!second.end(), "a second relay starts beside the first");
    cluster.fleet.wait_for_error(host, "is the relay of this host", refused);
    let since = now();
    let next = cluster.fleet.relay(host, true);
    let mut old = std::mem::replace(&mut cluster.fleet.relays[host], next);
    cluster.gone(since);
    // Sometimes it goes on while the others are still finding each other.
    let early = rng.chance(250);
    if early {
        pause(rng, 0, 1000);
    } else {
        cluster.settled("takeover", since);
    }
    let most = if long { 10_000 } else { 2_500 };
    let after = if early { 1000 } else { rng.between(1000, most) };
    thread::sleep(Duration::from_millis(after).saturating_sub(stopped.elapsed()));
    if !early {
        cluster.read();
    }
    let continued = now();
    old.signal(Signal::SIGCONT);
    assert!(!old.end(), "a relay that was replaced ends well");
    match early {
        true => cluster.settled("takeover, the old one soon back", since),
        false => cluster.recovered("the old one back", continued),
    }
}

fn cut(cluster: &mut Cluster, host: usize, rng: &mut Rng) {
    cluster.read();
    let cut = match has_nft() && rng.chance(500) {
        true => Cut::Between(host, (host + 1) % 3),
        false => Cut::Cable(host),
    };
    cluster.fleet.net.cut(cut);
    thread::sleep(CUT);
    let since = now();
    cluster.fleet.net.heal(cut);
    let what = if matches!(cut, Cut::Cable(_)) { "cable" } else { "packets dropped" };
    cluster.recovered(what, since);
}

fn report(cluster: &Cluster) {
    let mut kinds: BTreeMap<&str, Vec<u128>> = BTreeMap::new();
    for one in &cluster.recoveries {
        for kind in [one.what, "together"] {
            if one.what != "start" && (kind == one.what || one.what != NEIGHBOURS) {
                kinds.entry(kind).or_default().push(one.gap.as_millis());
            }
        }
    }
    println!(
        "  {:<34}{:>6}{:>9}{:>9}{:>9}",
        "longest gap afterwards, ms", "n", "median", "p90", "max"
    );
    for (kind, mut times) in kinds {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!("  {kind:<34}{:>6}{:>9}{:>9}{:>9}", times.len(), at(50), at(90), at(100));
    }
    let slowest = cluster.recoveries.iter().max_by_key(|one| one.gap);
    if let Some(one) = slowest {
        println!("  slowest: {} ms, {}, {}", one.gap.as_millis(), one.what, one.pair);
    }
}
