//! Requests of the hub itself, without impersonation: what controllers need.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::{
    Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body::Body as _;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    body::{Body, collect, empty, full},
    connection::{Child, Lane},
    error::ChildError,
};

/// The longest response that is read into memory: a page of 500 objects of the largest size etcd takes.
const RESPONSE_LIMIT: usize = 768 << 20;
/// The longest line of a watch: an object is at most 1.5 MiB in etcd, and a bookmark or a table of one is not much more.
pub(crate) const LINE_LIMIT: usize = 64 << 20;
/// How much of an error's body is kept.
const ERROR_LIMIT: usize = 1 << 20;
const JSON: &str = "application/json";

/// The part of a `Status` object that says what happened.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Failure {
    reason: String,
    message: String,
}

impl Child {
    /// Reads JSON at `path` (with query).
    ///
    /// # Errors
    ///
    /// [`ChildError::Status`] for anything but 2xx; [`ChildError::Json`] when the response is something else.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ChildError> {
        let bytes = self
            .request_bytes(Request::get(path).header(ACCEPT, JSON).body(empty())?)
            .await?;
        serde_json::from_slice(&bytes).map_err(|source| ChildError::Json {
            cluster: Arc::clone(self.name()),
            source,
        })
    }

    /// Sends `body` of `content_type` and returns the JSON of the response as it came.
    ///
    /// # Errors
    ///
    /// [`ChildError::Status`] for anything but 2xx.
    pub async fn request_json(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<Bytes, ChildError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, content_type)
            .body(full(body))?;
        self.request_bytes(request).await
    }

    /// Sends a request and reads the whole response.
    ///
    /// # Errors
    ///
    /// [`ChildError::Status`] for anything but 2xx, [`ChildError::TooLong`] beyond 768 MiB.
    pub async fn request_bytes(&self, request: Request<Body>) -> Result<Bytes, ChildError> {
        let response = self.send(request).await?;
        let body = self.successful(response).await?;
        self.read(body, RESPONSE_LIMIT).await
    }

    /// Watches `path` (with query, including `watch=true`): one item per line. The stream ends with the response.
    ///
    /// # Errors
    ///
    /// [`ChildError::Status`] when the watch is refused. Items are errors when the response breaks off or a line is
    /// longer than 64 MiB; such an item is the last.
    pub async fn watch_lines(&self, path: &str) -> Result<Lines, ChildError> {
        self.watch_lines_as(path, JSON).await
    }

    /// The same with another `Accept`, such as that of tables.
    ///
    /// # Errors
    ///
    /// As [`Child::watch_lines`].
    pub async fn watch_lines_as(&self, path: &str, accept: &str) -> Result<Lines, ChildError> {
        let request = Request::get(path).header(ACCEPT, accept).body(empty())?;
        let response = self.send_on(Lane::Watches, request).await?;
        let body = self.successful(response).await?;
        Ok(Lines::new(Arc::clone(self.name()), body, LINE_LIMIT))
    }

    async fn read(&self, body: Body, limit: usize) -> Result<Bytes, ChildError> {
        let cluster = || Arc::clone(self.name());
        let read = collect(body, limit).await.map_err(|source| ChildError::Body {
            cluster: cluster(),
            source,
        })?;
        read.ok_or_else(|| ChildError::TooLong {
            cluster: cluster(),
            limit,
        })
    }

    /// The body of a response that is 2xx, and else its error.
    async fn successful(&self, response: Response<Body>) -> Result<Body, ChildError> {
        let code = response.status();
        if code.is_success() {
            return Ok(response.into_body());
        }
        if code == StatusCode::UNAUTHORIZED {
            return Err(ChildError::CredentialsRefused {
                cluster: Arc::clone(self.name()),
            });
        }
        let body = self.read(response.into_body(), ERROR_LIMIT).await.unwrap_or_default();
        let failure: Failure = serde_json::from_slice(&body).unwrap_or_else(|_| Failure {
            reason: String::new(),
            message: String::from_utf8_lossy(&body).trim().chars().take(500).collect(),
        });
        Err(ChildError::Status {
            cluster: Arc::clone(self.name()),
            code,
            reason: failure.reason,
            message: failure.message,
            body,
        })
    }
}

