//! Files that somebody else replaces: mounted Secrets and ConfigMaps, what cert-manager or an operator writes.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::TrustError;

/// How often files are read again. They are small and in memory; kubelets take up to a minute to write them.
const PERIOD: Duration = Duration::from_secs(5);

/// Files that are read together, and what was in them last.
#[derive(Debug)]
pub struct FollowedFiles {
    paths: Vec<PathBuf>,
    last: Vec<Vec<u8>>,
}

impl FollowedFiles {
    /// Follows these; nothing is read yet.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            last: Vec::new(),
        }
    }

    /// What is in the files, in their order, where that has changed since this was asked before.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub async fn changed(&mut self) -> Result<Option<&[Vec<u8>]>, TrustError> {
        let mut read = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            let content = tokio::fs::read(path).await.map_err(|source| TrustError::File {
                path: path.clone(),
                source,
            })?;
            read.push(content);
        }
        if read == self.last {
            return Ok(None);
        }
        self.last = read;
        Ok(Some(&self.last))
    }

    /// Calls `apply` with what is in the files whenever that has changed, until `cancelled`. What `apply` refuses, and what
    /// cannot be read, is logged once; files that are caught halfway through a change are tried again when they change on.
    pub async fn follow(mut self, cancelled: CancellationToken, apply: impl Fn(&[Vec<u8>]) -> Result<(), TrustError>) {
        let follow = async {
            let mut said = String::new();
            loop {
                tokio::time::sleep(PERIOD).await;
                let known = !self.last.is_empty();
                let outcome = match self.changed().await {
                    Ok(None) => continue,
                    Ok(Some(contents)) => apply(contents),
                    Err(error) => Err(error),
                };
                match outcome {
                    Ok(()) => {
                        said.clear();
                        if known {
                            tracing::info!(files = ?self.paths, "files have changed and are in use");
                        }
                    }
                    Err(error) => {
                        let text = format!("{error:?}");
                        if text != said {
                            tracing::warn!(files = ?self.paths, %error, "what was there before stays in use");
                            said = text;
                        }
                    }
                }
            }
        };
        cancelled.run_until_cancelled(follow).await;
    }
}
