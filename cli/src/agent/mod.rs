//! `umbra agent`: runs in a cluster that the hub cannot dial, and has the hub reach it through a tunnel.
//!
//! It asks to join with a bootstrap token, gets a certificate for its cluster, opens a tunnel, and serves what comes through
//! it with its own credential for the API server beside it. Certificates are renewed with the present one; what the agent
//! knows is kept ([`state`]), so that restarts need no approval and no token. Several agents of one cluster may run at once:
//! they share what is kept, and each has a tunnel.

mod flags;
mod health;
mod identity;
mod join;
mod own;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context as _, Result};
use http::StatusCode;
use rand::RngExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinError;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_child::Child;
use umbra_child::tunnel::agent::{self, Ending, TunnelError};

pub(crate) use flags::AgentArguments;
use health::{Health, TURN};
use identity::Identity;
use join::Joiner;
use own::OwnCluster;

/// The first retry comes within this, and none waits longer than [`LONGEST`] (full jitter).
const FIRST: Duration = Duration::from_millis(500);
/// A hub that is back is found within this.
const LONGEST: Duration = Duration::from_secs(15);
/// After how many refusals in a row an agent asks for another certificate. One refusal says little: a replica of the hub may not
/// have heard of a renewed authority yet, or may have come back with what it knew before. With the pauses between them these take
/// 8 s in the mean.
const PATIENCE: u32 = 5;
/// A tunnel that lived for less was no success.
const LASTING: Duration = Duration::from_secs(30);
/// What is said of a renewal.
const RENEWED: &str = "the certificate has been renewed";
const NOT_RENEWED: &str = "the certificate is not renewed yet";

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
/// Where the flags cannot be used. What fails later is tried again.
pub(crate) async fn run(arguments: AgentArguments) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be received")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be received")?;
    let own = OwnCluster::new(&arguments)?;
    let health = Health::new();
    let joiner = Joiner::new(&arguments, &own, health.clone())?;
    let stop = CancellationToken::new();
    // Probes are answered to the end.
    let ended = CancellationToken::new();
    let _ended = ended.clone().drop_guard();
    let probes = TaskTracker::new();
    if let Some(port) = arguments.health_port {
        let listener = health::listen(port).await;
        let listener = listener.with_context(|| format!("--health-port {port} cannot be used"))?;
        probes.spawn(health.clone().serve(listener, ended.clone()));
    }
    let agent = Agent {
        cluster: arguments.cluster.clone(),
        own: own.child().clone(),
        joiner,
        health,
        tasks: TaskTracker::new(),
        stop: stop.clone(),
    };
    let running = agent.run();
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => return Ok(()),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("stopping; another signal stops at once");
    stop.cancel();
    tokio::select! {
        () = &mut running => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    own.child().close().await;
    ended.cancel();
    probes.close();
    probes.wait().await;
    Ok(())
}

