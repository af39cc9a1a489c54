//! A child as a [`Source`].

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http::header::ACCEPT;
use umbra_apimachinery::status::{Reason, Status};
use umbra_child::{Child, ChildError, empty};

use crate::copy::source::{Lines, Source, SourceError};

/// Reads from a child with the hub's own credential.
#[derive(Debug, Clone)]
pub struct ChildSource(pub Child);

#[async_trait]
impl Source for ChildSource {
    async fn get(&self, path: &str, accept: &str) -> Result<Bytes, SourceError> {
        let request = Request::get(path)
            .header(ACCEPT, accept)
            .body(empty())
            .map_err(ChildError::from)?;
        Ok(self.0.request_bytes(request).await?)
    }

    async fn watch(&self, path: &str, accept: &str) -> Result<Lines, SourceError> {
        let lines = self.0.watch_lines_as(path, accept).await?;
        Ok(lines.map(|line| line.map_err(SourceError::from)).boxed())
    }
}

impl From<ChildError> for SourceError {
    fn from(error: ChildError) -> Self {
        match &error {
            ChildError::Status {
                code, message, body, ..
            } => {
                let status = serde_json::from_slice::<Status>(body).unwrap_or_else(|_| Status {
                    code: code.as_u16(),
                    ..Status::failure(Reason::InternalError, message.clone())
                });
                Self::Status(Box::new(status))
            }
            _ => Self::Unreachable(error.to_string()),
        }
    }
}
