//! Several endpoints of one API server: an order of preference, one in use, and a way back.
//!
//! Connections go to the endpoint in use. Where that one does not connect within a second the others are tried as well, in their
//! order, and what connects first is used from then on: a request finds its way around an endpoint that is gone, without waiting
//! for anybody to declare it dead. An endpoint that connects but does not serve is left by [`Connector::avoid`], which the
//! probes call. They also ask the endpoints that are preferred to the one in use, and [`Connector::settle`] there once one of
//! them has answered well.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::{Connected, Connector, DirectConnector, Preferred, Protocol, direct::CONNECT_TIMEOUT, race::race};
use crate::{
    config::{ChildConfig, redacted},
    credentials::ClientCertificate,
    failure::{ConnectError, Failure},
};

/// How long an endpoint may take before the next one is tried beside it: TCP and TLS are four round trips, and none on Earth
/// takes 250 ms.
const DELAY: Duration = Duration::from_secs(1);
/// More could not all be tried within the time of a probe.
const MOST: usize = 8;

/// Endpoints in the order of preference.
#[derive(Debug)]
pub(super) struct Endpoints {
    endpoints: Vec<Endpoint>,
    in_use: AtomicUsize,
}

#[derive(Debug)]
struct Endpoint {
    shown: Arc<str>,
    connector: DirectConnector,
}

impl Endpoint {
    async fn connect(&self, protocol: Protocol, certificate: Option<&Arc<ClientCertificate>>) -> io::Result<Connected> {
        let connected = self.connector.connect(protocol, certificate).await;
        connected.map_err(|error| ConnectError::io(Failure::of_io(&error), format!("{}: {error}", self.shown)))
    }
}

impl Endpoints {
    /// The endpoints of `config`.
    ///
    /// # Errors
    /// A message that says what is wrong with which of them.
    pub(super) fn new(config: &ChildConfig) -> Result<Self, String> {
        let endpoints = config.endpoints();
        if endpoints.len() > MOST {
            return Err(format!(
                "a cluster may have {MOST} endpoints, and this one has {}",
                endpoints.len()
            ));
        }
        let path = config.server.path().trim_end_matches('/');
        let made = endpoints.iter().map(|endpoint| {
            let shown = redacted(&endpoint.server).as_str().trim_end_matches('/').to_owned();
            if endpoint.server.path().trim_end_matches('/') != path
                || endpoint.server.scheme() != config.server.scheme()
            {
                return Err(format!(
                    "the endpoint {shown} needs the scheme and the path of the first one: all are the same API server"
                ));
            }
            let connector = DirectConnector::of(endpoint, config.allow_plaintext);
            Ok(Endpoint {
                connector: connector.map_err(|message| format!("endpoint {shown}: {message}"))?,
                shown: shown.into(),
            })
        });
        Ok(Self {
            endpoints: made.collect::<Result<_, _>>()?,
            in_use: AtomicUsize::new(0),
        })
    }

    fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Connects to the endpoints of these indices; gives which one, and the stream.
    async fn connect_to(
        &self,
        order: &[usize],
        protocol: Protocol,
        certificate: Option<&Arc<ClientCertificate>>,
    ) -> io::Result<(usize, Connected)> {
        let mut attempts = Vec::with_capacity(order.len());
        for index in order {
            attempts.push(self.endpoints[*index].connect(protocol, certificate));
        }
        let (position, connected) = race(attempts, DELAY).await?;
        Ok((order[position], connected))
    }

    fn use_from_now_on(&self, index: usize, before: usize) {
        // Whoever has moved on meanwhile knows better.
        let moved = self
            .in_use
            .compare_exchange(before, index, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() && index != before {
            let (from, to) = (&self.endpoints[before].shown, &self.endpoints[index].shown);
            tracing::info!(%from, %to, "another endpoint is used");
        }
    }
}

#[async_trait]
impl Connector for Endpoints {
    async fn connect(&self, protocol: Protocol, certificate: Option<&Arc<ClientCertificate>>) -> io::Result<Connected> {
        let first = self.in_use();
        let others = (0..self.endpoints.len()).filter(|index| *index != first);
        let order: Vec<usize> = std::iter::once(first).chain(others).collect();
        // Each has its time from when it is tried; this is for all of them.
        let all = tokio::time::timeout(CONNECT_TIMEOUT * 2, self.connect_to(&order, protocol, certificate));
        let late = || ConnectError::io(Failure::Timeout, "none of the endpoints can be connected to");
        let (index, connected) = all.await.map_err(|_| late())??;
        self.use_from_now_on(index, first);
        Ok(connected)
    }

    fn way(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.endpoints[self.in_use()].shown))
    }

    fn ways(&self) -> usize {
        self.endpoints.len()
    }

    fn avoid(&self) -> bool {
        let before = self.in_use();
        self.use_from_now_on((before + 1) % self.endpoints.len(), before);
        true
    }

    async fn try_preferred(&self, certificate: Option<&Arc<ClientCertificate>>) -> Option<io::Result<Preferred>> {
        let preferred: Vec<usize> = (0..self.in_use()).collect();
        if preferred.is_empty() {
            return None;
        }
        let connected = self.connect_to(&preferred, Protocol::Http1, certificate).await;
        Some(connected.map(|(way, connected)| Preferred { way, connected }))
    }

    fn settle(&self, way: usize) {
        self.use_from_now_on(way, self.in_use());
    }
}
