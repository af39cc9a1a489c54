//! A bounded queue between one producer side and one consumer, made for watchers.
//!
//! What `tokio::sync::mpsc` does not offer and watchers need: the producer never waits and learns that the queue is full;
//! the consumer takes what was queued before the end and then learns why it ended; a queue that ended can be opened again
//! once its consumer has caught up by other means; and a third party can wake the consumer without queueing anything.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Makes a queue that holds up to `capacity` items. `T` is what is queued, `E` why it ends.
pub(crate) fn channel<T, E: Clone>(capacity: usize) -> (Sender<T, E>, Receiver<T, E>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: VecDeque::new(),
            end: None,
            poked: false,
        }),
        wake: Notify::new(),
        capacity,
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The producer side.
#[derive(Debug)]
pub(crate) struct Sender<T, E>(Arc<Shared<T, E>>);

/// The consumer side.
#[derive(Debug)]
pub(crate) struct Receiver<T, E>(Arc<Shared<T, E>>);

#[derive(Debug)]
struct Shared<T, E> {
    state: Mutex<State<T, E>>,
    wake: Notify,
    capacity: usize,
}

#[derive(Debug)]
struct State<T, E> {
    items: VecDeque<T>,
    end: Option<E>,
    poked: bool,
}

/// The queue is full, or has ended. The item was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// What the consumer finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<T, E> {
    /// An item.
    Item(T),
    /// No item, but somebody called [`Sender::poke`].
    Poked,
    /// No item, and none will come.
    Ended(E),
}

impl<T, E> Clone for Sender<T, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T, E: Clone> Sender<T, E> {
    /// Queues an item.
    pub(crate) fn push(&self, item: T) -> Result<(), Refused> {
        {
            let mut state = self.0.state.lock();
            if state.end.is_some() || state.items.len() >= self.0.capacity {
                return Err(Refused);
            }
            state.items.push_back(item);
        }
        self.0.wake.notify_one();
        Ok(())
    }

    /// Ends the queue after what is queued. The first reason stays.
    pub(crate) fn end(&self, reason: E) {
        self.0.state.lock().end.get_or_insert(reason);
        self.0.wake.notify_one();
    }

    /// Wakes the consumer once it has taken every item.
    pub(crate) fn poke(&self) {
        self.0.state.lock().poked = true;
        self.0.wake.notify_one();
    }

    /// How many items the queue holds at most.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity
    }
}

impl<T, E: Clone> Receiver<T, E> {
    /// The next item, or the end. Cancel safe.
    pub(crate) async fn receive(&mut self) -> Received<T, E> {
        loop {
            if let Some(received) = self.try_receive() {
                return received;
            }
            // A wake-up between the look and this line is not lost: `notify_one` leaves a permit.
            self.0.wake.notified().await;
        }
    }

    /// The next item or the end, if there is one already.
    pub(crate) fn try_receive(&mut self) -> Option<Received<T, E>> {
        let mut state = self.0.state.lock();
        if let Some(item) = state.items.pop_front() {
            return Some(Received::Item(item));
        }
        if let Some(reason) = &state.end {
            return Some(Received::Ended(reason.clone()));
        }
        std::mem::take(&mut state.poked).then_some(Received::Poked)
    }

    /// Whether nothing is queued and the queue has not ended.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.0.state.lock();
        state.items.is_empty() && state.end.is_none()
    }

    /// Opens a queue that has ended.
    pub(crate) fn reopen(&mut self) {
        self.0.state.lock().end = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn delivers_what_was_queued_before_the_end() {
        let (sender, mut receiver) = channel::<u8, &str>(2);
        assert_eq!(sender.push(1), Ok(()));
        assert_eq!(sender.push(2), Ok(()));
        assert_eq!(sender.push(3), Err(Refused));
        sender.end("slow");
        sender.end("later");
        assert_eq!(receiver.receive().await, Received::Item(1));
        assert_eq!(
            sender.push(4),
            Err(Refused),
            "an ended queue takes nothing, even with room"
        );
        assert_eq!(receiver.receive().await, Received::Item(2));
        assert_eq!(receiver.receive().await, Received::Ended("slow"));
        receiver.reopen();
        assert_eq!(sender.push(5), Ok(()));
        assert_eq!(receiver.receive().await, Received::Item(5));
    }

    #[tokio::test]
    async fn a_poke_comes_after_the_items_and_once() {
        let (sender, mut receiver) = channel::<u8, ()>(2);
        sender.poke();
        assert_eq!(sender.push(1), Ok(()));
        sender.poke();
        assert_eq!(receiver.receive().await, Received::Item(1));
        assert_eq!(receiver.receive().await, Received::Poked);
        assert_eq!(receiver.try_receive(), None);
        assert!(receiver.is_idle());
    }
}
