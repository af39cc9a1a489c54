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
