//! A descriptor as the house sees it: counted, opaque, closed when the last holder lets go.
//!
//! Every [`Op`](crate::reactor::Op) carries a clone of its `Fd`, so a number can never be closed
//! and reused under an operation that still names it. What stands behind the number is the
//! reactor's business: a kernel descriptor, or a socket of the simulator.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};

/// What a descriptor is, as far as the choice of system call goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FdKind {
    /// A socket: `recv`, `send` and their ring operations apply.
    Socket,
    /// A pipe, FIFO, tty or another pollable file: `read` and `write` apply.
    Pollable,
    /// A regular file: always ready, positioned reads only.
    File,
}

enum Keeper {
    Os(OwnedFd),
    /// The guard is dropped first, while the number is still ours.
    Guarded {
        _guard: Box<dyn Any>,
        fd: OwnedFd,
    },
    Other(Box<dyn Any>),
}

struct Inner {
    keeper: Keeper,
    number: i32,
    kind: FdKind,
}

/// A counted, opaque descriptor. Cloning costs under a nanosecond; the last drop closes it.
#[derive(Clone)]
pub struct Fd(Rc<Inner>);

/// An [`Fd`] that does not keep the descriptor open.
#[derive(Clone)]
pub struct WeakFd(Weak<Inner>);

impl Fd {
    /// Wraps a descriptor of the kernel.
    pub fn from_os(fd: OwnedFd, kind: FdKind) -> Fd {
        let number = fd.as_raw_fd();
        Fd(Rc::new(Inner { keeper: Keeper::Os(fd), number, kind }))
    }

    /// Wraps a descriptor of the kernel together with something that ends with it (the
    /// registration of a signal). `guard` is dropped just before the descriptor is closed; such a
    /// descriptor is never given away.
    pub fn guarded(fd: OwnedFd, kind: FdKind, guard: Box<dyn Any>) -> Fd {
        let number = fd.as_raw_fd();
        Fd(Rc::new(Inner { keeper: Keeper::Guarded { _guard: guard, fd }, number, kind }))
    }

    /// Wraps a descriptor that only its reactor understands (the simulator's sockets).
    /// `keeper` is dropped when the last clone goes.
    pub fn from_other(number: i32, kind: FdKind, keeper: Box<dyn Any>) -> Fd {
        Fd(Rc::new(Inner { keeper: Keeper::Other(keeper), number, kind }))
    }

    /// The number, for the reactor that made it.
    pub fn number(&self) -> i32 {
        self.0.number
    }

    /// What it is.
    pub fn kind(&self) -> FdKind {
        self.0.kind
    }

    /// The kernel descriptor behind it, or `None` in the simulator.
    pub fn as_os(&self) -> Option<BorrowedFd<'_>> {
        match &self.0.keeper {
            Keeper::Os(fd) | Keeper::Guarded { fd, .. } => Some(fd.as_fd()),
            Keeper::Other(_) => None,
        }
    }

    /// What [`Fd::from_other`] was given.
    pub fn as_other(&self) -> Option<&dyn Any> {
        match &self.0.keeper {
            Keeper::Os(_) | Keeper::Guarded { .. } => None,
            Keeper::Other(any) => Some(any.as_ref()),
        }
    }

    /// Gives the kernel descriptor away if this is its last holder, else gives `self` back.
    pub fn into_os(self) -> Result<OwnedFd, Fd> {
        match Rc::try_unwrap(self.0) {
            Ok(Inner { keeper: Keeper::Os(fd), .. }) => Ok(fd),
            Ok(inner) => Err(Fd(Rc::new(inner))),
            Err(shared) => Err(Fd(shared)),
        }
    }

    /// Whether both name the same open descriptor (not merely the same number).
    pub fn same(&self, other: &Fd) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// How many hold it; 1 means the next drop closes it.
    pub fn holders(&self) -> usize {
        Rc::strong_count(&self.0)
    }

    /// A name for it that does not keep it open.
    pub fn downgrade(&self) -> WeakFd {
        WeakFd(Rc::downgrade(&self.0))
    }
}

impl WeakFd {
    /// The descriptor, if somebody still holds it.
    pub fn upgrade(&self) -> Option<Fd> {
        self.0.upgrade().map(Fd)
    }

    /// Whether this names the same open descriptor as `fd`.
    pub fn is(&self, fd: &Fd) -> bool {
        self.0.as_ptr() == Rc::as_ptr(&fd.0)
    }
}

impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fd({}, {:?})", self.0.number, self.0.kind)
    }
}
