//! The stream of heartbeats: one byte at a time.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{HEARTBEAT, SILENCE};

/// Is anybody there? Returned as it comes.
const BEAT: u8 = b'b';
/// Open no more streams to me, or: have another tunnel, I am going.
const DRAIN: u8 = b'd';

/// The hub's side: beats, and listens. `drained` is told when the agent wants no more streams; `drain` makes this side say
/// so.
///
/// # Errors
/// When the agent is silent or says what it must not: always, sooner or later.
pub(super) async fn beat(
    stream: impl AsyncRead + AsyncWrite,
    drain: &CancellationToken,
    mut drained: impl FnMut(),
) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut heard = Instant::now();
    let mut beats = interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        tokio::select! {
            _ = beats.tick() => say(&mut to, BEAT).await?,
            () = drain.cancelled(), if !said => {
                said = true;
                say(&mut to, DRAIN).await?;
            }
            byte = from.read_u8() => {
                heard = Instant::now();
                match byte? {
                    BEAT => {}
                    DRAIN => drained(),
                    other => return Err(unexpected(other)),
                }
            }
            () = sleep_until(heard + SILENCE) => return Err(silent("agent", SILENCE)),
        }
    }
}

/// The agent's side: returns heartbeats. `drained` is told when the hub wants another tunnel; `drain` makes this side say
/// that it wants no more streams.
///
/// # Errors
/// When the hub is silent or says what it must not: always, sooner or later.
pub(super) async fn answer(
    stream: impl AsyncRead + AsyncWrite,
    drain: &CancellationToken,
    drained: &CancellationToken,
) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut heard = Instant::now();
    let mut said = false;
    loop {
        tokio::select! {
            () = drain.cancelled(), if !said => {
                said = true;
                say(&mut to, DRAIN).await?;
            }
            byte = from.read_u8() => {
                heard = Instant::now();
                match byte? {
                    BEAT => say(&mut to, BEAT).await?,
                    DRAIN => drained.cancel(),
                    other => return Err(unexpected(other)),
                }
            }
            () = sleep_until(heard + SILENCE) => return Err(silent("hub", SILENCE)),
        }
    }
}

/// One byte, which always has room but where the other side does not read.
async fn say(to: &mut (impl AsyncWrite + Unpin), byte: u8) -> io::Result<()> {
    let said = async {
        to.write_u8(byte).await?;
        to.flush().await
    };
    timeout(SILENCE, said)
        .await
        .map_err(|_| silent("other side", SILENCE))?
}

fn silent(who: &str, after: Duration) -> io::Error {
    let message = format!("nothing was heard of the {who} for {} s", after.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, message)
}

fn unexpected(byte: u8) -> io::Error {
    let message = format!("the other side does not speak {}: byte {byte}", super::PROTOCOL);
    io::Error::new(io::ErrorKind::InvalidData, message)
}
