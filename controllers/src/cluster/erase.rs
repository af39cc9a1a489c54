//! Removes everything that the store has of a cluster.

use std::collections::BTreeSet;

use umbra_apimachinery::gvk::GroupResource;
use umbra_registry::copies::catalog::{CATALOG, catalog_prefix};
use umbra_registry::copies::key::COPIES;
use umbra_storage::{Error, RangeRequest, Store};

use crate::copy::erase_cluster;

/// What follows `/` in ASCII: `a/b` < `a0` for every `b`.
const AFTER_SLASH: char = '0';

/// Removes all copies of a cluster, also those of resources that it no longer serves, and then its catalog, which is what
/// tells after an interruption that there may be copies.
///
/// # Errors
/// Those of the store; what is left is erased by trying again.
pub(super) async fn erase_everything(store: &dyn Store, cluster: &str) -> Result<(), Error> {
    let copied = first_segments(store, COPIES, 2).await?;
    let resources: Vec<GroupResource> = copied.iter().filter_map(|segments| group_resource(segments)).collect();
    erase_cluster(store, cluster, resources).await
}

/// Keys call the core group `core`.
fn group_resource(segments: &str) -> Option<GroupResource> {
    let (group, resource) = segments.split_once('/')?;
    Some(GroupResource::new(if group == "core" { "" } else { group }, resource))
}

/// Whether the store has anything of a cluster: the catalog is written first and erased last.
///
/// # Errors
/// Those of the store.
pub(super) async fn is_known(store: &dyn Store, cluster: &str) -> Result<bool, Error> {
    let catalog = RangeRequest::prefix(catalog_prefix(cluster)).limit(1);
    Ok(!store.range(catalog).await?.entries.is_empty())
}

/// The clusters that the store has a catalog of.
///
/// # Errors
/// Those of the store.
pub(super) async fn known_clusters(store: &dyn Store) -> Result<BTreeSet<String>, Error> {
    first_segments(store, CATALOG, 1).await
}

/// The different beginnings of the keys under `prefix`, `depth` segments long. One read for each.
async fn first_segments(store: &dyn Store, prefix: &str, depth: usize) -> Result<BTreeSet<String>, Error> {
    let mut found = BTreeSet::new();
    let mut request = RangeRequest::prefix(prefix).limit(1);
    loop {
        let response = store.range(request.clone()).await?;
        let Some(entry) = response.entries.first() else {
            return Ok(found);
        };
        let below = entry.key.strip_prefix(prefix).unwrap_or_default();
        let segments: Vec<&str> = below.split('/').take(depth).collect();
        let segments = segments.join("/");
        request = request.after(format!("{prefix}{segments}{AFTER_SLASH}"));
        found.insert(segments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_storage::{Embedded, Precondition};

    #[tokio::test]
    async fn nothing_is_left_of_the_cluster_and_everything_of_others() {
        let store = Embedded::in_memory();
        for key in [
            "/umbra/catalog/east/api",
            "/umbra/catalog/east-2/api",
            "/umbra/copies/core/pods/east/shop/a",
            "/umbra/copies/core/pods/east/shop/b",
            "/umbra/copies/core/pods/west/shop/a",
            "/umbra/copies/example.com/widgets/east/-/w",
            "/umbra/copies/example.com/widgets2/east-2/-/w",
        ] {
            store.put(key, "{}".into(), Precondition::None).await.unwrap();
        }
        assert_eq!(
            known_clusters(&store).await.unwrap(),
            ["east", "east-2"].map(str::to_owned).into()
        );
        erase_everything(&store, "east").await.unwrap();
        let left = store.range(RangeRequest::prefix("")).await.unwrap().entries;
        let left: Vec<&str> = left.iter().map(|entry| &*entry.key).collect();
        assert_eq!(
            left,
            [
                "/umbra/catalog/east-2/api",
                "/umbra/copies/core/pods/west/shop/a",
                "/umbra/copies/example.com/widgets2/east-2/-/w"
            ]
        );
    }
}
