//! What the lanes of one child share, and why a connection could not be made.

use std::{io, sync::Arc};

use hyper::client::conn::http1::SendRequest;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Expected, Full, http1};
use crate::{
    body::Body,
    credentials::{Credentials, Current},
    error::ChildError,
    failure::Failure,
    transport::{Connected, Connector, Protocol},
};

/// What all parts of one child share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) cluster: Arc<str>,
    pub(crate) server: Arc<str>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) credentials: Arc<Credentials>,
    /// Which cluster connections have to lead to, where that is known.
    pub(crate) expected: Option<Expected>,
    pub(crate) tracker: TaskTracker,
    pub(crate) cancel: CancellationToken,
}

/// Why there is no connection. All that waited for one share it.
#[derive(Debug, Clone)]
pub(crate) enum DialFailure {
    Connect { failure: Failure, reason: Arc<str> },
    CredentialsRefused,
    WrongCluster { expected: Arc<str>, found: Arc<str> },
}

impl DialFailure {
    pub(crate) fn new(failure: Failure, reason: impl Into<Arc<str>>) -> Self {
        Self::Connect {
            failure,
            reason: reason.into(),
        }
    }

    pub(super) fn of_io(error: &io::Error) -> Self {
        Self::new(Failure::of_io(error), error.to_string())
    }
}

impl Shared {
    /// The failure of a connection as the error of a request.
    pub(crate) fn connect_error(&self, failure: DialFailure) -> ChildError {
        let cluster = Arc::clone(&self.cluster);
        if self.cancel.is_cancelled() {
            return ChildError::Closed { cluster };
        }
        match failure {
            DialFailure::Connect { failure, reason } => ChildError::Connect {
                cluster,
                server: self.connector.way().unwrap_or_else(|| Arc::clone(&self.server)),
                reason,
                failure,
            },
            DialFailure::CredentialsRefused => ChildError::CredentialsRefused { cluster },
            DialFailure::WrongCluster { expected, found } => ChildError::WrongCluster {
                cluster,
                expected,
                found,
            },
        }
    }

    /// The error of a request that found no place.
    pub(crate) fn busy(&self, full: Full) -> ChildError {
        ChildError::Busy {
            cluster: Arc::clone(&self.cluster),
            limit: full.limit,
        }
    }

    /// An HTTP/1.1 connection of its own that leads to the right cluster, for an upgrade.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn connect_http1(&self, current: &Current) -> Result<SendRequest<Body>, DialFailure> {
        let mut ways = self.connector.ways();
        loop {
            match self.connect_http1_once(current).await {
                Err(failure) if self.goes_another_way(&failure, &mut ways) => {}
                connected => return connected,
            }
        }
    }

    /// Goes to another endpoint where one leads to another cluster and not all of `ways` have been tried. Whether it does.
    pub(super) fn goes_another_way(&self, failure: &DialFailure, ways: &mut usize) -> bool {
        *ways = ways.saturating_sub(1);
        matches!(failure, DialFailure::WrongCluster { .. }) && *ways > 0 && self.connector.avoid()
    }

    async fn connect_http1_once(&self, current: &Current) -> Result<SendRequest<Body>, DialFailure> {
        let connected = self.connector.connect(Protocol::Http1, current.certificate.as_ref());
        let connected = connected.await.map_err(|error| DialFailure::of_io(&error))?;
        self.speak_http1(connected, current).await
    }

    /// The same on a stream that is open.
    ///
    /// # Errors
    /// When it leads elsewhere, or is broken.
    pub(crate) async fn speak_http1(
        &self,
        connected: Connected,
        current: &Current,
    ) -> Result<SendRequest<Body>, DialFailure> {
        let mut sender = http1::connect(self, connected)
            .await
            .map_err(|error| DialFailure::new(Failure::ConnectionLost, error.to_string()))?;
        self.verify_http1(&mut sender, current).await?;
        Ok(sender)
    }
}
