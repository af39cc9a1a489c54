//! One connection through a [`FaultProxy`](crate::faults::proxy::FaultProxy).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use crate::faults::proxy::Fault;

/// What is read at once.
const BUFFER: usize = 16 << 10;
/// What a segment carries on an Ethernet: 1500 bytes less the headers of IPv4 and TCP with its timestamps.
const SEGMENT: usize = 1448;
/// One of so many segments is lost where some are.
const LOST: u32 = 100;
/// What a lost segment costs where no other one shows its loss: the least retransmission timeout of Linux (`TCP_RTO_MIN`).
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Between two pieces of a slow server.
const TICK: Duration = Duration::from_millis(100);

/// Carries bytes in both directions until both have ended, or a fault resets the connection.
pub(super) async fn carry(mut client: TcpStream, mut server: TcpStream, fault: watch::Receiver<Fault>) {
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let forth = pump(Direction::Forth, from_client, to_server, fault.clone());
        let back = pump(Direction::Back, from_server, to_client, fault.clone());
        tokio::select! {
            ended = async { tokio::try_join!(forth, back) } => ended.map(|_| ()),
            () = cut(fault) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    };
    if ended.is_err() {
        // Both may be gone already.
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

/// Returns when a fault begins that ends what is open.
async fn cut(mut fault: watch::Receiver<Fault>) {
    let cuts = fault.wait_for(|fault| matches!(fault, Fault::Refused | Fault::Expired));
    if cuts.await.is_err() {
        // The proxy ends, and this with it.
        std::future::pending::<()>().await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// From the client to the server.
    Forth,
    /// From the server to the client.
    Back,
}

/// What happens to the next piece.
enum Piece {
    /// It is not read before something changes.
    Held,
    /// At most so much is read.
    Read(usize),
}

async fn pump(
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut segments: u32 = 0;
    // Of the server, since the fault that counts them began.
    let mut carried: u64 = 0;
    let mut counted_for = Fault::None;
    loop {
        let now = *fault.borrow_and_update();
        if now != counted_for {
            (carried, counted_for) = (0, now);
        }
        let most = match next(direction, now) {
            Piece::Read(most) => most,
            Piece::Held => {
                changed(&mut fault).await;
                continue;
            }
        };
        let read = tokio::select! {
            read = from.read(&mut buffer[..most]) => read?,
            () = changed(&mut fault) => continue,
        };
        if read == 0 {
            return to.shutdown().await;
        }
        // What has arrived after the fault began is not passed on before it ends.
        while matches!(next(direction, *fault.borrow_and_update()), Piece::Held) {
            changed(&mut fault).await;
        }
        match now {
            Fault::Slow(_) if direction == Direction::Back => tokio::time::sleep(TICK).await,
            Fault::Lossy => {
                segments += 1;
                if segments.is_multiple_of(LOST) {
                    tokio::time::sleep(RETRANSMISSION).await;
                }
            }
            _ => {}
        }
        to.write_all(&buffer[..read]).await?;
        carried += read as u64;
        if let Fault::Reset(after) = now
            && direction == Direction::Back
            && carried >= after
        {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
}

fn next(direction: Direction, fault: Fault) -> Piece {
    match (fault, direction) {
        (Fault::Dropped, _) | (Fault::Mute, Direction::Back) => Piece::Held,
        (Fault::Slow(rate), Direction::Back) => {
            let ticks = u32::try_from(Duration::from_secs(1).as_millis() / TICK.as_millis()).expect("ten");
            Piece::Read((rate / ticks).clamp(1, BUFFER as u32) as usize)
        }
        (Fault::Lossy, _) => Piece::Read(SEGMENT),
        (Fault::Reset(_), Direction::Back) => Piece::Read(SEGMENT),
        _ => Piece::Read(BUFFER),
    }
}

async fn changed(fault: &mut watch::Receiver<Fault>) {
    if fault.changed().await.is_err() {
        // The proxy ends, and this with it.
        std::future::pending::<()>().await;
    }
}
