//! Counters as Prometheus reads them.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use crate::relay::routes::State;

use super::Inner;

impl Inner {
    /// All counters, in the text format of Prometheus.
    pub(super) fn metrics(&self) -> String {
        let status = self.core.borrow_mut().status();
        let mut registry = Registry::with_prefix("ringlane");
        let counts = &status.counts;
        for (name, help, value) in [
            ("records_sent", "Records sent to links", counts.sent),
            ("record_bytes_sent", "Bytes of records sent to links", counts.sent_bytes),
            ("records_stored", "Records stored in receivers' rings", counts.stored),
            ("record_bytes_stored", "Bytes of records stored", counts.stored_bytes),
            ("records_expired", "Records whose time was up before they left", counts.expired),
            ("records_conflated", "Records passed over for newer ones", counts.conflated),
            ("channels_resumed", "Channels opened again after a loss", counts.resumed),
            ("receivers_gone", "Receivers that died", counts.gone),
            ("protocol_broken", "Channels and links ended for nonsense", counts.broken),
            ("refused", "Processes and operators refused", counts.refused),
            ("bells_rung", "Processes rung", counts.rings),
            ("frames_stray", "Frames of bindings that are not any more", counts.stray),
            ("reloads", "Reloads of the configuration", self.reloads.get()),
        ] {
            registry.register(name, help, ConstCounter::new(value));
        }
        let waiting: usize = status.links.iter().map(|link| link.waiting).sum();
        let unacked: u64 = status
            .channels
            .iter()
            .filter(|one| one.direction == "out")
            .map(|one| u64::from(one.written.wrapping_sub(one.stored)))
            .sum();
        for (name, help, value) in [
            ("processes", "Registered processes", status.processes.len() as i64),
            ("channels", "Channels through the relay", status.channels.len() as i64),
            ("links", "Links to other relays", status.links.len() as i64),
            ("records_unacked", "Records that are not acknowledged", unacked as i64),
            ("names", "Names in the routing table", self.links.borrow().routes.names_len() as i64),
        ] {
            registry.register(name, help, ConstGauge::new(value));
        }
        let bytes = ConstGauge::new(status.ring_bytes as i64);
        registry.register_with_unit("rings", "Rings that are mapped", Unit::Bytes, bytes);
        let bytes = ConstGauge::new(waiting as i64);
        registry.register_with_unit("links_waiting", "Output of links", Unit::Bytes, bytes);
        self.link_metrics(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes everything");
        text
    }

    /// One line for each other host.
    fn link_metrics(&self, registry: &mut Registry) {
        let up = Family::<Vec<(&str, String)>, Gauge>::default();
        let rtt = Family::<Vec<(&str, String)>, Gauge<f64, AtomicU64>>::default();
        for route in self.links.borrow().routes.routes() {
            if route.name == self.options.host {
                continue;
            }
            let label = vec![("host", route.name.to_string())];
            up.get_or_create(&label).set(i64::from(route.state == State::Up));
            if let Some(took) = route.rtt {
                rtt.get_or_create(&label).set(took.as_secs_f64());
            }
        }
        registry.register("link_up", "Whether there is a link to the relay of a host", up);
        let help = "Round trip to the relay of a host, smoothed";
        registry.register_with_unit("link_round_trip", help, Unit::Seconds, rtt);
    }
}
