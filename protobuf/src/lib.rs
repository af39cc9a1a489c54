//! Kubernetes' protobuf to JSON, for the bodies of requests about built-in kinds.
//!
//! kubectl and every client made of client-go's typed clients send built-in kinds as `application/vnd.kubernetes.protobuf`,
//! and do not fall back to JSON when a server refuses it. [`to_json`] turns such a body into the JSON that the same client
//! would have sent otherwise, so that all else has to know JSON alone.
//!
//! | module | what it does |
//! |---|---|
//! | `wire` | reads fields off the protobuf encoding |
//! | `table` | what is known about kinds, messages and fields |
//! | `envelope` | reads what the object is wrapped in, and its kind |
//! | `object` | prints messages as `encoding/json` prints the structs of Go |
//! | `form` | prints the types that print themselves in Go: times, quantities, raw JSON … |
//!
//! The table is data: `src/fields.json.gz`, written by the program in `generate/`, which reflects over the Go types of
//! client-go's scheme (its `main.go` says how to run it). A new version of Kubernetes is a new table.
//!
//! Nothing is decoded into structs. The occurrences of a field are kept as slices of the body until the field is printed;
//! what protobuf calls merging (a message that occurs twice) is to read its slices one after the other.
//!
//! What is absent is printed as Go prints a zero value: `omitempty` drops what is not behind a pointer, a list without it
//! is `null`, a struct is there with its own zero values. What protobuf does not transmit is not there: empty lists are
//! absent ones, and parts that have `apiVersion` and `kind` lose them.
//!
//! Deliberate deviations from Kubernetes' decoder (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`):
//! - The body has to name apiVersion and kind; no default is taken from the path. client-go always names them.
//! - A `contentEncoding` is refused rather than ignored, and a `contentType` of JSON is believed.
//! - Strings have to be UTF-8, and times in the years 1 to 9999, for JSON has neither otherwise.
//! - Groups, which no message of Kubernetes has, are refused rather than skipped.
//! - Quantities are passed on as they were sent, canonical or not.

mod envelope;
mod error;
mod form;
mod object;
mod table;
mod wire;

#[cfg(test)]
mod tests;

pub use error::ProtobufError;
pub use wire::WireError;

/// The media type of what [`to_json`] reads.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// How deep messages may be nested. Those of Kubernetes stay below 20, but for schemas, which users nest as they like:
/// each level of those is two of JSON, of which the parsers behind this take 128.
pub const DEPTH_LIMIT: usize = 100;

/// How large the JSON may become, in bytes. A body of two bytes an element can ask for a hundred times its size in zero
/// values; four times the 3 MiB that a body may have is more than any real object takes.
pub const SIZE_LIMIT: usize = 12 * 1024 * 1024;

/// Turns a body of the media type [`MEDIA_TYPE`] into JSON.
///
/// # Errors
/// [`ProtobufError::UnknownKind`] where the kind is none of Kubernetes' own (custom resources have no protobuf form);
/// otherwise whatever is wrong with the body.
pub fn to_json(body: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let mut printer = object::Printer::new(table::table());
    printer.envelope(body)?;
    Ok(printer.into_json())
}
