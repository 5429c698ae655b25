//! iceoryx2: publish-subscribe both ways, polled; or with its events, asleep.

use std::io;

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use crate::ends::Ends;

type Ipc = ipc::Service;

/// Messages that may be under way, as many bytes as our ring has at 64 B.
const BUFFERED: usize = 1024;

pub struct Ice {
    _node: Node<Ipc>,
    publisher: Publisher<Ipc, [u8], ()>,
    subscriber: Subscriber<Ipc, [u8], ()>,
    /// Where both sleep.
    bells: Option<(Notifier<Ipc>, Listener<Ipc>)>,
}

fn error(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

impl Ice {
    pub fn new(name: &str, serves: bool, size: usize, sleeps: bool) -> io::Result<Ice> {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new().create::<Ipc>().map_err(error)?;
        let buffered = if size > 4096 { 16 } else { BUFFERED };
        let service = |way: &str| {
            let name: ServiceName = format!("{name}/{way}").as_str().try_into().map_err(error)?;
            let service = node
                .service_builder(&name)
                .publish_subscribe::<[u8]>()
                .enable_safe_overflow(false)
                .subscriber_max_buffer_size(buffered)
                .history_size(0)
                .open_or_create();
            service.map_err(error)
        };
        let event = |way: &str| {
            let name: ServiceName = format!("{name}/{way}").as_str().try_into().map_err(error)?;
            node.service_builder(&name).event().open_or_create().map_err(error)
        };
        let (out, into) = if serves { ("back", "there") } else { ("there", "back") };
        let publisher = service(out)?
            .publisher_builder()
            .initial_max_slice_len(size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(error)?;
        let subscriber =
            service(into)?.subscriber_builder().buffer_size(buffered).create().map_err(error)?;
        let bells = if sleeps {
            let notifier = event(out)?.notifier_builder().create().map_err(error)?;
            let listener = event(into)?.listener_builder().create().map_err(error)?;
            Some((notifier, listener))
        } else {
            None
        };
        if serves {
            println!("ready");
        }
        Ok(Ice { _node: node, publisher, subscriber, bells })
    }
}

impl Ends for Ice {
    fn send(&mut self, message: &[u8], _flush: bool) -> io::Result<()> {
        let sample = self.publisher.loan_slice_uninit(message.len()).map_err(error)?;
        sample.write_from_slice(message).send().map_err(error)?;
        if let Some((notifier, _)) = &self.bells {
            notifier.notify().map_err(error)?;
        }
        Ok(())
    }

    fn receive(&mut self, see: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        loop {
            if let Some(sample) = self.subscriber.receive().map_err(error)? {
                if see(sample.payload()) {
                    return Ok(());
                }
                continue;
            }
            match &self.bells {
                Some((_, listener)) => {
                    listener.blocking_wait(|_| ()).map_err(error)?;
                }
                None => std::hint::spin_loop(),
            }
        }
    }
}
