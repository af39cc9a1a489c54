//! Where the path of an operation leads, with the indices of Go's JSON patches.

use json_patch::jsonptr::{Pointer, PointerBuf, Token};
use serde_json::Value;

use super::OperationFailure;

/// What a path is resolved for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// What is there.
    Read,
    /// A place to put something: in a list also the one after the last element.
    Insert,
}

/// Where a path leads.
pub(super) struct Place {
    /// The pointer with indices counted from the start.
    pub(super) pointer: PointerBuf,
    /// The object that has no such field, where that is so.
    absent: Option<OperationFailure>,
}

impl Place {
    /// The pointer, where there is something.
    pub(super) fn existing(self) -> Result<PointerBuf, OperationFailure> {
        match self.absent {
            None => Ok(self.pointer),
            Some(failure) => Err(failure),
        }
    }
}

/// Follows `path`. Every value but the last has to be there; the last may be an absent field of an object.
pub(super) fn locate(document: &Value, path: &Pointer, access: Access) -> Result<Place, OperationFailure> {
    let mut pointer = PointerBuf::new();
    let mut current = document;
    let mut tokens = path.tokens().peekable();
    while let Some(token) = tokens.next() {
        let last = tokens.peek().is_none();
        let decoded = token.decoded();
        match current {
            Value::Object(fields) => match fields.get(decoded.as_ref()) {
                Some(next) => current = next,
                None => {
                    let failure = OperationFailure::Missing {
                        at: pointer.to_string(),
                        token: decoded.into_owned(),
                    };
                    if !last {
                        return Err(failure);
                    }
                    pointer.push_back(token);
                    return Ok(Place {
                        pointer,
                        absent: Some(failure),
                    });
                }
            },
            Value::Array(elements) => {
                let inserting = last && access == Access::Insert;
                let index = index(&decoded, elements.len(), inserting, &pointer)?;
                pointer.push_back(Token::from(index));
                match elements.get(index) {
                    Some(next) => current = next,
                    None => return Ok(Place { pointer, absent: None }),
                }
                continue;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(OperationFailure::NotAContainer {
                    at: pointer.to_string(),
                });
            }
        }
        pointer.push_back(token);
    }
    Ok(Place { pointer, absent: None })
}

/// The index that `token` means in a list of `length` elements at `at`. Negative ones count from the end; where
/// something is to be inserted, from the place after the last element (`partialArray.add` of the Go package).
fn index(token: &str, length: usize, inserting: bool, at: &Pointer) -> Result<usize, OperationFailure> {
    if inserting && token == "-" {
        return Ok(length);
    }
    let places = if inserting { length + 1 } else { length };
    let written: i64 = token.parse().map_err(|_| OperationFailure::NotAnIndex {
        at: at.to_string(),
        token: token.to_owned(),
    })?;
    let offset = usize::try_from(written.unsigned_abs()).unwrap_or(usize::MAX);
    let index = if written < 0 {
        places.checked_sub(offset)
    } else {
        Some(offset).filter(|index| *index < places)
    };
    index.ok_or_else(|| OperationFailure::Missing {
        at: at.to_string(),
        token: token.to_owned(),
    })
}
