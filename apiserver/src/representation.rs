//! Objects and lists as the client wants them: as they are, as Table, or their metadata alone.
//!
//! A list is a [`ChunkedList`]: a body that writes itself from the objects' bytes, a chunk whenever the connection takes
//! one, each object copied once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, HeaderValue, VARY};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::table::{ColumnDefinition, ListMetadata};
use umbra_registry::resource::{Body, Object, ObjectList, Resource};

use crate::compression::{self, gzip};
use crate::negotiation::{MetaVersion, Negotiated, Transform};
use crate::pretty;
use crate::query::IncludeObject;
use crate::respond::{JSON, full, with_type};

/// How large a chunk of a list gets, in bytes: four of the largest TLS records of 64 KiB that a socket takes at once, and
/// large enough that the cost of a frame vanishes.
const CHUNK: usize = 256 * 1024;

/// How objects of one resource are written for one request.
#[derive(Clone)]
pub(crate) struct Representation {
    /// What was agreed upon.
    pub(crate) negotiated: Negotiated,
    /// How much of each object a Table carries.
    pub(crate) include: IncludeObject,
    /// The resource that prints rows.
    pub(crate) resource: Arc<dyn Resource>,
}

impl Representation {
    /// One object.
    ///
    /// # Errors
    /// 406 where a list of metadata was asked for, 500 where the object has no metadata.
    pub(crate) fn object(&self, code: StatusCode, object: &Object) -> Result<Response<Body>, Status> {
        let text = match self.negotiated.transform {
            Transform::None => object.json.clone(),
            Transform::Metadata(version) => {
                let mut out = BytesMut::new();
                write_metadata(&mut out, version, object)?;
                out.freeze()
            }
            Transform::MetadataList(_) => return Err(wrong_shape("PartialObjectMetadataList", "not a list")),
            Transform::Table(version) => {
                let mut table = TableWriter::new(self, version, std::slice::from_ref(object));
                let metadata = ListMetadata {
                    resource_version: resource_version(object),
                    ..ListMetadata::default()
                };
                let mut out = BytesMut::new();
                table.open(&mut out, &metadata);
                table.row(&mut out, object)?;
                out.put_slice(b"]}");
                out.freeze()
            }
        };
        Ok(self.finish(code, text))
    }

    /// A list of objects of that kind.
    ///
    /// # Errors
    /// 406 where metadata of one object was asked for, 500 where an object has no metadata.
    pub(crate) fn list(&self, kind: &GroupVersionKind, list: ObjectList) -> Result<Response<Body>, Status> {
        let mut head = BytesMut::new();
        let encoding = match self.negotiated.transform {
            Transform::None => {
                open_list(
                    &mut head,
                    &kind.api_version(),
                    &format!("{}List", kind.kind),
                    &list.metadata,
                );
                Encoding::Whole
            }
            Transform::MetadataList(version) => {
                open_list(
                    &mut head,
                    version.api_version(),
                    "PartialObjectMetadataList",
                    &list.metadata,
                );
                Encoding::Metadata(version)
            }
            Transform::Metadata(_) => return Err(wrong_shape("PartialObjectMetadata", "a list")),
            Transform::Table(version) => {
                let mut table = TableWriter::new(self, version, &list.items);
                table.open(&mut head, &list.metadata);
                Encoding::Table(table)
            }
        };
        let mut body = ChunkedList {
            items: list.items.into_iter(),
            encoding,
            first: true,
            finished: false,
        };
        body.fill(&mut head)?;
        let head = head.freeze();
        if body.finished {
            return Ok(self.finish(StatusCode::OK, head));
        }
        let rest = Chained {
            head: Some(head),
            rest: body,
        };
        let rest = rest.boxed_unsync();
        Ok(self.finish_large(StatusCode::OK, rest))
    }

    fn finish(&self, code: StatusCode, text: Bytes) -> Response<Body> {
        let text = if self.negotiated.pretty && text.len() <= pretty::LIMIT {
            Bytes::from(pretty::indent(&text))
        } else {
            text
        };
        if text.len() > compression::THRESHOLD {
            self.finish_large(code, full(text))
        } else {
            with_type(code, JSON, full(text))
        }
    }

    fn finish_large(&self, code: StatusCode, body: Body) -> Response<Body> {
        if !self.negotiated.gzip {
            return with_type(code, JSON, body);
        }
        let mut response = with_type(code, JSON, gzip(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
        response
    }
}

fn wrong_shape(wanted: &str, got: &str) -> Status {
    Status::failure(
        Reason::NotAcceptable,
        format!("you requested {wanted}, but the requested object is {got}"),
    )
}

fn open_list(out: &mut BytesMut, api_version: &str, kind: &str, metadata: &ListMetadata) {
    out.put_slice(b"{\"kind\":");
    write_json(out, kind);
    out.put_slice(b",\"apiVersion\":");
    write_json(out, api_version);
    out.put_slice(b",\"metadata\":");
    write_json(out, metadata);
    out.put_slice(b",\"items\":[");
}

/// Appends the JSON of something that has one.
pub(crate) fn write_json<T: serde::Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    serde_json::to_writer(out.writer(), value).expect("strings, numbers and lists of them always serialize");
}

/// Writes Tables: columns once, then rows.
#[derive(Clone)]
pub(crate) struct TableWriter {
    resource: Arc<dyn Resource>,
    include: IncludeObject,
    version: MetaVersion,
    columns: Vec<ColumnDefinition>,
    now: Timestamp,
    headings: bool,
}

impl TableWriter {
    /// A Table whose columns suit these objects.
    pub(crate) fn new(representation: &Representation, version: MetaVersion, objects: &[Object]) -> Self {
        Self {
            columns: representation.resource.columns(objects),
            resource: Arc::clone(&representation.resource),
            include: representation.include,
            version,
            now: Timestamp::now(),
            headings: true,
        }
    }

