//! Looking names up.
//!
//! The resolver is the platform's (`getaddrinfo`), so that names are what they are for every other program of the machine:
//! `/etc/hosts`, search domains, `nsswitch.conf`. It keeps a thread until it has an answer, and where name servers are silent that
//! is half a minute, long after whoever asked has given up. Threads for such work are shared with whatever else blocks, the
//! embedded store among it, so a hundred children whose names are not known must not take them all:
//! * of one endpoint one lookup is under way at a time, and whoever comes meanwhile waits for that one;
//! * of all children together [`AT_ONCE`] are.
//!
//! Nothing is kept: each connection is made to what the name means then, so a change of an answer is followed with the next
//! connection. How long an answer lasts is for the resolver of the machine to know, which may have a cache. The exception is an
//! answer that came when nobody waited for it any more: where the first of two name servers is dead, each lookup takes 5 s
//! (`resolv.conf(5)`, `timeout`), which is all the time that a connection has, so it is for who comes next.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use crate::failure::{ConnectError, Failure};

/// Lookups of all children at once: a quarter of the threads that tokio has for blocking work (512).
const AT_ONCE: usize = 128;
static LOOKUPS: Semaphore = Semaphore::const_new(AT_ONCE);

/// How long an answer that nobody has waited for is good. Probes come every 10 s, and a tenth more.
const UNCLAIMED: Duration = Duration::from_secs(15);

/// What resolves a name, blocking.
type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What a lookup has brought.
#[derive(Debug)]
struct Answer {
    /// The addresses, or why there are none.
    addresses: Result<Vec<SocketAddr>, Arc<str>>,
    /// Until when it is for who comes next: nobody has waited for it.
    unclaimed: Option<Instant>,
}

impl Answer {
    fn is_unclaimed(&self) -> bool {
        self.addresses.is_ok() && self.unclaimed.is_some_and(|until| Instant::now() < until)
    }
}

/// A host and a port, and how the host is looked up.
pub(super) struct Name {
    host: Arc<str>,
    port: u16,
    resolve: Arc<Resolve>,
    /// The lookup under way; its answer is `None` until there is one.
    asking: Mutex<Option<watch::Receiver<Option<Answer>>>>,
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Name {
    /// A name, or an address without brackets, that the platform looks up.
    pub(super) fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self::resolved_by(host, port, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    /// The same, looked up by `resolve`.
    pub(super) fn resolved_by(
        host: impl Into<Arc<str>>,
        port: u16,
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            host: host.into(),
            port,
            resolve: Arc::new(resolve),
            asking: Mutex::new(None),
        }
    }

    /// The host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whether a lookup has not brought an answer yet.
    pub(super) fn is_being_looked_up(&self) -> bool {
        self.asking
            .lock()
            .as_ref()
            .is_some_and(|asking| asking.borrow().is_none())
    }

    /// The addresses, as the resolver orders them. Cancel safe: the lookup goes on, and its thread is free when it ends.
    ///
    /// # Errors
    /// When the name is unknown or has no address.
    pub(super) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let mut asking = self.lookup().await;
        let answer = match asking.wait_for(Option::is_some).await {
            Ok(answer) => answer.as_ref().expect("it was waited for").addresses.clone(),
            // The thread has ended without one.
            Err(_) => Err("the lookup was given up".into()),
        };
        let unknown = |why: &str| {
            let message = format!("the name {} cannot be resolved: {why}", self.host);
            ConnectError::io(Failure::Dns, message)
        };
        match answer {
            Ok(addresses) if addresses.is_empty() => Err(unknown("it has no address")),
            Ok(addresses) => Ok(addresses),
            Err(why) => Err(unknown(&why)),
        }
    }

