//! JSON Patch (RFC 6902), as kube-apiserver understands it.
//!
//! The `json-patch` crate executes the operations. This module stands before it for what Go's
//! `gopkg.in/evanphx/json-patch.v4` and kube-apiserver do differently: negative indices count from the end, `test`
//! with `null` holds where a field is absent, a missing `value` is `null`, at most 10,000 operations and 3 MiB of copies,
//! and errors that name the operation.
//!
//! Deviations from the Go implementation, all towards the RFC: `add` and `copy` may have the empty path; a pointer that
//! does not start with `/` or has an undefined escape is invalid (Go skips up to the first `/`, and keeps the escape);
//! `test` compares values, not their text, so `"\u0041"` equals `"A"`.

use std::io;

use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation,
    jsonptr::{Pointer, PointerBuf},
};
use serde::Deserialize;
use serde_json::Value;

use super::place::{Access, locate};
use super::{OperationFailure, PatchError};

/// What happens where an operation's path (or `from`) does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingPath {
    /// The patch fails, as the RFC says.
    #[default]
    Fails,
    /// As kube-apiserver: `replace` of an absent field adds it, `copy` of an absent field copies `null`; else it fails.
    LikeKubernetes,
    /// The operation is left out; a `test` takes the whole patch with it, since it guards the other operations.
    Skips,
}

/// What patches may cost; spent by every [`JsonPatch::apply`] it is given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchBudget {
    operations: usize,
    copied_bytes: usize,
}

impl PatchBudget {
    /// The most operations, `maxJSONPatchOperations` of `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.
    pub const OPERATIONS: usize = 10_000;
    /// The most bytes that `copy` may add to a document: `JSONPatchMaxCopyBytes` of `k8s.io/apiserver/pkg/server`,
    /// which is the limit of a request's body too.
    pub const COPIED_BYTES: usize = 3 * 1024 * 1024;

    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new() -> Self {
        Self {
            operations: 0,
            copied_bytes: 0,
        }
    }

    /// Spends `count` operations; merge patches that share the budget count as one each.
    ///
    /// # Errors
    /// [`PatchError::TooManyOperations`].
    pub fn spend_operations(&mut self, count: usize) -> Result<(), PatchError> {
        self.operations = self.operations.saturating_add(count);
        if self.operations > Self::OPERATIONS {
            return Err(PatchError::TooManyOperations {
                limit: Self::OPERATIONS,
                got: self.operations,
            });
        }
        Ok(())
    }

    /// Spends the size of a value that is about to be copied; false where that is too much.
    fn spend_copy(&mut self, value: &Value) -> bool {
        let mut size = ByteCount(0);
        // Counting does not fail, and a Value has string keys alone.
        let _ = serde_json::to_writer(&mut size, value);
        self.copied_bytes = self.copied_bytes.saturating_add(size.0);
        self.copied_bytes <= Self::COPIED_BYTES
    }
}

impl Default for PatchBudget {
    fn default() -> Self {
        Self::new()
    }
}

/// Measures what would be written.
struct ByteCount(usize);

impl io::Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A decoded JSON patch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonPatch {
    operations: Vec<PatchOperation>,
}

/// An operation as it is written.
#[derive(Deserialize)]
struct WrittenOperation {
    op: String,
    path: String,
    from: Option<String>,
    #[serde(default)]
    value: Value,
}

impl JsonPatch {
    /// Decodes a request's body.
    ///
    /// # Errors
    /// [`PatchError::Invalid`] for what is no JSON list, and as [`Self::from_value`].
    pub fn parse(body: &[u8]) -> Result<Self, PatchError> {
        let value = serde_json::from_slice(body).map_err(|error| PatchError::invalid(error.to_string()))?;
        Self::from_value(value)
    }

