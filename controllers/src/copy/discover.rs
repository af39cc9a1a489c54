//! Asks a child which resources it serves.

use std::collections::BTreeSet;

use umbra_apimachinery::discovery::Discovery;
use umbra_apimachinery::discovery_list::{ACCEPT, DiscoveryAnswer, read_resource_list};
use umbra_apimachinery::gvk::GroupVersion;

use crate::copy::source::{Source, SourceError};

/// What a child serves.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// Its resources.
    pub(crate) discovery: Discovery,
    /// Group versions that are listed but whose server (an aggregated one) does not answer: what is known of their
    /// resources stays in force.
    pub(crate) stale: BTreeSet<GroupVersion>,
}

/// Asks `/api` and `/apis`; where the child has no aggregated discovery, each group version.
///
/// # Errors
/// Where `/api` or `/apis` is not answered. A single group version that fails is stale.
pub(crate) async fn discover(source: &dyn Source) -> Result<Discovered, SourceError> {
    let mut found = Discovered::default();
    for path in ["/api", "/apis"] {
        let body = source.get(path, ACCEPT).await?;
        let answer = DiscoveryAnswer::parse(&body).map_err(|error| SourceError::Malformed {
            path: path.to_owned(),
            source: error,
        })?;
        match answer {
            DiscoveryAnswer::Aggregated(discovery, stale) => {
                found.stale.extend(stale);
                for resource in discovery.resources() {
                    found.discovery.insert(resource.clone());
                }
            }
            DiscoveryAnswer::Versions(versions) => {
                for version in versions {
                    let path = format!("/{}", version.path());
                    let read = source.get(&path, "application/json").await.and_then(|body| {
                        read_resource_list(&body, &mut found.discovery)
                            .map_err(|source| SourceError::Malformed { path, source })
                    });
                    if let Err(error) = read {
                        tracing::warn!(%version, %error, "a group version of the cluster does not answer");
                        found.stale.insert(version);
                    }
                }
            }
        }
    }
    Ok(found)
}
