//! Requests that ask for an upgrade.

use std::sync::Arc;

use http::{Request, Response, StatusCode};

use super::{Child, Requester, send::HEADER_DEADLINE};
use crate::{
    body::{Body, boxed},
    error::ChildError,
    pool::{DialFailure, Place, as_http1},
};

/// Counts an upgraded connection for as long as it is spliced; an extension of the response of [`Child::upgrade`].
#[derive(Clone)]
pub(crate) struct UpgradeSlot(#[expect(dead_code, reason = "held, never read")] Arc<Place>);

impl Child {
    /// Sends a request that asks for an upgrade, on an HTTP/1.1 connection of its own. When the response is 101, its
    /// upgrade is to be taken with `hyper::upgrade::on`. `Connection` and `Upgrade` must be set.
    ///
    /// # Errors
    ///
    /// When there is no response within 60 s, or as many upgraded connections are open as there may be ([`Limits`]). Fails at
    /// once while the child is unreachable.
    pub async fn upgrade(&self, mut request: Request<Body>) -> Result<Response<Body>, ChildError> {
        self.check_circuit()?;
        let cluster = || Arc::clone(self.name());
        let slot = self.0.upgrades.try_take(Requester::of(&request).as_ref());
        let slot = slot.map_err(|full| self.0.shared.busy(full))?;
        self.0.base.rebase(request.uri_mut())?;
        let exchange = async {
            let mut current = self.authenticate(&mut request).await?;
            let shared = &self.0.shared;
            let mut connected = shared.connect_http1(&current).await;
            if matches!(connected, Err(DialFailure::CredentialsRefused)) && self.credentials().refused(&current) {
                current = self.authenticate(&mut request).await?;
                connected = shared.connect_http1(&current).await;
            }
            let mut sender = connected.map_err(|failure| shared.connect_error(failure))?;
            let uri = request.uri().clone();
            as_http1(&mut request, &uri);
            let response = sender.send_request(request).await.map_err(|source| ChildError::Http {
                cluster: cluster(),
                source: source.into(),
            })?;
            if response.status() == StatusCode::UNAUTHORIZED {
                self.credentials().refused(&current);
            }
            Ok::<_, ChildError>(response)
        };
        let response = tokio::time::timeout(HEADER_DEADLINE, exchange)
            .await
            .map_err(|_| ChildError::Timeout {
                cluster: cluster(),
                after: HEADER_DEADLINE,
            })??;
        let mut response = response.map(boxed);
        response.extensions_mut().insert(UpgradeSlot(Arc::new(slot)));
        Ok(response)
    }
}
