//! What can be wrong with a body.

use crate::wire::WireError;
use crate::{DEPTH_LIMIT, SIZE_LIMIT};

/// Why a body could not be turned into JSON.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtobufError {
    /// The four bytes in front of every body are missing.
    #[error("the body does not begin with the four bytes 6b 38 73 00 of Kubernetes' protobuf encoding")]
    NoPrefix,
    /// Without both, nobody knows what the rest means.
    #[error("the body names no apiVersion and kind")]
    NoKind,
    /// None of the kinds that are compiled into Kubernetes.
    #[error(
        "no kind {kind} of {api_version} is known in protobuf: only kinds of Kubernetes itself have a protobuf form, \
         custom resources are sent as application/json"
    )]
    UnknownKind {
        /// As in the body.
        api_version: String,
        /// As in the body.
        kind: String,
    },
    /// The inner object is compressed, or of a media type that is neither JSON nor protobuf.
    #[error(
        "the object inside of the body has contentType {content_type:?} and contentEncoding {content_encoding:?}; \
         only plain protobuf and JSON can be read"
    )]
    Content {
        /// Of the inner object.
        content_type: String,
        /// Of the inner object.
        content_encoding: String,
    },
    /// The body breaks off, or is no protobuf at all.
    #[error("{message}: {source}")]
    Wire {
        /// The message of Kubernetes that was being read.
        message: &'static str,
        /// What is wrong.
        #[source]
        source: WireError,
    },
    /// A field was sent as something else than what it is.
    #[error("{message}.{field}: the field was sent with another wire type than it has")]
    WireType {
        /// The message of Kubernetes that was being read.
        message: &'static str,
        /// The field's name in JSON.
        field: &'static str,
    },
    /// A string that JSON cannot express.
    #[error("{message}.{field}: the string is not UTF-8")]
    NotUtf8 {
        /// The message of Kubernetes that was being read.
        message: &'static str,
        /// The field's name in JSON.
        field: &'static str,
    },
    /// Raw JSON inside of the object is none.
    #[error("{message}: the JSON inside cannot be read: {source}")]
    NotJson {
        /// The message of Kubernetes that was being read.
        message: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A number that JSON, or the type, does not have: infinity, a time after the year 9999.
    #[error("{message}: {value} cannot be expressed")]
    OutOfRange {
        /// The message of Kubernetes that was being read.
        message: &'static str,
        /// What was sent.
        value: String,
    },
    /// More than [`DEPTH_LIMIT`] levels.
    #[error("the object is nested deeper than {DEPTH_LIMIT} levels")]
    TooDeep,
    /// More than [`SIZE_LIMIT`] bytes of JSON.
    #[error("the object takes more than {SIZE_LIMIT} bytes as JSON")]
    TooLarge,
}