/// The lines of a streaming response, without their ends. A line that arrives in one piece is not copied.
#[derive(Debug)]
pub struct Lines {
    cluster: Arc<str>,
    body: Option<Body>,
    /// What has arrived and not been split yet.
    chunk: Bytes,
    /// The beginning of a line whose end has not arrived.
    begun: BytesMut,
    limit: usize,
}

impl Lines {
    pub(crate) fn new(cluster: Arc<str>, body: Body, limit: usize) -> Self {
        Self {
            cluster,
            body: Some(body),
            chunk: Bytes::new(),
            begun: BytesMut::new(),
            limit,
        }
    }

    /// The next line of what has arrived. Empty lines are none.
    fn split(&mut self) -> Result<Option<Bytes>, ChildError> {
        while !self.chunk.is_empty() {
            let end = memchr::memchr(b'\n', &self.chunk);
            if self.begun.len() + end.unwrap_or(self.chunk.len()) > self.limit {
                return Err(ChildError::TooLong {
                    cluster: Arc::clone(&self.cluster),
                    limit: self.limit,
                });
            }
            let Some(end) = end else {
                self.begun.extend_from_slice(&std::mem::take(&mut self.chunk));
                return Ok(None);
            };
            let mut line = self.chunk.split_to(end + 1);
            line.truncate(end);
            if !self.begun.is_empty() {
                self.begun.extend_from_slice(&line);
                line = self.begun.split().freeze();
            }
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// The last line, when it has no end.
    fn rest(&mut self) -> Option<Bytes> {
        let rest = self.begun.split().freeze();
        (!rest.is_empty()).then_some(rest)
    }
}

impl Stream for Lines {
    type Item = Result<Bytes, ChildError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.split() {
                Ok(Some(line)) => return Poll::Ready(Some(Ok(line))),
                Ok(None) => {}
                Err(error) => {
                    self.body = None;
                    self.chunk.clear();
                    self.begun.clear();
                    return Poll::Ready(Some(Err(error)));
                }
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(self.rest().map(Ok));
            };
            match std::task::ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.chunk = data;
                    }
                }
                Some(Err(source)) => {
                    // Half a line is nothing.
                    self.body = None;
                    self.begun.clear();
                    let cluster = Arc::clone(&self.cluster);
                    return Poll::Ready(Some(Err(ChildError::Body { cluster, source })));
                }
                None => self.body = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::body::{BodyError, boxed};

    async fn lines(chunks: &[&str], limit: usize) -> Vec<Result<String, String>> {
        let frames: Vec<Result<Frame<Bytes>, BodyError>> = chunks
            .iter()
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk.as_bytes()))))
            .collect();
        let body = boxed(StreamBody::new(futures::stream::iter(frames)));
        Lines::new("c".into(), body, limit)
            .map(|line| match line {
                Ok(line) => Ok(String::from_utf8_lossy(&line).into_owned()),
                Err(error) => Err(error.to_string()),
            })
            .collect()
            .await
    }

    #[tokio::test]
    async fn lines_are_split_wherever_chunks_end() {
        let wanted: Vec<Result<String, String>> = ["one", "two", "three"].map(|line| Ok(line.to_owned())).into();
        assert_eq!(lines(&["one\ntwo\nthree\n"], 10).await, wanted);
        assert_eq!(lines(&["o", "ne\n\nt", "wo\nthr", "ee"], 10).await, wanted);
        assert_eq!(lines(&["one\n", "", "two\n", "three", "\n"], 5).await, wanted);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_the_last() {
        let read = lines(&["one\nfour", "five\nsix\n"], 5).await;
        assert_eq!(read.len(), 2);
        assert!(
            read[1]
                .as_ref()
                .is_err_and(|error| error.contains("longer than 5 bytes"))
        );
    }
}
