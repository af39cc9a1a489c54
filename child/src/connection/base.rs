//! Where the API of a child begins.

use http::{Uri, uri::PathAndQuery};

use crate::{
    config::{ChildConfig, redacted},
    error::ChildError,
};

/// Where the API of the child begins.
pub(super) struct Base {
    pub(super) scheme: http::uri::Scheme,
    pub(super) authority: http::uri::Authority,
    /// Without a trailing slash; empty for most.
    pub(super) path: String,
}

impl Base {
    /// That of the server of `config`.
    ///
    /// # Errors
    /// A message that says what is wrong with its URL.
    pub(super) fn new(config: &ChildConfig) -> Result<Self, String> {
        let server = &redacted(&config.server);
        let unusable = |error: http::uri::InvalidUri| format!("the server {server} cannot be used: {error}");
        let host = server
            .host_str()
            .ok_or_else(|| format!("the server {server} has no host"))?;
        let authority = match server.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            scheme: server.scheme().parse().map_err(unusable)?,
            authority: authority.parse().map_err(unusable)?,
            path: server.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Makes path and query absolute at this server.
    ///
    /// # Errors
    /// When both together are no URI.
    pub(super) fn rebase(&self, uri: &mut Uri) -> Result<(), ChildError> {
        let path = match uri.path_and_query() {
            Some(path) if self.path.is_empty() => path.clone(),
            Some(path) => PathAndQuery::try_from(format!("{}{path}", self.path)).map_err(http::Error::from)?,
            None => PathAndQuery::try_from(format!("{}/", self.path)).map_err(http::Error::from)?,
        };
        *uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()?;
        Ok(())
    }
}
