//! Whose turn it is: most tests use a hub side by side, and those that kill what serves it wait until nobody else does.
//!
//! There is one lock for all hubs that tests share. A test may ask for several things behind it: what its thread holds already
//! is not locked again, because a second reader of a lock would wait for a writer that waits for the first.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{PoisonError, RwLock};

static HUBS: RwLock<()> = RwLock::new(());

/// What this thread holds.
#[derive(Default)]
struct Held {
    lock: Option<Box<dyn Any>>,
    turns: usize,
    exclusive: bool,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

/// A turn of this thread; the lock is let go with the last of them.
#[derive(Debug)]
struct Turn {
    // A lock belongs to its thread.
    thread: PhantomData<*const ()>,
}

impl Turn {
    fn take(exclusive: bool) -> Self {
        HELD.with_borrow_mut(|held| {
            if held.turns == 0 {
                held.exclusive = exclusive;
                held.lock = Some(if exclusive {
                    Box::new(HUBS.write().unwrap_or_else(PoisonError::into_inner))
                } else {
                    Box::new(HUBS.read().unwrap_or_else(PoisonError::into_inner))
                });
            }
            assert!(
                held.exclusive || !exclusive,
                "a test that needs the hubs alone has to say so before it asks for anything else"
            );
            held.turns += 1;
        });
        Self { thread: PhantomData }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            held.turns -= 1;
            if held.turns == 0 {
                held.lock = None;
            }
        });
    }
}

/// Something that tests share, as long as the holder has its turn.
#[derive(Debug)]
pub struct Shared<T: 'static> {
    value: &'static T,
    _turn: Turn,
}

impl<T> Shared<T> {
    /// `value`, beside other tests.
    pub(crate) fn beside_others(value: &'static T) -> Self {
        Self {
            value,
            _turn: Turn::take(false),
        }
    }

    /// `value`, without other tests.
    pub(crate) fn alone(value: &'static T) -> Self {
        Self {
            value,
            _turn: Turn::take(true),
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    static THING: u8 = 7;

    #[test]
    fn a_thread_has_its_turn_once_and_others_wait_for_its_end() {
        let first = Shared::beside_others(&THING);
        let (tell, hear) = mpsc::channel();
        let other = std::thread::spawn(move || {
            tell.send("waits").unwrap();
            let alone = Shared::alone(&THING);
            let again = Shared::beside_others(&THING);
            tell.send("alone").unwrap();
            *alone + *again
        });
        assert_eq!(hear.recv().unwrap(), "waits");
        // A second reader of the lock itself could wait for the other thread now, which waits for the first.
        let second = Shared::beside_others(&THING);
        drop(first);
        assert_eq!(
            hear.try_recv(),
            Err(mpsc::TryRecvError::Empty),
            "the turn has not ended"
        );
        drop(second);
        assert_eq!(hear.recv().unwrap(), "alone");
        assert_eq!(other.join().unwrap(), 14);
        drop(Shared::alone(&THING));
    }

    #[test]
    #[should_panic(expected = "before it asks for anything else")]
    fn whoever_has_a_turn_beside_others_cannot_have_one_alone() {
        let _first = Shared::beside_others(&THING);
        let _alone = Shared::alone(&THING);
    }
}
