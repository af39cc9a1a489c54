//! Several ways to the same place, tried one after the other without waiting for the first to fail.
//!
//! RFC 8305 §5 ("Happy Eyeballs"), in its simple form: the next attempt begins when the last has failed, or has not succeeded
//! after a delay; the first that succeeds wins, and the others are dropped.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::Instant};

use super::names::Name;
use crate::failure::{ConnectError, Failure};

/// RFC 8305 §8: the recommended Connection Attempt Delay.
const ADDRESS_DELAY: Duration = Duration::from_millis(250);
/// Attempts at addresses of one name. More only take time that another endpoint would use better.
const ADDRESSES: usize = 8;

/// Runs the attempts in their order until one succeeds; gives which, and what it brought. The error is that of the first
/// attempt, which is the preferred one. Cancel safe: all attempts are dropped.
///
/// # Errors
/// When all attempts fail, or there are none.
pub(super) async fn race<T, F>(attempts: impl IntoIterator<Item = F>, delay: Duration) -> io::Result<(usize, T)>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = attempts.into_iter().enumerate();
    let mut running = FuturesUnordered::new();
    let mut failed: Option<(usize, io::Error)> = None;
    let mut next_at = Instant::now();
    let mut begin = |running: &mut FuturesUnordered<_>| {
        let next = waiting.next();
        if let Some((index, attempt)) = next {
            running.push(async move { (index, attempt.await) });
            return true;
        }
        false
    };
    let mut more = begin(&mut running);
    if more {
        next_at += delay;
    }
    loop {
        tokio::select! {
            biased;
            ended = running.next(), if !running.is_empty() => match ended {
                Some((index, Ok(won))) => return Ok((index, won)),
                Some((index, Err(error))) => {
                    if failed.as_ref().is_none_or(|(first, _)| index < *first) {
                        failed = Some((index, error));
                    }
                    // No reason to wait for the delay.
                    next_at = Instant::now();
                }
                None => {}
            },
            () = tokio::time::sleep_until(next_at), if more => {
                more = begin(&mut running);
                next_at = Instant::now() + delay;
            }
            else => {
                let none = || ConnectError::io(Failure::Dns, "there is no address to connect to");
                return Err(failed.map_or_else(none, |(_, error)| error));
            }
        }
    }
}

/// Connects to the first address of `name` that answers.
///
/// # Errors
/// When the name is unknown, or none of its addresses can be connected to.
pub(super) async fn connect(name: &Name) -> io::Result<TcpStream> {
    let mut addresses = interleaved(name.addresses().await?);
    addresses.truncate(ADDRESSES);
    let several = addresses.len() > 1;
    let attempts = addresses.into_iter().map(async |address| {
        TcpStream::connect(address).await.map_err(|error| match several {
            true => io::Error::new(error.kind(), format!("{address}: {error}")),
            false => error,
        })
    });
    Ok(race(attempts, ADDRESS_DELAY).await?.1)
}

/// RFC 8305 §4: families alternate, beginning with that of the first; otherwise the order is the resolver's (RFC 6724).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else {
        return addresses;
    };
    let ipv6_first = first.is_ipv6();
    let (preferred, others): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == ipv6_first);
    let mut others = others.into_iter();
    let mut all = Vec::new();
    for address in preferred {
        all.push(address);
        all.extend(others.next());
    }
    all.extend(others);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use futures::{FutureExt as _, future::BoxFuture};
    use parking_lot::Mutex;
    use tokio::net::TcpListener;
    use umbra_show::Item;

    const DELAY: Duration = Duration::from_millis(250);

    fn fails(after: u64, text: &'static str) -> BoxFuture<'static, io::Result<&'static str>> {
        async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            Err(io::Error::other(text))
        }
        .boxed()
    }

    fn succeeds(after: u64, text: &'static str) -> BoxFuture<'static, io::Result<&'static str>> {
        async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            Ok(text)
        }
        .boxed()
    }

    /// Who wins, and after how many milliseconds of paused time.
    async fn winner(attempts: Vec<BoxFuture<'static, io::Result<&'static str>>>) -> (Result<usize, String>, u128) {
        let began = Instant::now();
        let won = race(attempts, DELAY).await;
        (
            won.map(|(index, _)| index).map_err(|error| error.to_string()),
            began.elapsed().as_millis(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_succeed_wins() {
        // A quick one keeps the others from being tried.
        assert_eq!(winner(vec![succeeds(100, "a"), succeeds(0, "b")]).await, (Ok(0), 100));
        // One that hangs costs the delay.
        assert_eq!(
            winner(vec![succeeds(60_000, "a"), succeeds(10, "b")]).await,
            (Ok(1), 260)
        );
        // The preferred one may still win while others are tried.
        assert_eq!(winner(vec![succeeds(300, "a"), succeeds(500, "b")]).await, (Ok(0), 300));
        // One that fails costs nothing more.
        assert_eq!(
            winner(vec![fails(5, "a"), fails(5, "b"), succeeds(5, "c")]).await,
            (Ok(2), 15)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_is_that_of_the_preferred_way() {
        let (won, after) = winner(vec![fails(600, "first"), fails(0, "second"), fails(0, "third")]).await;
        assert_eq!((won, after), (Err("first".to_owned()), 600));
        assert!(
            winner(Vec::new())
                .await
                .0
                .is_err_and(|error| error.contains("no address"))
        );
    }

    #[test]
    fn families_alternate() {
        let addresses = |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|one| one.parse().unwrap()).collect() };
        let resolved = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        assert_eq!(
            interleaved(resolved),
            addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"])
        );
        let resolved = addresses(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(interleaved(resolved.clone()), resolved);
    }

    #[tokio::test]
    async fn names_and_refusals_are_told_apart() {
        let error = connect(&Name::new("no-such-host.invalid", 443)).await.unwrap_err();
        assert_eq!(Failure::of_io(&error), Failure::Dns);
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
        // Bound and closed again: nobody listens there.
        let error = connect(&Name::new("::1", closed("[::1]:0").await.port()))
            .await
            .unwrap_err();
        assert_eq!(Failure::of_io(&error), Failure::ConnectionRefused);
    }

    /// An address at which nobody listens.
    async fn closed(address: &str) -> SocketAddr {
        TcpListener::bind(address).await.unwrap().local_addr().unwrap()
    }

    /// Listens and takes no connection: the queue of those that wait is full, so the kernel drops what comes.
    async fn silent() -> (TcpListener, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(connected.unwrap());
        }
        (listener, queued)
    }

    #[tokio::test]
    async fn dead_addresses_of_a_name_are_passed_over() {
        let item = Item::open("children.names");
        let (silent, _queued) = silent().await;
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (silent, alive_at) = (silent.local_addr().unwrap(), alive.local_addr().unwrap());
        let refused = [closed("127.0.0.1:0").await, closed("[::1]:0").await];
        // What the name means now.
        let answer = Arc::new(Mutex::new(vec![refused[0], silent, refused[1], alive_at]));
        let read = Arc::clone(&answer);
        let name = Name::resolved_by("child.test", 443, move |_, _| Ok(read.lock().clone()));
        assert_eq!(connect(&name).await.unwrap().peer_addr().unwrap(), alive_at);
        // The server has moved, and the address it had answers no more.
        let moved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        drop(alive);
        *answer.lock() = vec![alive_at, moved.local_addr().unwrap()];
        assert_eq!(
            connect(&name).await.unwrap().peer_addr().unwrap(),
            moved.local_addr().unwrap()
        );
        item.pass("refused, silent and IPv6 addresses passed over for the one that answers; another answer followed");
    }
}
