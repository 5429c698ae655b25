//! What the configuration and the routing table say, in the words of others.

use crate::cluster::Cluster;
use crate::frame::Leave;
use crate::relay::lobby::House;
use crate::relay::routes::{Closing, Policy};

/// Times of links, from the configuration.
pub fn policy(cluster: &Cluster) -> Policy {
    let links = &cluster.links;
    let mut policy = Policy::default();
    policy.ping_every = links.ping;
    policy.dead_after = links.dead_after;
    policy.again_every = links.redial;
    policy.again_for = links.redial_for;
    policy.backoff_max = links.redial_max;
    policy.handshake_max = links.handshake.min(policy.handshake_max);
    policy.idle_max = cluster.ageing.idle_link;
    policy
}

/// How many strangers there may be, and for how long.
pub fn house(cluster: &Cluster) -> House {
    House {
        guests_max: cluster.limits.handshakes as usize,
        per_source_max: cluster.limits.handshakes_per_peer as usize,
        time: cluster.links.handshake,
    }
}

/// How the other relay is told why a link is closed.
pub fn leave_of(why: Closing) -> Leave {
    match why {
        Closing::Duplicate | Closing::Superseded => Leave::Doubled,
        Closing::Idle => Leave::Idle,
        Closing::Retired => Leave::Removed,
        _ => Leave::Silent,
    }
}