    /// Everything before the first row. The columns are written the first time only, as watches want it.
    pub(crate) fn open(&mut self, out: &mut BytesMut, metadata: &ListMetadata) {
        self.now = Timestamp::now();
        out.put_slice(b"{\"kind\":\"Table\",\"apiVersion\":");
        write_json(out, self.version.api_version());
        out.put_slice(b",\"metadata\":");
        write_json(out, metadata);
        out.put_slice(b",\"columnDefinitions\":");
        if std::mem::take(&mut self.headings) {
            write_json(out, &self.columns);
        } else {
            out.put_slice(b"null");
        }
        out.put_slice(b",\"rows\":[");
    }

    /// One row.
    ///
    /// # Errors
    /// 500 where the object has no metadata.
    pub(crate) fn row(&self, out: &mut BytesMut, object: &Object) -> Result<(), Status> {
        self.row_including(out, object, self.include)
    }

    /// One row with that much of the object.
    ///
    /// # Errors
    /// As for [`Self::row`].
    pub(crate) fn row_including(
        &self,
        out: &mut BytesMut,
        object: &Object,
        include: IncludeObject,
    ) -> Result<(), Status> {
        out.put_slice(b"{\"cells\":");
        write_json(out, &self.resource.cells(object, &self.columns, self.now));
        out.put_slice(b",\"object\":");
        match include {
            IncludeObject::None => out.put_slice(b"null"),
            IncludeObject::Object => out.put_slice(&object.json),
            IncludeObject::Metadata => write_metadata(out, self.version, object)?,
        }
        out.put_u8(b'}');
        Ok(())
    }
}

/// Writes an object as `PartialObjectMetadata`.
///
/// # Errors
/// 500 where the object has no metadata.
pub(crate) fn write_metadata(out: &mut BytesMut, version: MetaVersion, object: &Object) -> Result<(), Status> {
    let metadata = raw_metadata(&object.json)
        .ok_or_else(|| Status::internal("an object without metadata cannot be sent as PartialObjectMetadata"))?;
    out.put_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":");
    write_json(out, version.api_version());
    out.put_slice(b",\"metadata\":");
    out.put_slice(metadata.get().as_bytes());
    out.put_u8(b'}');
    Ok(())
}

/// The text of an object's metadata. Reading stops there: what follows, which is most of the object, is not looked at.
pub(crate) fn raw_metadata(json: &[u8]) -> Option<&RawValue> {
    struct Find<'found, 'de>(&'found mut Option<&'de RawValue>);

    impl<'de> Visitor<'de> for Find<'_, 'de> {
        type Value = ();

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                if key == "metadata" {
                    *self.0 = Some(map.next_value()?);
                    return Err(serde::de::Error::custom("found"));
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut found = None;
    // The error is how reading stops early; what counts is whether the metadata was found before it.
    let _ = serde_json::Deserializer::from_slice(json).deserialize_map(Find(&mut found));
    found
}

/// The revision that an object carries, or the empty string.
pub(crate) fn resource_version(object: &Object) -> String {
    #[derive(serde::Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata {
        resource_version: String,
    }
    raw_metadata(&object.json)
        .and_then(|raw| serde_json::from_str::<Metadata>(raw.get()).ok())
        .unwrap_or_default()
        .resource_version
}

enum Encoding {
    Whole,
    Metadata(MetaVersion),
    Table(TableWriter),
}

/// The items of a list, written when they are asked for.
struct ChunkedList {
    items: std::vec::IntoIter<Object>,
    encoding: Encoding,
    first: bool,
    finished: bool,
}

impl ChunkedList {
    /// Appends items until the chunk is full or the list is closed.
    fn fill(&mut self, out: &mut BytesMut) -> Result<(), Status> {
        while out.len() < CHUNK {
            let Some(item) = self.items.next() else {
                out.put_slice(b"]}");
                self.finished = true;
                return Ok(());
            };
            if !std::mem::take(&mut self.first) {
                out.put_u8(b',');
            }
            match &self.encoding {
                Encoding::Whole => out.put_slice(&item.json),
                Encoding::Metadata(version) => write_metadata(out, *version, &item)?,
                Encoding::Table(table) => table.row(out, &item)?,
            }
        }
        Ok(())
    }
}

/// What is written already, then the rest.
struct Chained {
    head: Option<Bytes>,
    rest: ChunkedList,
}

impl HttpBody for Chained {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if self.rest.finished {
            return Poll::Ready(None);
        }
        // An object may make the last chunk larger than the rest.
        let mut chunk = BytesMut::with_capacity(CHUNK + CHUNK / 8);
        Poll::Ready(Some(match self.rest.fill(&mut chunk) {
            Ok(()) => Ok(Frame::data(chunk.freeze())),
            Err(status) => {
                // The answer has begun: breaking off is the only way left to tell the client.
                self.rest.finished = true;
                Err(Box::new(status))
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_found_without_reading_on() {
        let text = br#"{"apiVersion":"v1","metadata":{"name":"a"},"spec": broken"#;
        assert_eq!(raw_metadata(text).unwrap().get(), r#"{"name":"a"}"#);
        assert!(raw_metadata(br#"{"kind":"Pod"}"#).is_none());
        assert!(raw_metadata(b"[]").is_none());
    }
}