    /// The lookup that is under way, begun where none is.
    async fn lookup(&self) -> watch::Receiver<Option<Answer>> {
        if let Some(present) = under_way(self.asking.lock().as_ref()) {
            return present;
        }
        let permit = LOOKUPS.acquire().await.expect("the semaphore is never closed");
        let mut asking = self.asking.lock();
        // Somebody else may have begun meanwhile.
        if let Some(present) = under_way(asking.as_ref()) {
            return present;
        }
        let (sender, receiver) = watch::channel(None);
        *asking = Some(receiver.clone());
        let (resolve, host, port) = (Arc::clone(&self.resolve), Arc::clone(&self.host), self.port);
        // Nobody can end it, so nobody waits for its end: it lasts as long as the resolver does.
        drop(tokio::task::spawn_blocking(move || {
            let addresses = resolve(&host, port).map_err(|error| error.to_string().into());
            // The name itself has one of the receivers.
            let unclaimed = (sender.receiver_count() <= 1).then(|| Instant::now() + UNCLAIMED);
            sender.send_replace(Some(Answer { addresses, unclaimed }));
            drop(permit);
        }));
        receiver
    }
}

/// The lookup, unless it has given its answer to somebody or has been given up: what comes next asks anew.
fn under_way(asking: Option<&watch::Receiver<Option<Answer>>>) -> Option<watch::Receiver<Option<Answer>>> {
    let counts = |one: &&watch::Receiver<Option<Answer>>| match &*one.borrow() {
        Some(answer) => answer.is_unclaimed(),
        None => one.has_changed().is_ok(),
    };
    asking.filter(counts).cloned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_lookup_serves_all_who_ask_meanwhile_and_none_who_come_later() {
        let asked = Arc::new(AtomicUsize::new(0));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (count, held) = (Arc::clone(&asked), Mutex::new(held));
        let name = Name::resolved_by("child.test", 443, move |_, port| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let _ = held.lock().recv();
            Ok(vec![SocketAddr::new(
                [127, 0, 0, 1 + u8::try_from(number).unwrap()].into(),
                port,
            )])
        });
        // Who asks first does not wait for the answer.
        let mut given_up = Box::pin(name.addresses());
        assert!(futures::poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        let waiting = futures::future::join_all((0..20).map(|_| name.addresses()));
        let (all, ()) = tokio::join!(waiting, async { release.send(()).unwrap() });
        for addresses in all {
            assert_eq!(addresses.unwrap(), ["127.0.0.1:443".parse().unwrap()]);
        }
        // The answer has changed, and is followed.
        drop(release);
        assert_eq!(name.addresses().await.unwrap(), ["127.0.0.2:443".parse().unwrap()]);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_answer_that_comes_too_late_is_for_who_comes_next() {
        let asked = Arc::new(AtomicUsize::new(0));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (count, held) = (Arc::clone(&asked), Mutex::new(held));
        let name = Name::resolved_by("child.test", 443, move |_, port| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = held.lock().recv();
            Ok(vec![SocketAddr::new([127, 0, 0, 1].into(), port)])
        });
        let mut given_up = Box::pin(name.addresses());
        assert!(futures::poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        assert!(name.is_being_looked_up());
        release.send(()).unwrap();
        while name.is_being_looked_up() {
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            assert_eq!(name.addresses().await.unwrap().len(), 1);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        tokio::time::pause();
        tokio::time::advance(UNCLAIMED).await;
        tokio::time::resume();
        drop(release);
        name.addresses().await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_resolver_that_fails_is_told_of_and_asked_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let name = Name::resolved_by("child.test", 443, move |_, _| {
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => Err(io::Error::other("no such host")),
                1 => panic!("a resolver that breaks"),
                _ => Ok(Vec::new()),
            }
        });
        for expected in ["no such host", "given up", "no address"] {
            let error = name.addresses().await.unwrap_err();
            assert_eq!(Failure::of_io(&error), Failure::Dns);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn silent_name_servers_do_not_take_all_threads() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let names: Vec<Name> = (0..AT_ONCE + 20)
            .map(|number| {
                let held = Arc::clone(&held);
                Name::resolved_by(format!("c{number}.test"), 443, move |_, _| {
                    // Until there is nobody left to wait for.
                    let _ = held.lock().recv();
                    Ok(Vec::new())
                })
            })
            .collect();
        let mut waiting = Box::pin(futures::future::join_all(names.iter().map(Name::addresses)));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        assert_eq!(LOOKUPS.available_permits(), 0);
        // What else blocks still finds a thread.
        assert_eq!(tokio::task::spawn_blocking(|| 1).await.unwrap(), 1);
        drop(release);
        assert!(waiting.await.iter().all(Result::is_err));
    }
}
