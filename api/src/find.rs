//! Which transport an address or a descriptor is for.

use crate::address::Address;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::transport::{Cx, LinkId, Transport};

impl Core {
    /// The transport for an address.
    pub(crate) fn find(&self, address: &Address) -> Result<u8> {
        let found = self.transports.iter().position(|t| t.scheme() == address.scheme());
        let Some(index) = found else {
            let known: Vec<String> =
                self.transports.iter().map(|t| format!("{}://", t.scheme())).collect();
            return Err(Error::address_of(
                "open",
                address.to_string(),
                format!(
                    "no transport for `{}://` in this build; there is {}",
                    address.scheme(),
                    if known.is_empty() { "none".into() } else { known.join(", ") }
                ),
            ));
        };
        self.transports[index].check(address)?;
        Ok(index as u8)
    }

    /// Offers a descriptor to each transport that adopts.
    pub(crate) fn adopt_with(
        &mut self,
        mut offer: impl FnMut(&mut dyn Transport, &mut Cx<'_>) -> Result<LinkId>,
    ) -> Result<(u8, LinkId)> {
        let mut last = Error::refused("adopt", "no transport of this build takes descriptors");
        for index in 0..self.transports.len() as u8 {
            if !self.transports[index as usize].caps().adopt {
                continue;
            }
            match self.with_transport(index, |transport, cx| offer(transport, cx)) {
                Ok(link) => return Ok((index, link)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
