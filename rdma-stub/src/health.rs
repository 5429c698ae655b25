//! Whether the promise of credits was kept on this thread, for those who watch.

use std::cell::Cell;

thread_local! {
    static NOT_READY: Cell<u64> = const { Cell::new(0) };
}

/// Messages that found no receive posted, at any device of a transport of this thread. Credits
/// promise receives, so it is 0 in every run with honest peers.
///
/// ```
/// assert_eq!(ringlane_rdma_stub::not_ready_naks(), 0);
/// ```
pub fn not_ready_naks() -> u64 {
    NOT_READY.get()
}

pub(crate) fn add_not_ready(messages: u64) {
    NOT_READY.set(NOT_READY.get() + messages);
    log::warn!("rdma: {messages} messages found no receive posted; a peer sends without credit");
}
