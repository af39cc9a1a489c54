//! Time is simulated: it passes as soon as everybody waits.

mod access;
mod authenticators;
mod hub;
mod tokens;

use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// As patient as the default, but without the dice.
fn patience() -> Patience {
    Patience {
        backoff: Backoff {
            jitter: 0.0,
            ..Backoff::default()
        },
        ..Patience::default()
    }
}
