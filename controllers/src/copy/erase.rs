//! Removes everything under a prefix.

use umbra_storage::{Error, Operation, Precondition, RangeRequest, Store};

/// Keys a batch: small enough that other writers get their turn.
const BATCH: usize = 500;

/// Deletes all keys under `prefix` that are there now.
///
/// # Errors
/// Those of the store; what is left can be erased by trying again.
pub(crate) async fn erase_prefix(store: &dyn Store, prefix: &str) -> Result<(), Error> {
    loop {
        let response = store.range(RangeRequest::prefix(prefix).limit(BATCH)).await?;
        let more = response.more;
        let operations: Vec<_> = response
            .entries
            .into_iter()
            .map(|entry| Operation::delete(entry.key, Precondition::None))
            .collect();
        if operations.is_empty() {
            return Ok(());
        }
        for outcome in store.batch(operations).await {
            match outcome {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !more {
            return Ok(());
        }
    }
}
