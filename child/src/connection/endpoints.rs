//! Which of several endpoints a child is reached at.

use std::sync::Arc;

use http::{Request, header::AUTHORIZATION};

use super::Child;
use crate::{body::empty, pool::as_http1, transport::Preferred};

impl Child {
    /// The endpoint that connections lead to now, where the child has several.
    #[must_use]
    pub fn endpoint(&self) -> Option<Arc<str>> {
        self.0.shared.connector.way()
    }

    /// Forgets the connections of short requests; the next one dials.
    pub(crate) fn discard_connections(&self) {
        self.0.requests.discard();
    }

    /// Goes another way, where there is one: what is under way goes on where it is, and what comes next dials. Whether there is
    /// one.
    pub(crate) fn avoid_endpoint(&self) -> bool {
        let avoided = self.0.shared.connector.avoid();
        if avoided {
            self.discard_all();
        }
        avoided
    }

    fn discard_all(&self) {
        for (_, pool) in self.pools() {
            pool.discard();
        }
    }

    /// Asks `path` of an endpoint that is preferred to the one in use; the way there, where it serves the right cluster.
    /// `None` where there is none or it does not.
    pub(crate) async fn try_preferred(&self, path: &str) -> Option<usize> {
        let shared = &self.0.shared;
        let current = shared.credentials.current().await.ok()?;
        let preferred = shared.connector.try_preferred(current.certificate.as_ref()).await?;
        let Preferred { way, connected } = preferred.ok()?;
        let mut sender = shared.speak_http1(connected, &current).await.ok()?;
        let mut request = Request::get(path).body(empty()).ok()?;
        self.0.base.rebase(request.uri_mut()).ok()?;
        if let Some(header) = &current.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        let uri = request.uri().clone();
        as_http1(&mut request, &uri);
        let response = sender.send_request(request).await.ok()?;
        crate::manager::serves(response.status()).then_some(way)
    }

    /// Goes `way` from now on; as [`Child::avoid_endpoint`].
    pub(crate) fn settle_on(&self, way: usize) {
        self.0.shared.connector.settle(way);
        self.discard_all();
    }
}
