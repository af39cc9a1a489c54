//! Waiting for a condition.

use std::time::{Duration, Instant};

/// How long anything may take that should take moments. Generous: the machine may be busy with other things, and a test
/// that waits in vain fails anyway.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks at a condition. Most looks run kubectl, which costs far more.
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks `condition` until it is `Ok`, and returns what that holds; `Err` says what is seen instead.
///
/// # Panics
/// With the last `Err` after `deadline`.
#[track_caller]
pub fn until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > deadline => {
                panic!("{what}: not within {} s. Last seen:\n{seen}", deadline.as_secs());
            }
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}

/// [`until`] with [`DEADLINE`], and how long it took.
///
/// # Panics
/// As [`until`].
#[track_caller]
pub fn for_text(what: &str, mut read: impl FnMut() -> String, holds: impl Fn(&str) -> bool) -> (String, Duration) {
    let start = Instant::now();
    let text = until(what, DEADLINE, || {
        let text = read();
        if holds(&text) { Ok(text) } else { Err(text) }
    });
    (text, start.elapsed())
}
