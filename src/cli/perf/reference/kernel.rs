//! Directions through the kernel: pipes, FIFOs, message queues.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mqueue::{
    MQ_OFlag, MqAttr, MqdT, mq_attr_member_t, mq_close, mq_open, mq_receive, mq_send,
};
use nix::sys::stat::Mode;

use super::{End, Stream, Way};
use crate::cli::proc;

/// Messages that a queue holds; unprivileged users may have 10.
const QUEUE_MESSAGES: mq_attr_member_t = 8;

/// An open queue; nix does not close one by itself.
struct Queue(Option<MqdT>);

impl Queue {
    fn open(name: &str, flags: MQ_OFlag, attributes: Option<&MqAttr>) -> nix::Result<Queue> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(Queue(Some(mq_open(name, flags | MQ_OFlag::O_CLOEXEC, mode, attributes)?)))
    }

    fn get(&self) -> nix::Result<&MqdT> {
        self.0.as_ref().ok_or(Errno::EBADF)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            // It is open, and nobody else closes it.
            let _ = mq_close(queue);
        }
    }
}

impl Way for Queue {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        Ok(mq_send(self.get()?, bytes, 0)?)
    }
    fn receive(&mut self, room: &mut [u8]) -> io::Result<()> {
        // It takes whole messages only, and the room has the queue's message size.
        mq_receive(self.get()?, room, &mut 0)?;
        Ok(())
    }
}

/// The largest message of a queue here.
pub fn queue_bytes_max() -> usize {
    let limit = proc::line("/proc/sys/fs/mqueue/msgsize_max");
    limit.and_then(|line| line.parse().ok()).unwrap_or(8192)
}

/// Makes a queue for messages of that size.
pub fn make_queue(name: &str, size: usize) -> Result<()> {
    let attributes = MqAttr::new(0, QUEUE_MESSAGES, size as mq_attr_member_t, 0);
    let flags = MQ_OFlag::O_RDWR | MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL;
    let made = Queue::open(name, flags, Some(&attributes));
    drop(made.with_context(|| format!("making the message queue {name}"))?);
    Ok(())
}

pub(super) fn open_queue(name: &str, end: End) -> Result<Box<dyn Way>> {
    let side = if end == End::Write { MQ_OFlag::O_WRONLY } else { MQ_OFlag::O_RDONLY };
    let queue = Queue::open(name, side, None);
    Ok(Box::new(queue.with_context(|| format!("opening the message queue {name}"))?))
}

pub(super) fn open_fifo(path: &str, end: End) -> Result<Box<dyn Way>> {
    // Opening would wait for the other side, but somebody holds both ends meanwhile.
    let file = OpenOptions::new().read(end == End::Read).write(end == End::Write).open(path);
    Ok(Box::new(Stream(file.with_context(|| format!("opening the fifo {path}"))?)))
}

/// Our own stdin and stdout.
pub(super) fn stdio() -> Result<[Box<dyn Way>; 2]> {
    let own = |fd: BorrowedFd<'_>| -> Result<Box<dyn Way>> {
        Ok(Box::new(Stream(File::from(fd.try_clone_to_owned()?))))
    };
    Ok([own(io::stdin().as_fd())?, own(io::stdout().as_fd())?])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the queues that a system has, and than the descriptors of a process.
    #[test]
    fn a_queue_is_closed_when_it_is_dropped() {
        let name = format!("/ringlane-queue-{}", std::process::id());
        for _ in 0..1100 {
            make_queue(&name, 64).expect("there is room for one");
            let opened = open_queue(&name, End::Read);
            nix::mqueue::mq_unlink(name.as_str()).expect("it was made");
            opened.expect("it was there");
        }
    }
}
