//! gzip of answers, frame by frame.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use umbra_registry::resource::Body;

/// Smaller bodies are sent as they are (`defaultGzipThresholdBytes` in responsewriters/writers.go).
pub(crate) const THRESHOLD: usize = 128 * 1024;

/// Compresses a body at level 1, which costs a third of the default for little more text
/// (<https://github.com/kubernetes/kubernetes/issues/112296>).
pub(crate) fn gzip(body: Body) -> Body {
    Gzip {
        body,
        encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())),
    }
    .boxed_unsync()
}

struct Gzip {
    body: Body,
    /// `None` once the trailer is written.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl HttpBody for Gzip {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if self.encoder.is_none() {
                return Poll::Ready(None);
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            let written = match frame {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => self.compress(frame.into_data().ok())?,
                None => self.finish()?,
            };
            if !written.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(written)))));
            }
        }
    }
}

impl Gzip {
    fn compress(&mut self, data: Option<Bytes>) -> std::io::Result<Vec<u8>> {
        let (Some(encoder), Some(data)) = (&mut self.encoder, data) else {
            return Ok(Vec::new());
        };
        encoder.write_all(&data)?;
        Ok(std::mem::take(encoder.get_mut()))
    }

    fn finish(&mut self) -> std::io::Result<Vec<u8>> {
        self.encoder.take().map_or_else(|| Ok(Vec::new()), GzEncoder::finish)
    }
}
