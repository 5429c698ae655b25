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
pub mod hello;
pub mod limits;
pub mod link;
pub mod message;
pub mod soft;
mod transport;
pub mod verbs;

use ringlane_api::transport::Transport;

/// The transport `rdma://host:port`, for `EventBase::with`. Its links are introduced by TCP, and
/// its device is the one in software.
///
/// ```
/// assert_eq!(ringlane_rdma_stub::transport().scheme(), "rdma");
/// ```
pub fn transport() -> Box<dyn Transport> {
    let rdma = transport::Rdma::new(ringlane_tcp::transport(), link::Shape::default());
    Box::new(rdma.expect("the software device has room for one queue"))
}
