//! Which transports this build has. They are named here and nowhere else.

use ringlane_api::transport::Transport;

/// Every transport of this build, in the order in which foreign descriptors are offered to them.
pub(crate) fn transports() -> Vec<Box<dyn Transport>> {
    let mut all: Vec<Box<dyn Transport>> = Vec::new();
    tcp::add(&mut all);
    unix::add(&mut all);
    shm::add(&mut all);
    rdma::add(&mut all);
    all
}

/// An address of each transport of this build at which a program on this machine may listen.
/// Names are made from `unique`.
///
/// ```
/// for address in ringlane::local_addresses("doc-example") {
///     println!("{address}");
/// }
/// ```
pub fn local_addresses(unique: &str) -> Vec<String> {
    [tcp::local(), unix::local(unique), shm::local(unique)].into_iter().flatten().collect()
}

#[cfg(feature = "tcp")]
mod tcp {
    pub(super) fn local() -> Option<String> {
        Some("tcp://127.0.0.1:0".into())
    }

    pub(super) fn add(all: &mut Vec<Box<dyn ringlane_api::transport::Transport>>) {
        all.push(ringlane_tcp::transport());
    }
}

#[cfg(not(feature = "tcp"))]
mod tcp {
    pub(super) fn local() -> Option<String> {
        None
    }

    pub(super) fn add(_all: &mut Vec<Box<dyn ringlane_api::transport::Transport>>) {}
}

#[cfg(feature = "uds")]
mod unix {
    pub(super) fn local(unique: &str) -> Option<String> {
        Some(format!("unix://@{unique}"))
    }

    pub(super) fn add(all: &mut Vec<Box<dyn ringlane_api::transport::Transport>>) {
        all.push(ringlane_uds::transport());
    }
}

#[cfg(not(feature = "uds"))]
mod unix {
    pub(super) fn local(_unique: &str) -> Option<String> {
        None
    }

    pub(super) fn add(_all: &mut Vec<Box<dyn ringlane_api::transport::Transport>>) {}
}

#[cfg(feature = "rdma")]
mod rdma {
    pub(super) fn add(all: &mut Vec<Box<dyn ringlane_api::transport::Transport>>) {
        all.push(ringlane_rdma_stub::transport());
    }
}

#[cfg(not(feature = "rdma"))]
mod rdma {
    pub(super) fn add(_all: &mut Vec<Box<dyn ringlane_api::transport::Transport>>) {}
}

/// What a link of `shm://` has beside its bytes: with `face=records` in its address it carries
/// messages with their boundaries, in order, written and read in place.
///
/// ```
/// use ringlane::prelude::*;
/// use ringlane::shm::Port;
///
/// let base = EventBase::new()?;
/// let address = format!("shm://@doc-records-{}?face=records", std::process::id());
/// base.listen(&address, |conn| {
///     conn.on_read(|conn| {
///         let port = conn.face::<Port>().expect("it is such a link");
///         let (mut copy, base) = (Vec::new(), conn.base());
///         let read = port.drain(&mut copy, |header, bytes| {
///             assert_eq!((header.kind, bytes), (7, &b"a message"[..]));
///         });
///         if read == Ok(1) {
///             base.expect("it runs").stop();
///         }
///     });
///     conn.enable(READ);
/// })?;
/// let conn = base.connect(&address)?;
/// conn.on_event(|conn, event| {
///     if matches!(event, BevEvent::Connected) {
///         let port = conn.face::<Port>().expect("it is such a link");
///         port.push(7, 0, b"a message").expect("an empty ring has room");
///     }
/// });
/// base.dispatch()?;
/// # Ok::<(), ringlane::Error>(())
/// ```
#[cfg(feature = "shm")]
pub mod shm {
    pub use ringlane_shm::port::{Port, Slot};
    pub use ringlane_shm::record::{Borrowed, MORE, RecordHeader, Refused, RingSlice};
    pub use ringlane_shm::ring::Scribbled;

    pub(super) fn local(unique: &str) -> Option<String> {
        Some(format!("shm://@{unique}-shm"))
    }

    pub(super) fn add(all: &mut Vec<Box<dyn ringlane_api::transport::Transport>>) {
        all.push(ringlane_shm::transport());
    }
}

#[cfg(not(feature = "shm"))]
mod shm {
    pub(super) fn local(_unique: &str) -> Option<String> {
        None
    }

    pub(super) fn add(_all: &mut Vec<Box<dyn ringlane_api::transport::Transport>>) {}
}
