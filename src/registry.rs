//! Which transports there are, and which of them this build has. They are named here and nowhere
//! else.

#[cfg(feature = "program")]
pub mod about;

use ringlane_api::Known;
use ringlane_api::transport::Transport;

/// Every transport there is, with the Cargo feature that adds it.
///
/// ```
/// let base = <ringlane::EventBase as ringlane::prelude::New>::new()?;
/// for known in ringlane::KNOWN {
///     let here = base.schemes().contains(&known.scheme);
///     println!("{}:// {}", known.scheme, if here { "is here" } else { known.feature });
/// }
/// # Ok::<(), ringlane::Error>(())
/// ```
pub const KNOWN: &[Known] = &[
    Known { scheme: "tcp", feature: "tcp" },
    Known { scheme: "shm", feature: "shm" },
    Known { scheme: "unix", feature: "uds" },
    Known { scheme: "rdma", feature: "rdma" },
];

/// Every transport of this build, in the order in which foreign descriptors are offered to them.
pub(crate) fn transports() -> Vec<Box<dyn Transport>> {
    [tcp::make(), unix::make(), shm::make(), rdma::make()].into_iter().flatten().collect()
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
    let here = transports();
    let here = |known: &&Known| here.iter().any(|transport| transport.scheme() == known.scheme);
    KNOWN.iter().filter(here).map(|known| local_address(known.scheme, unique)).collect()
}

fn local_address(scheme: &str, unique: &str) -> String {
    match scheme {
        // Abstract names leave nothing in the file system. shm:// and unix:// share them.
        "shm" | "unix" => format!("{scheme}://@{unique}-{scheme}"),
        _ => format!("{scheme}://127.0.0.1:0"),
    }
}

/// A transport, or none in this build.
type Made = Option<Box<dyn Transport>>;

#[cfg(feature = "tcp")]
mod tcp {
    pub(super) fn make() -> super::Made {
        Some(ringlane_tcp::transport())
    }
}

#[cfg(feature = "uds")]
mod unix {
    pub(super) fn make() -> super::Made {
        Some(ringlane_uds::transport())
    }
}

/// Mapped memory, for the reference rows of `ringlane perf`.
#[cfg(all(feature = "program", feature = "shm"))]
pub use ringlane_shm::map;

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
    #[doc(hidden)]
    pub use ringlane_shm::crash;
    pub use ringlane_shm::map::{self, Fork, Map};
    pub use ringlane_shm::port::{Attached, Port, Slot};
    pub use ringlane_shm::record::{Borrowed, MORE, RecordHeader, Refused, RingSlice};
    pub use ringlane_shm::ring::Scribbled;
    pub use ringlane_shm::through;

    pub(super) fn make() -> super::Made {
        Some(ringlane_shm::transport())
    }
}

#[cfg(feature = "rdma")]
mod rdma {
    pub(super) fn make() -> super::Made {
        Some(ringlane_rdma_stub::transport())
    }
}

/// What stands in for a transport that is not built in.
#[cfg(not(all(feature = "tcp", feature = "uds", feature = "shm", feature = "rdma")))]
mod absent {
    pub(super) fn make() -> super::Made {
        None
    }
}

#[cfg(not(feature = "rdma"))]
use absent as rdma;
#[cfg(not(feature = "shm"))]
use absent as shm;
#[cfg(not(feature = "tcp"))]
use absent as tcp;
#[cfg(not(feature = "uds"))]
use absent as unix;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    #[test]
    fn a_transport_is_here_or_its_address_says_which_feature_adds_it() {
        let base = EventBase::new().expect("this build has an engine");
        let here = base.schemes();
        for known in KNOWN {
            let address = local_address(known.scheme, "ringlane-registry");
            match base.check(&address) {
                Ok(_) => assert!(here.contains(&known.scheme), "{address}"),
                Err(error) => {
                    let said = error.to_string();
                    assert!(!here.contains(&known.scheme), "{said}");
                    assert!(said.contains(&format!("--features {} (it has ", known.feature)));
                    assert!(here.iter().all(|scheme| said.contains(scheme)), "{said}");
                }
            }
        }
        assert!(here.iter().all(|scheme| KNOWN.iter().any(|known| known.scheme == *scheme)));
    }

    #[test]
    fn a_program_may_listen_at_the_local_address_of_each_transport() {
        let base = EventBase::new().expect("this build has an engine");
        let unique = format!("ringlane-registry-{}", std::process::id());
        let addresses = local_addresses(&unique);
        assert_eq!(addresses.len(), base.schemes().len());
        for address in addresses {
            base.listen(&address, |conn| conn.abort()).expect("nobody else listens there").free();
        }
    }
}
