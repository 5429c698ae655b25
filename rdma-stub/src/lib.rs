//! The `rdma://` transport: a credit protocol over queue pairs, written against the narrow
//! [`verbs::Verbs`] trait, and a software device that enforces what hardware enforces.
//!
//! ```text
//!   Evbuffer ─► Link (credits, chunks, half close) ─► Verbs ─► soft::Device ─► Wire
//!                 ▲                                     ▲
//!              Dispatch: one device, one completion     a verbs or libfabric device
//!              queue, many links                        stands here instead
//! ```
//!
//! What the two ends say to each other stands in [`message`], who may send when in [`credit`]. The
//! peer gets no key to our memory: everything travels by SEND into receives that we posted, so
//! that a peer can neither write where it wants nor change a message after it was checked.

#![forbid(unsafe_code)]

pub mod credit;
pub mod dispatch;
mod health;
pub mod hello;
pub mod limits;
pub mod link;
pub mod message;
pub mod soft;
mod transport;
pub mod verbs;

use ringlane_api::transport::Transport;

pub use health::not_ready_naks;

/// The transport `rdma://`, for `EventBase::with`: `rdma://host:port`, whose links are introduced
/// by TCP, and `rdma:///run/x.sock` and `rdma://@name`, introduced by a Unix socket and carried in
/// shared memory. Its device is the one in software.
///
/// ```
/// assert_eq!(ringlane_rdma_stub::transport().scheme(), "rdma");
/// ```
pub fn transport() -> Box<dyn Transport> {
    over(soft::LIMITS, None)
}

/// The same over a device that can do so much and no more: one that refuses, for tests.
///
/// # Panics
/// Panics if the limits leave no room for a completion queue.
pub fn limited(limits: verbs::DeviceLimits) -> Box<dyn Transport> {
    over(limits, None)
}

/// The same over a device that can do so much and makes trouble, by seed, for tests.
///
/// # Panics
/// As [`limited`].
pub fn moody(moods: soft::Moods, limits: verbs::DeviceLimits) -> Box<dyn Transport> {
    over(limits, Some(moods))
}

fn over(limits: verbs::DeviceLimits, moods: Option<soft::Moods>) -> Box<dyn Transport> {
    let below = transport::Below { tcp: ringlane_tcp::Tcp, unix: ringlane_uds::Unix };
    let rdma = transport::Rdma::new(below, link::Shape::default(), limits, moods);
    Box::new(rdma.expect("the software device has room for one queue"))
}
