//! Requests to a child: deadlines, turns, the circuit, and credentials that are refused.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body::Body as _;

use super::{Child, Lane};
use crate::{
    body::{Body, empty},
    credentials::Current,
    error::ChildError,
    manager::Health,
};

/// What kube-apiserver gives requests that are not long-running (`--request-timeout`).
pub(super) const HEADER_DEADLINE: Duration = Duration::from_secs(60);
/// How long a stream without a deadline waits for its turn.
const TURN: Duration = Duration::from_secs(10);

/// A request extension: how long the response headers may take, instead of 60 s. Bodies have no deadline.
#[derive(Debug, Clone, Copy)]
pub struct RequestDeadline(pub Duration);

/// A request extension: one of the probes, which wait behind nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe;

/// A request extension: who streams, and takes a place of a share.
#[derive(Debug, Clone)]
pub(crate) struct Requester(pub(crate) Arc<str>);

impl Requester {
    /// Who sent `request`, where that counts.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Arc<str>> {
        request.extensions().get::<Self>().map(|Self(user)| Arc::clone(user))
    }
}

/// Which places a request takes one of.
#[derive(Clone, Copy)]
enum Turn {
    /// Those of its lane, for which it waits no longer than this.
    Within(Duration),
    /// That of the probes: how many requests users send says nothing about whether the child answers.
    Probe,
}

impl Child {
    /// Makes the hub's credentials where they are still to be made. An exec plugin has 60 s, however short the deadlines of the
    /// requests that use what it prints.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub async fn prepare(&self) -> Result<(), ChildError> {
        self.current_credentials().await.map(drop)
    }

    /// Sends a short request as the hub itself, with the hub's credentials. Only path and query of the URI count.
    ///
    /// # Errors
    ///
    /// When there is no response: never because of its status. Fails at once while the child is unreachable.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ChildError> {
        self.send_on(Lane::Requests, request).await
    }

    /// Sends a watch of the hub itself. Read its body without pause: what reads slowly must drop it.
    ///
    /// # Errors
    ///
    /// As [`Child::send`], but tries also while the child is unreachable.
    pub async fn send_watch(&self, request: Request<Body>) -> Result<Response<Body>, ChildError> {
        self.send_on(Lane::Watches, request).await
    }

    /// Sends a request on the connections of `lane`.
    ///
    /// After a 401, credentials that can be renewed are, and a request without a body is sent once more; so is one that the child has
    /// not processed, because it was going away.
    ///
    /// # Errors
    ///
    /// As [`Child::send`].
    pub async fn send_on(&self, lane: Lane, request: Request<Body>) -> Result<Response<Body>, ChildError> {
        if lane != Lane::Watches {
            self.check_circuit()?;
        }
        self.send_regardless(lane, request).await
    }

    /// Fails while the probes say that the child does not answer.
    pub(super) fn check_circuit(&self) -> Result<(), ChildError> {
        match &*self.0.health.borrow() {
            Health::Unreachable { since, reason, .. } => Err(ChildError::Unreachable {
                cluster: Arc::clone(self.name()),
                since: *since,
                reason: Arc::clone(reason),
            }),
            Health::Unknown | Health::Reachable => Ok(()),
        }
    }

    /// The same, whatever the probes say.
    pub(crate) async fn send_regardless(
        &self,
        lane: Lane,
        request: Request<Body>,
    ) -> Result<Response<Body>, ChildError> {
        if self.0.shared.cancel.is_cancelled() {
            return Err(ChildError::Closed {
                cluster: Arc::clone(self.name()),
            });
        }
        let deadline = match (request.extensions().get::<RequestDeadline>(), lane) {
            (Some(RequestDeadline(deadline)), _) => Some(*deadline),
            (None, Lane::Streams) => None,
            (None, Lane::Requests | Lane::Watches) => Some(HEADER_DEADLINE),
        };
        let turn = match request.extensions().get::<Probe>() {
            Some(Probe) => Turn::Probe,
            None => Turn::Within(deadline.unwrap_or(TURN)),
        };
        let exchange = self.exchange(lane, request, turn);
        match deadline {
            None => exchange.await,
            Some(after) => tokio::time::timeout(after, exchange).await.unwrap_or_else(|_| {
                Err(ChildError::Timeout {
                    cluster: Arc::clone(self.name()),
                    after,
                })
            }),
        }
    }

    async fn exchange(&self, lane: Lane, mut request: Request<Body>, turn: Turn) -> Result<Response<Body>, ChildError> {
        self.0.base.rebase(request.uri_mut())?;
        let mut again = request.body().is_end_stream().then(|| {
            let mut again = Request::new(());
            again.method_mut().clone_from(request.method());
            again.uri_mut().clone_from(request.uri());
            again.headers_mut().clone_from(request.headers());
            if let Some(user) = Requester::of(&request) {
                again.extensions_mut().insert(Requester(user));
            }
            again.map(|()| empty())
        });
        let answer = match self.once(lane, request, turn).await {
            Err(error) if error.is_unprocessed() => match again.take() {
                Some(again) => self.once(lane, again, turn).await,
                None => Err(error),
            },
            answer => answer,
        };
        let (response, used) = answer?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.credentials().refused(&used) {
            return Ok(response);
        }
        match again {
            Some(again) => {
                drop(response);
                Ok(self.once(lane, again, turn).await?.0)
            }
            None => Ok(response),
        }
    }

    async fn once(
        &self,
        lane: Lane,
        mut request: Request<Body>,
        turn: Turn,
    ) -> Result<(Response<Body>, Current), ChildError> {
        let mut current = self.authenticate(&mut request).await?;
        let pool = match lane {
            Lane::Requests => &self.0.requests,
            Lane::Watches => &self.0.watches,
            Lane::Streams => &self.0.streams,
        };
        let place = match turn {
            Turn::Within(patience) => pool.place(patience, Requester::of(&request).as_ref()).await?,
            Turn::Probe => self.0.probes.try_take(None).map_err(|full| self.0.shared.busy(full))?,
        };
        let lease = match pool.lease(&current).await {
            // A new connection is the first to see that the credentials do not count any more.
            Err(ChildError::CredentialsRefused { .. }) if self.credentials().refused(&current) => {
                current = self.authenticate(&mut request).await?;
                pool.lease(&current).await?
            }
            lease => lease?,
        };
        let response = pool.send(lease, request, &current, place).await?;
        Ok((response, current))
    }

    /// Puts the hub's own credentials into the request, instead of whatever is there.
    pub(super) async fn authenticate(&self, request: &mut Request<Body>) -> Result<Current, ChildError> {
        let current = self.current_credentials().await?;
        match &current.header {
            Some(header) => request.headers_mut().insert(AUTHORIZATION, header.clone()),
            None => request.headers_mut().remove(AUTHORIZATION),
        };
        Ok(current)
    }

    async fn current_credentials(&self) -> Result<Current, ChildError> {
        let current = self.credentials().current().await;
        current.map_err(|source| ChildError::Credentials {
            cluster: Arc::clone(self.name()),
            source,
        })
    }
}
