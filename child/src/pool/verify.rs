//! Asking a new connection which cluster it leads to, before anything else is sent on it.
//!
//! An address may come to lead to another cluster: a load balancer is pointed elsewhere, a machine is set up anew, an address
//! is given to somebody else. The hub's credential may work there all the same. So each connection is asked for the UID of the
//! namespace `kube-system` first (multicluster KEP-2149 takes the same as the identity of a cluster), and one that leads
//! elsewhere carries nothing: neither a user's request nor a watch that would be taken for an empty cluster. It costs one
//! round trip for each connection, and connections live long.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use hyper::client::conn::http1;
use serde::Deserialize;

use super::{DialFailure, Lease, Shared, as_http1, as_http2, http2};
use crate::{
    body::{Body, collect, empty},
    credentials::Current,
    failure::Failure,
};

/// How long the answer may take. A probe has as long for everything.
const DEADLINE: Duration = Duration::from_secs(5);
/// More than a namespace ever is: its annotations have at most 256 KiB.
const LIMIT: usize = 1 << 20;

/// Which cluster has to answer.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The UID of its namespace `kube-system`.
    pub(crate) uid: Arc<str>,
    /// Where that namespace is.
    pub(crate) namespace: Uri,
}

/// A connection that nothing has been sent on.
pub(super) enum New<'a> {
    Http2(http2::Sender),
    Http1(&'a mut http1::SendRequest<Body>),
}

#[derive(Deserialize)]
struct Namespace {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

impl Lease {
    /// The connection, before its first request.
    pub(super) fn as_new(&mut self) -> New<'_> {
        match self {
            Self::Http2 { sender, .. } => New::Http2(sender.clone()),
            Self::Http1 { sender, .. } => New::Http1(sender),
        }
    }
}

impl Shared {
    /// Sees to it that the connection leads to the cluster that is expected.
    ///
    /// # Errors
    /// When it leads to another one, or does not say.
    pub(super) async fn verify(&self, connection: New<'_>, current: &Current) -> Result<(), DialFailure> {
        let Some(expected) = &self.expected else {
            return Ok(());
        };
        let asked = tokio::time::timeout(DEADLINE, ask(connection, expected, current));
        let late = || DialFailure::new(Failure::Timeout, "it does not say which cluster it is within 5 s");
        let (status, body) = asked.await.map_err(|_| late())??;
        judge(expected, status, &body)
    }

    /// The same for a connection of HTTP/1.1 that is not of a pool.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn verify_http1(
        &self,
        sender: &mut http1::SendRequest<Body>,
        current: &Current,
    ) -> Result<(), DialFailure> {
        self.verify(New::Http1(sender), current).await
    }
}

async fn ask(connection: New<'_>, expected: &Expected, current: &Current) -> Result<(StatusCode, Bytes), DialFailure> {
    let broken = |error: &dyn std::fmt::Display| {
        let message = format!("the connection broke when it was asked which cluster it leads to: {error}");
        DialFailure::new(Failure::ConnectionLost, message)
    };
    let mut request = Request::new(empty());
    *request.uri_mut() = expected.namespace.clone();
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
    if let Some(authorization) = &current.header {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    match connection {
        New::Http2(mut sender) => {
            as_http2(&mut request, &expected.namespace);
            let response = sender
                .send(request, None)
                .await
                .map_err(|failed| broken(&failed.error))?;
            read(response).await.map_err(|error| broken(&error))
        }
        New::Http1(sender) => {
            as_http1(&mut request, &expected.namespace);
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let answer = read(response).await.map_err(|error| broken(&error))?;
            sender.ready().await.map_err(|error| broken(&error))?;
            Ok(answer)
        }
    }
}

async fn read<B>(response: Response<B>) -> Result<(StatusCode, Bytes), B::Error>
where
    B: http_body::Body<Data = Bytes>,
{
    let (head, body) = response.into_parts();
    Ok((head.status, collect(body, LIMIT).await?.unwrap_or_default()))
}

fn judge(expected: &Expected, status: StatusCode, body: &[u8]) -> Result<(), DialFailure> {
    if status == StatusCode::UNAUTHORIZED {
        return Err(DialFailure::CredentialsRefused);
    }
    if !status.is_success() {
        let failure = match status {
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Failure::IdentityUnknown,
            _ => Failure::NotServing,
        };
        let message =
            format!("asked for its namespace kube-system, whose UID says which cluster it is, it answers {status}");
        return Err(DialFailure::new(failure, message));
    }
    match serde_json::from_slice::<Namespace>(body) {
        Ok(found) if *found.metadata.uid == *expected.uid => Ok(()),
        Ok(found) => Err(DialFailure::WrongCluster {
            expected: Arc::clone(&expected.uid),
            found: found.metadata.uid.into(),
        }),
        Err(error) => Err(DialFailure::new(
            Failure::IdentityUnknown,
            format!("its namespace kube-system cannot be read: {error}"),
        )),
    }
}