    /// Decodes a parsed document.
    ///
    /// # Errors
    /// [`PatchError::Invalid`] where it is no list, [`PatchError::InvalidOperation`], [`PatchError::TooManyOperations`].
    pub fn from_value(value: Value) -> Result<Self, PatchError> {
        let Value::Array(written) = value else {
            return Err(PatchError::invalid("a JSON patch is a list of operations"));
        };
        if written.len() > PatchBudget::OPERATIONS {
            return Err(PatchError::TooManyOperations {
                limit: PatchBudget::OPERATIONS,
                got: written.len(),
            });
        }
        let decode =
            |(index, operation)| decode(operation).map_err(|reason| PatchError::InvalidOperation { index, reason });
        let operations = written.into_iter().enumerate().map(decode).collect::<Result<_, _>>()?;
        Ok(Self { operations })
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The same patch with other values in `add`, `replace` and `test`.
    ///
    /// # Errors
    /// The first of `map`.
    pub fn try_map_values<E>(&self, mut map: impl FnMut(&Value) -> Result<Value, E>) -> Result<Self, E> {
        let mut operations = self.operations.clone();
        for operation in &mut operations {
            match operation {
                PatchOperation::Add(AddOperation { value, .. })
                | PatchOperation::Replace(ReplaceOperation { value, .. })
                | PatchOperation::Test(TestOperation { value, .. }) => *value = map(value)?,
                PatchOperation::Remove(_) | PatchOperation::Move(_) | PatchOperation::Copy(_) => {}
            }
        }
        Ok(Self { operations })
    }

    /// Applies all operations in order, or none. Returns the indices of the operations that were left out, which only
    /// [`MissingPath::Skips`] allows.
    ///
    /// # Errors
    /// [`PatchError::Operation`] names the operation that does not fit; [`PatchError::TooManyOperations`] and
    /// [`PatchError::CopiesTooLarge`] say that `budget` is spent.
    pub fn apply(
        &self,
        document: &mut Value,
        missing: MissingPath,
        budget: &mut PatchBudget,
    ) -> Result<Vec<usize>, PatchError> {
        budget.spend_operations(self.operations.len())?;
        let mut patched = document.clone();
        let mut skipped = Vec::new();
        for (index, operation) in self.operations.iter().enumerate() {
            match apply_operation(&mut patched, operation, missing, budget) {
                Ok(()) => {}
                Err(Refusal::CopiesTooLarge) => {
                    return Err(PatchError::CopiesTooLarge {
                        index,
                        path: operation.path().to_string(),
                        limit: PatchBudget::COPIED_BYTES,
                    });
                }
                Err(Refusal::Failure(failure)) if missing == MissingPath::Skips && failure.is_missing_path() => {
                    if matches!(operation, PatchOperation::Test(_)) {
                        return Ok((0..self.operations.len()).collect());
                    }
                    skipped.push(index);
                }
                Err(Refusal::Failure(failure)) => {
                    return Err(PatchError::Operation {
                        index,
                        op: name(operation),
                        path: operation.path().to_string(),
                        failure,
                    });
                }
            }
        }
        *document = patched;
        Ok(skipped)
    }
}

fn decode(value: Value) -> Result<PatchOperation, String> {
    let written: WrittenOperation = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let pointer = |field: &str, text: String| {
        PointerBuf::parse(text.as_str()).map_err(|_| format!("{field} {text:?} is not a JSON pointer (RFC 6901)"))
    };
    let from = written.from;
    let from = |op: &str| {
        let text = from.ok_or_else(|| format!("{op} needs the field \"from\""))?;
        pointer("from", text)
    };
    let path = pointer("path", written.path)?;
    let value = written.value;
    Ok(match written.op.as_str() {
        "add" => PatchOperation::Add(AddOperation { path, value }),
        "remove" => PatchOperation::Remove(RemoveOperation { path }),
        "replace" => PatchOperation::Replace(ReplaceOperation { path, value }),
        "move" => PatchOperation::Move(MoveOperation {
            from: from("move")?,
            path,
        }),
        "copy" => PatchOperation::Copy(CopyOperation {
            from: from("copy")?,
            path,
        }),
        "test" => PatchOperation::Test(TestOperation { path, value }),
        other => {
            return Err(format!(
                "unknown op {other:?}, expected add, remove, replace, move, copy or test"
            ));
        }
    })
}

fn name(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

/// Why one operation was not executed.
enum Refusal {
    Failure(OperationFailure),
    CopiesTooLarge,
}

impl From<OperationFailure> for Refusal {
    fn from(failure: OperationFailure) -> Self {
        Self::Failure(failure)
    }
}

fn apply_operation(
    document: &mut Value,
    operation: &PatchOperation,
    missing: MissingPath,
    budget: &mut PatchBudget,
) -> Result<(), Refusal> {
    let lenient = missing == MissingPath::LikeKubernetes;
    match operation {
        PatchOperation::Add(add) => insert(document, &add.path, add.value.clone())?,
        PatchOperation::Remove(remove) => {
            let path = locate(document, &remove.path, Access::Read)?.existing()?;
            take(document, path)?;
        }
        PatchOperation::Replace(replace) => {
            let place = locate(document, &replace.path, Access::Read)?;
            let path = if lenient { place.pointer } else { place.existing()? };
            // `add` replaces a field but inserts before an element, so it serves only where there is nothing yet.
            if document.pointer(path.as_str()).is_some() {
                let value = replace.value.clone();
                execute(document, PatchOperation::Replace(ReplaceOperation { path, value }))?;
            } else {
                insert(document, &path, replace.value.clone())?;
            }
        }
        PatchOperation::Move(MoveOperation { from, path }) => {
            if path.starts_with(from) && path.len() != from.len() {
                return Err(OperationFailure::MoveIntoItself.into());
            }
            let from = locate(document, from, Access::Read)?.existing()?;
            let value = take(document, from)?;
            insert(document, path, value)?;
        }
        PatchOperation::Copy(CopyOperation { from, path }) => {
            let place = locate(document, from, Access::Read)?;
            let from = if lenient { place.pointer } else { place.existing()? };
            let source = document.pointer(from.as_str()).unwrap_or(&Value::Null);
            if !budget.spend_copy(source) {
                return Err(Refusal::CopiesTooLarge);
            }
            let value = source.clone();
            insert(document, path, value)?;
        }
        PatchOperation::Test(test) => {
            let place = locate(document, &test.path, Access::Read)?;
            match document.pointer(place.pointer.as_str()) {
                Some(found) if *found == test.value => {}
                None if test.value.is_null() => {}
                None if !lenient => {
                    place.existing()?;
                }
                _ => return Err(OperationFailure::TestFailed.into()),
            }
        }
    }
    Ok(())
}

/// Adds a value where `path` says, relative to the document as it is now.
fn insert(document: &mut Value, path: &Pointer, value: Value) -> Result<(), OperationFailure> {
    let path = locate(document, path, Access::Insert)?.pointer;
    execute(document, PatchOperation::Add(AddOperation { path, value }))
}

/// Removes and returns what is at a pointer that [`locate`] found.
fn take(document: &mut Value, path: PointerBuf) -> Result<Value, OperationFailure> {
    if path.is_root() {
        return Err(OperationFailure::WholeDocument);
    }
    let value = document.pointer_mut(path.as_str()).map_or(Value::Null, Value::take);
    execute(document, PatchOperation::Remove(RemoveOperation { path }))?;
    Ok(value)
}

/// Hands one operation with resolved pointers to the crate.
fn execute(document: &mut Value, operation: PatchOperation) -> Result<(), OperationFailure> {
    let at = operation.path().to_string();
    json_patch::patch_unsafe(document, &[operation]).map_err(|_| {
        // Pointers were resolved against this very document, so this is unreachable unless the crate changes its mind.
        OperationFailure::NotAContainer { at }
    })
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
