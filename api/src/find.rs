//! Which transport an address or a descriptor is for, and what to say if there is none.

use crate::address::Address;
use crate::base::EventBase;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::near::nearest;
use crate::transport::{Cx, LinkId, Transport};

/// A transport that a build may have, by the feature of the `ringlane` crate that adds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// What its addresses begin with, before `://`.
    pub scheme: &'static str,
    /// The Cargo feature.
    pub feature: &'static str,
}

impl EventBase {
    /// Tells the base which transports there are beside its own, so that an address of one that
    /// was not built in gets an error that says how to get it.
    ///
    /// A program's base knows them: `EventBase::new()` of the `ringlane` crate says so.
    pub fn know(&self, known: &'static [Known]) {
        self.0.core.borrow_mut().known = known;
    }
}

impl Core {
    /// The transport for an address.
    pub(crate) fn find(&self, address: &Address) -> Result<u8> {
        let found = self.transports.iter().position(|t| t.scheme() == address.scheme());
        let Some(index) = found else {
            let here: Vec<&str> = self.transports.iter().map(|t| t.scheme()).collect();
            let what = missing(address.scheme(), &here, self.known);
            return Err(Error::address_of("open", address.to_string(), what));
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

/// What to say of a scheme that is not among those `here`.
fn missing(scheme: &str, here: &[&str], known: &[Known]) -> String {
    let list = match here {
        [] => "nothing".to_string(),
        _ => here.iter().map(|name| format!("{name}://")).collect::<Vec<_>>().join(", "),
    };
    if let Some(absent) = known.iter().find(|known| known.scheme == scheme) {
        let feature = absent.feature;
        return format!(
            "this build has no {scheme}; build with --features {feature} (it has {list})"
        );
    }
    let names = here.iter().copied().chain(known.iter().map(|known| known.scheme));
    let by_feature = known.iter().find(|known| known.feature == scheme).map(|known| known.scheme);
    let meant = by_feature.or(nearest(scheme, names));
    let hint = meant.map(|name| format!("; did you mean {name}://?")).unwrap_or_default();
    format!("no transport for `{scheme}://`; there is {list}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Known; 3] = [
        Known { scheme: "road", feature: "road" },
        Known { scheme: "rail", feature: "track" },
        Known { scheme: "water", feature: "water" },
    ];

    #[test]
    fn what_is_not_built_in_names_its_feature_and_what_is_there() {
        let said = missing("rail", &["road", "water"], &KNOWN);
        let want = "this build has no rail; build with --features track (it has road://, water://)";
        assert_eq!(said, want);
        assert!(missing("road", &[], &KNOWN).ends_with("(it has nothing)"));
    }

    #[test]
    fn an_unknown_scheme_gets_the_list_and_the_nearest_name() {
        for (scheme, hint) in [
            ("raod", "; did you mean road://?"),
            ("waters", "; did you mean water://?"),
            ("track", "; did you mean rail://?"),
            ("rial", "; did you mean rail://?"),
            ("tracks", ""),
            ("ship", ""),
            ("x", ""),
        ] {
            let said = missing(scheme, &["road"], &KNOWN);
            assert_eq!(said, format!("no transport for `{scheme}://`; there is road://{hint}"));
        }
    }
}