/// An agent at work.
struct Agent {
    cluster: String,
    own: Child,
    joiner: Joiner,
    health: Health,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why another tunnel is needed.
enum Next {
    /// The one there was has ended.
    Again,
    /// The hub wants it, or there is another certificate; the one there is goes on until it has ended.
    Replace(Ending),
    Stop,
}

impl Agent {
    async fn run(mut self) {
        let (mut failures, mut refusals) = (0, 0);
        let mut before: Option<Ending> = None;
        let mut identity: Option<Identity> = None;
        while !self.stop.is_cancelled() {
            self.health.turn();
            let present = match identity.take() {
                Some(present) => present,
                None => match self.obtain().await {
                    Some(obtained) => obtained,
                    None => break,
                },
            };
            let began = Instant::now();
            let requested = agent::request(present.hub(), &self.cluster).await;
            match requested {
                Ok(tunnel) => {
                    refusals = 0;
                    eprintln!("connected to the hub as {}", self.cluster);
                    if let Some(before) = before.take() {
                        before.stop.cancel();
                    }
                    let (next, kept) = self.serve(tunnel, present).await;
                    identity = Some(kept);
                    match next {
                        Next::Stop => break,
                        Next::Replace(ending) => before = Some(ending),
                        Next::Again => {}
                    }
                    failures = if began.elapsed() >= LASTING { 0 } else { failures + 1 };
                }
                Err(error) => {
                    failures += 1;
                    eprintln!("no tunnel: {error}");
                    refusals += u32::from(is_refusal(&error));
                    identity = Some(match is_refusal(&error) && refusals % PATIENCE == 0 {
                        true => self.rejoin(present).await,
                        false => self.refreshed(present).await,
                    });
                }
            }
            self.pause(failures).await;
        }
        if let Some(before) = before {
            before.stop.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The identity that is kept, or a new one, however long that takes; `None` where the agent is to stop.
    async fn obtain(&mut self) -> Option<Identity> {
        let mut failures = 0;
        loop {
            self.health.turn();
            let stop = self.stop.clone();
            match stop.run_until_cancelled(self.joiner.obtain()).await? {
                Ok(identity) => return Some(identity),
                Err(error) => {
                    failures += 1;
                    eprintln!("not joined yet: {error:#}");
                }
            }
            self.pause(failures).await;
            if self.stop.is_cancelled() {
                return None;
            }
        }
    }

    /// Another identity instead of one that the hub keeps refusing, or the same where there is none to be had.
    async fn rejoin(&mut self, present: Identity) -> Identity {
        eprintln!("the hub keeps refusing the certificate; asking for another");
        let stop = self.stop.clone();
        match stop.run_until_cancelled(self.joiner.rejoin(&present)).await {
            Some(Ok(other)) => {
                present.hub().close().await;
                other
            }
            Some(Err(error)) => {
                eprintln!("no other certificate: {error:#}");
                present
            }
            None => present,
        }
    }

    /// The identity of an agent that gets no tunnel, which may be because of what is old in it: verifies the hub by what the agent is
    /// told now, and has another certificate where it is time for one.
    async fn refreshed(&mut self, present: Identity) -> Identity {
        let mut present = self.joiner.with_present_authorities(present).await;
        if Instant::now() < present.renew_at() {
            return present;
        }
        self.health.turn();
        let stop = self.stop.clone();
        match stop.run_until_cancelled(self.joiner.renew(&present)).await {
            Some(Ok(renewed)) => {
                eprintln!("{RENEWED}");
                present.hub().close().await;
                renewed
            }
            Some(Err(error)) => {
                eprintln!("{NOT_RENEWED}: {error:#}");
                present.renew_later();
                present
            }
            None => present,
        }
    }

    /// Serves one tunnel, in a task that outlives this, until there is something else to do.
    async fn serve(&mut self, tunnel: agent::Tunnel, identity: Identity) -> (Next, Identity) {
        // An exec may outlive the tunnel's certificate's renewal, but not the agent.
        let ending = Ending {
            hurry: self.stop.child_token(),
            ..Ending::default()
        };
        let (own, own_ending, up) = (self.own.clone(), ending.clone(), self.health.up());
        let over = CancellationToken::new();
        let ended = over.clone().drop_guard();
        let mut served = self.tasks.spawn(async move {
            let served = agent::serve(tunnel, &own, &own_ending).await;
            drop((up, ended));
            served
        });
        let mut identity = identity;
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let renewal = tokio::time::sleep_until(identity.renew_at());
            tokio::select! {
                ended = &mut served => {
                    tell_end(ended);
                    return (Next::Again, identity);
                }
                _ = turns.tick() => self.health.turn(),
                () = ending.unwanted.cancelled() => {
                    eprintln!("the hub is going; opening another tunnel");
                    return (Next::Replace(ending), identity);
                }
                () = self.stop.cancelled() => {
                    ending.stop.cancel();
                    let _ = served.await;
                    return (Next::Stop, identity);
                }
                () = renewal => {
                    // Takes a minute or two where the hub is slow. What ends the tunnel or the agent does not wait for that: it is
                    // heard above.
                    let renewed = tokio::select! {
                        renewed = self.joiner.renew(&identity) => Some(renewed),
                        () = self.stop.cancelled() => None,
                        () = ending.unwanted.cancelled() => None,
                        () = over.cancelled() => None,
                    };
                    match renewed {
                        Some(Ok(renewed)) => {
                            eprintln!("{RENEWED}");
                            return (Next::Replace(ending), renewed);
                        }
                        Some(Err(error)) => {
                            eprintln!("{NOT_RENEWED}: {error:#}");
                            identity = self.joiner.with_present_authorities(identity).await;
                        }
                        None => {}
                    }
                    identity.renew_later();
                }
            }
        }
    }

    /// Waits before the next try, or until the agent is to stop.
    async fn pause(&self, failures: u32) {
        let ceiling = FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST);
        let pause = ceiling.mul_f64(rand::rng().random_range(0.0..1.0));
        let _ = tokio::time::timeout(pause, self.stop.cancelled()).await;
    }
}

/// Says how a tunnel has ended.
fn tell_end(ended: Result<std::io::Result<()>, JoinError>) {
    match ended {
        Ok(Ok(())) => eprintln!("the tunnel has ended"),
        // rustls says more of it, for programmers.
        Ok(Err(error)) if error.to_string().contains("close_notify") => eprintln!("the hub has cut the tunnel"),
        Ok(Err(error)) => eprintln!("the tunnel has ended: {error}"),
        Err(error) => eprintln!("the tunnel has failed: {error}"),
    }
}

/// Whether the hub does not believe the certificate any more.
fn is_refusal(error: &TunnelError) -> bool {
    matches!(
        error,
        TunnelError::Refused {
            code: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN,
            ..
        }
    )
}
