use super::*;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use ringlane::bus::{BusError, Mailbox, SendOptions};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

/// Runs on a thread, and turns the base until that is through.
fn beside<T: Send + 'static>(world: &World, run: impl FnOnce() -> T + Send + 'static) -> T {
    let remote = world.base.remote();
    let thread = thread::spawn(move || {
        let came = run();
        // The loop may sleep.
        let _ = remote.run(|_| {});
        came
    });
    world.until(|| thread.is_finished());
    thread.join().unwrap()
}

/// The smallest executor.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(came) => return came,
            Poll::Pending => thread::park(),
        }
    }
}

fn send_all(mailbox: &Mailbox, count: u32) -> Result<(), BusError> {
    (0..count).try_for_each(|n| mailbox.send("db", n.to_string().as_bytes(), LONG))
}

#[test]
fn a_thread_sends_more_than_rings_hold_and_waits_for_room() {
    let world = World::new(4 << 10);
    let (_db, seen) = world.listener("db");
    let mailbox = world.open("web").mailbox().unwrap();
    beside(&world, move || send_all(&mailbox, 2000)).unwrap();
    // The drop of the mailbox has waited until all is acknowledged: it is in the ring of db.
    world.until(|| seen.count() == 2000);
    assert_eq!(*seen.texts.borrow(), numbers(0..2000));
}

#[test]
fn a_thread_that_is_slow_holds_its_sender_up_and_misses_nothing() {
    let world = World::new(4 << 10);
    let (db, web) = (world.open("db"), world.open("web"));
    let mailbox = db.mailbox().unwrap();
    send_numbers(&web, "db", 0..5000);
    let got = beside(&world, move || {
        (0..5000)
            .map(|n| {
                if n % 1000 == 0 {
                    thread::sleep(SHORT);
                }
                mailbox.recv(LONG).unwrap().text().into_owned()
            })
            .collect::<Vec<String>>()
    });
    assert_eq!(got, numbers(0..5000));
}

#[test]
fn waiting_ends_at_its_deadline_and_what_had_no_room_in_time_is_not_taken() {
    let world = World::new(4 << 10);
    let (db, web) = (world.open("db"), world.open("web"));
    let mailbox = web.mailbox().unwrap();
    let sent = beside(&world, move || {
        assert!(matches!(mailbox.recv(SHORT), Err(BusError::TimedOut)));
        let sent = (0..10_000_u32)
            .find(|n| mailbox.send("db", n.to_string().as_bytes(), SHORT).is_err())
            .unwrap();
        // Its drop would wait for who does not read.
        std::mem::forget(mailbox);
        sent
    });
    let mut got = Vec::new();
    while got.len() < sent as usize {
        world.base.turn(Turn::NoWait).unwrap();
        got.extend(db.try_recv().map(|message| message.text().into_owned()));
    }
    world.base.turn(Turn::NoWait).unwrap();
    assert_eq!(got, numbers(0..sent));
    assert!(db.try_recv().is_none());
}

#[test]
fn threads_call_and_answer() {
    let world = World::new(64 << 10);
    let server = world.open("db").mailbox().unwrap();
    let client = world.open("web").mailbox().unwrap();
    let serving = thread::spawn(move || {
        let asked = server.recv(LONG).unwrap();
        assert_eq!((asked.from(), asked.wants_reply()), ("web", true));
        server.reply(asked.reply_to(), b"42", LONG)
    });
    let answer = beside(&world, move || {
        let answer = client.call("db", b"how much?", LONG).unwrap();
        serving.join().unwrap().unwrap();
        answer
    });
    assert_eq!((answer.from(), answer.bytes()), ("db", &b"42"[..]));
}

#[test]
fn async_code_sends_receives_and_calls() {
    let world = World::new(64 << 10);
    let server = world.open("db").mailbox().unwrap();
    let client = world.open("web").mailbox().unwrap();
    let serving = thread::spawn(move || {
        block_on(async {
            let told = server.recv_async().await?;
            let asked = server.recv_async().await?;
            server.reply_async(asked.reply_to(), told.bytes()).await
        })
    });
    let answer = beside(&world, move || {
        let answer = block_on(async {
            client.send_async("db", &SendOptions::default(), b"42").await?;
            client.call_async("db", b"how much?", None).await
        });
        serving.join().unwrap().unwrap();
        answer
    });
    assert_eq!(answer.unwrap().text(), "42");
}

#[test]
fn who_waits_hears_that_the_bus_is_closed() {
    let world = World::new(64 << 10);
    let bus = world.open("web");
    let mailbox = bus.mailbox().unwrap();
    let other = mailbox.clone();
    let waiting = thread::spawn(move || mailbox.recv(LONG));
    beside(&world, move || other.close(LONG)).unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(BusError::Closed)));
    assert!(!bus.is_alive());
    let bus = world.open("web");
    let mailbox = bus.mailbox().unwrap();
    let waiting = thread::spawn(move || block_on(mailbox.call_async("db", b"?", None)));
    world.base.turn(Turn::Wait).unwrap();
    drop(world);
    assert!(matches!(waiting.join().unwrap(), Err(BusError::Closed)));
}
