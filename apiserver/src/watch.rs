//! Watches: events as lines of JSON, one frame for what is ready.
//!
//! The body is pulled: it asks its source for the next event when the connection takes more. A client that does not read
//! therefore fills the source's own bounded buffer and then loses the watch there; [`crate::watchdog`] ends what is left.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::table::ListMetadata;
use umbra_registry::resource::{Body, Event, EventStream, Object};

use crate::negotiation::Transform;
use crate::query::IncludeObject;
use crate::representation::{Representation, TableWriter, resource_version, write_json, write_metadata};
use crate::watchdog::Guarded;

/// How much is put into one frame while events are ready, in bytes: more adds latency to the first of them, less adds
/// frames.
const FRAME: usize = 64 * 1024;

/// Writes events in the representation that the client wants.
pub(crate) struct EventEncoder {
    representation: Representation,
    kind: GroupVersionKind,
    table: Option<TableWriter>,
}

impl EventEncoder {
    /// For objects of that kind.
    pub(crate) fn new(representation: Representation, kind: GroupVersionKind) -> Self {
        Self {
            representation,
            kind,
            table: None,
        }
    }

    /// Appends the line of an event. A failure becomes an `ERROR` event, after which the watch has to end: `false`.
    fn write(&mut self, out: &mut BytesMut, event: &Event) -> bool {
        let start = out.len();
        let written = match event {
            Event::Added(object) => self.object(out, "ADDED", object, false),
            Event::Modified(object) => self.object(out, "MODIFIED", object, false),
            Event::Deleted(object) => self.object(out, "DELETED", object, false),
            Event::Bookmark {
                revision,
                initial_events_end,
            } => {
                let object = self.bookmark(*revision, *initial_events_end);
                self.object(out, "BOOKMARK", &object, *initial_events_end)
            }
            Event::Error(status) => Err((**status).clone()),
        };
        let Err(status) = written else { return true };
        out.truncate(start);
        out.put_slice(b"{\"type\":\"ERROR\",\"object\":");
        write_json(out, &status);
        out.put_slice(b"}\n");
        false
    }

    fn object(&mut self, out: &mut BytesMut, kind: &str, object: &Object, keep_metadata: bool) -> Result<(), Status> {
        out.reserve(object.json.len() + 64);
        out.put_slice(b"{\"type\":\"");
        out.put_slice(kind.as_bytes());
        out.put_slice(b"\",\"object\":");
        match self.representation.negotiated.transform {
            Transform::None => out.put_slice(&object.json),
            Transform::Metadata(version) | Transform::MetadataList(version) => write_metadata(out, version, object)?,
            Transform::Table(version) => {
                let representation = &self.representation;
                let one = std::slice::from_ref(object);
                let table = self
                    .table
                    .get_or_insert_with(|| TableWriter::new(representation, version, one));
                let metadata = ListMetadata {
                    resource_version: resource_version(object),
                    ..ListMetadata::default()
                };
                table.open(out, &metadata);
                // The end of the initial events is told by an annotation, so it travels even with includeObject=None.
                let include = match representation.include {
                    IncludeObject::None if keep_metadata => IncludeObject::Metadata,
                    include => include,
                };
                table.row_including(out, object, include)?;
                out.put_slice(b"]}");
            }
        }
        out.put_slice(b"}\n");
        Ok(())
    }

    /// An object of the right kind that has nothing but a revision.
    fn bookmark(&self, revision: u64, initial_events_end: bool) -> Object {
        let annotations = if initial_events_end {
            r#","annotations":{"k8s.io/initial-events-end":"true"}"#
        } else {
            ""
        };
        let mut out = BytesMut::new();
        out.put_slice(b"{\"kind\":");
        write_json(&mut out, &self.kind.kind);
        out.put_slice(b",\"apiVersion\":");
        write_json(&mut out, &self.kind.api_version());
        let metadata =
            format!(",\"metadata\":{{\"resourceVersion\":\"{revision}\",\"creationTimestamp\":null{annotations}}}}}");
        out.put_slice(metadata.as_bytes());
        Object::new(out.freeze())
    }
}

/// The body of a watch: ends cleanly when the source does, after `timeout`, and when the server shuts down.
pub(crate) fn body(
    encoder: EventEncoder,
    source: Arc<Guarded<EventStream>>,
    timeout: Duration,
    shutdown: WaitForCancellationFutureOwned,
) -> Body {
    WatchBody {
        encoder,
        source,
        timeout: Box::pin(tokio::time::sleep_until(Instant::now() + timeout)),
        shutdown: Box::pin(shutdown),
        ended: false,
    }
    .boxed_unsync()
}

struct WatchBody {
    encoder: EventEncoder,
    source: Arc<Guarded<EventStream>>,
    timeout: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl HttpBody for WatchBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        this.source.is_read();
        if this.ended {
            return Poll::Ready(None);
        }
        let mut out = BytesMut::new();
        this.gather(context, &mut out);
        if !out.is_empty() {
            this.source.waits_for_reader();
            return Poll::Ready(Some(Ok(Frame::data(out.freeze()))));
        }
        let over = this.ended
            || this.shutdown.as_mut().poll(context).is_ready()
            || this.timeout.as_mut().poll(context).is_ready();
        if over {
            this.ended = true;
            this.source.close();
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl WatchBody {
    /// Appends the events that are ready, as many as fit a frame.
    fn gather(&mut self, context: &mut Context<'_>, out: &mut BytesMut) {
        let mut source = self.source.source();
        let Some(events) = source.as_mut() else {
            self.ended = true;
            return;
        };
        while out.len() < FRAME {
            match events.as_mut().poll_next(context) {
                Poll::Ready(Some(event)) => {
                    if !self.encoder.write(out, &event) {
                        self.ended = true;
                        break;
                    }
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    break;
                }
                Poll::Pending => return,
            }
        }
        if self.ended {
            *source = None;
        }
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        self.source.close();
    }
}
