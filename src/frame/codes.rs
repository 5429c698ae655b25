//! Fields that have few values: a byte on the wire, a sentence for people.

/// An enum whose values are bytes on the wire, with the sentence that each stands for.
macro_rules! code {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$vdoc:meta])* $value:ident = $byte:literal $say:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $value = $byte,)*
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &[$name] = &[$($name::$value,)*];

            pub(crate) fn of(byte: u8) -> Option<$name> {
                $name::ALL.iter().copied().find(|&value| value as u8 == byte)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $($name::$value => $say,)*
                })
            }
        }
    };
}

pub(crate) use code;

code! {
    /// What a channel does with what cannot be stored.
    Class {
        /// In order, exactly once; the sender waits.
        Reliable = 0 "reliable",
        /// The newest replaces what was not sent yet.
        Latest = 1 "latest",
        /// What finds no room is dropped before it has a number.
        DropNew = 2 "lossy, drop-new",
        /// What finds no room drops the oldest.
        DropOld = 3 "lossy, drop-old",
    }
}

code! {
    /// When a record counts as delivered.
    AckAt {
        /// When it is in the receiver's ring.
        Stored = 0 "stored",
        /// When the receiver's callback has returned.
        Consumed = 1 "consumed",
    }
}

code! {
    /// Why an OPEN has to wait.
    Waits {
        /// No process has registered under that name yet.
        NotHere = 1 "the receiver has not registered yet",
        /// It has registered and has not handed over a ring yet.
        NoRing = 2 "the receiver has not handed over a ring yet",
        /// The stream before this one still has to end.
        Ending = 3 "the stream before this one has not ended yet",
    }
}

code! {
    /// Why an OPEN, or a binding, is refused.
    Unreachable {
        /// No host of the cluster has a node of that name.
        NoSuchNode = 1 "no such node",
        /// The node is on another host: the two relays read different configurations.
        WrongHost = 2 "that node is on another host",
        /// The access list forbids it.
        Denied = 3 "the access list forbids it",
        /// A limit of the configuration is reached.
        Limit = 4 "a limit is reached",
        /// What came on the binding broke the protocol; it may be opened again.
        Broken = 5 "what came on the binding broke the protocol",
        /// The two relays read different rules for this channel.
        OtherRules = 6 "the two ends have different rules for this channel",
    }
}

code! {
    /// Why a relay closes a link.
    Leave {
        /// It is going down in good order.
        Draining = 1 "the relay is going down",
        /// Nothing has been said on the link for long.
        Idle = 2 "the link was idle",
        /// What came made no sense.
        Malformed = 3 "what came made no sense",
        /// There is another link between the two, and that one stays.
        Doubled = 4 "another link between the two relays stays",
        /// No answer to pings.
        Silent = 5 "pings were not answered",
        /// The configuration does not have the other host any more.
        Removed = 6 "the host is not in the configuration any more",
        /// A limit of the configuration is reached.
        Limit = 7 "a limit is reached",
    }
}
