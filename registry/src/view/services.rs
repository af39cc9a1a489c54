//! What all views share.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use umbra_api::cluster::{Access, ManagedCluster};
use umbra_apimachinery::status::Status;
use umbra_child::{Child, Children, Health};
use umbra_storage::Revision;

use super::memory::Memory;
use super::shape::{Member, Shape};
use crate::child_documents::ChildDocuments;
use crate::child_errors::{not_connected, unreachable};
use crate::copies::cache::Copies;
use crate::copies::catalog::Catalog;
use crate::copies::policy::ChildPolicies;
use crate::directory::{self, Directory, identity_of};
use crate::mirror::Mirror;
use crate::request::RequestContext;

/// What all views share: where clusters, copies and policies are, and how children are reached.
#[derive(Debug)]
pub struct ViewServices {
    pub(super) directory: Arc<Mirror<Directory>>,
    pub(super) catalog: Arc<Mirror<Catalog>>,
    pub(super) policies: Arc<Mirror<ChildPolicies>>,
    pub(super) copies: Arc<Copies>,
    pub(super) children: Children,
    pub(super) documents: Arc<ChildDocuments>,
    /// The shape of each view.
    shapes: Mutex<HashMap<String, Kept>>,
    /// What the hub lets callers watch.
    pub(super) memory: Memory,
}

/// A shape, and what it was made from: every watch asks for it after every change of any cluster.
#[derive(Debug)]
struct Kept {
    directory: Arc<Directory>,
    catalog: Arc<Catalog>,
    shape: Arc<Shape>,
    /// When somebody else began to decide who sees what; 0 for never.
    authority_changed: Revision,
}

impl ViewServices {
    /// Views over these clusters. The mirrors have to be followed by somebody.
    #[must_use]
    pub fn new(
        directory: Arc<Mirror<Directory>>,
        catalog: Arc<Mirror<Catalog>>,
        policies: Arc<Mirror<ChildPolicies>>,
        copies: Arc<Copies>,
        children: Children,
        documents: Arc<ChildDocuments>,
    ) -> Arc<Self> {
        Arc::new(Self {
            directory,
            catalog,
            policies,
            copies,
            children,
            documents,
            shapes: Mutex::default(),
            memory: Memory::default(),
        })
    }

    /// What the view of that name serves now; `None` where there is no such view. The same as before, as long as neither
    /// the selected clusters nor what they serve nor how callers are named there has changed.
    pub(super) fn shape(&self, view: &str) -> Option<Arc<Shape>> {
        let (directory, catalog) = (self.directory.state(), self.catalog.state());
        let mut shapes = self.shapes.lock();
        let Some(object) = directory.views.get(view) else {
            shapes.remove(view);
            return None;
        };
        let kept = shapes.get(view);
        if let Some(kept) = kept
            && Arc::ptr_eq(&kept.directory, &directory)
            && Arc::ptr_eq(&kept.catalog, &catalog)
        {
            return Some(Arc::clone(&kept.shape));
        }
        let spec = &object.spec;
        let selected = directory.select(spec.cluster_selector.as_ref(), spec.cluster_names.as_deref());
        let members = selected.into_iter().filter_map(|name| {
            let member = Member {
                identity: identity_of(directory.clusters.get(&name)?),
                api: catalog.clusters.get(&name).map(|entry| Arc::clone(&entry.api)),
            };
            Some((name, member))
        });
        let clusters = members.collect();
        let authorization = spec.authorization;
        let same_authority = |kept: &&Kept| kept.shape.authorization == authorization;
        let authority_changed = match kept {
            Some(kept) if !same_authority(&kept) => *self.directory.subscribe().borrow(),
            Some(kept) => kept.authority_changed,
            None => Revision(0),
        };
        let shape = match kept.filter(same_authority) {
            Some(kept) if kept.shape.is_of(&clusters) => Arc::clone(&kept.shape),
            _ => Arc::new(Shape::new(clusters, authorization)),
        };
        let kept = Kept {
            directory,
            catalog,
            shape: Arc::clone(&shape),
            authority_changed,
        };
        shapes.insert(view.to_owned(), kept);
        Some(shape)
    }

    /// The revision at which somebody else began to decide who sees what of a view; 0 where nobody has seen that happen.
    pub(super) fn authority_changed(&self, view: &str) -> Revision {
        let shapes = self.shapes.lock();
        shapes.get(view).map_or(Revision(0), |kept| kept.authority_changed)
    }

    /// The cluster of that name, as it is registered now.
    pub(super) fn cluster(&self, name: &str) -> Option<Arc<ManagedCluster>> {
        self.directory.state().clusters.get(name).cloned()
    }

    /// Whether nothing may be written to a cluster. One that is not known any more is as good as read-only.
    pub(super) fn is_read_only(&self, cluster: &str) -> bool {
        self.cluster(cluster)
            .is_none_or(|cluster| cluster.spec.access == Access::ReadOnly)
    }

    /// Since when a cluster cannot be reached, and why. What the hub's own probes say counts; before they say anything,
    /// the condition that was written last.
    pub(super) fn unreachable_since(&self, cluster: &str) -> Option<(String, String)> {
        let health = self.children.get(cluster).map(|child| child.health().borrow().clone());
        match health {
            Some(Health::Unreachable { since, reason, .. }) => Some((since.to_string(), reason.to_string())),
            Some(Health::Reachable) => None,
            Some(Health::Unknown) | None => directory::unreachable_since(&*self.cluster(cluster)?),
        }
    }

    /// What reaches a cluster.
    ///
    /// # Errors
    /// 503 where there is nothing yet, or cannot be.
    pub(super) fn child(&self, cluster: &str) -> Result<Child, Status> {
        let child = self.children.get(cluster);
        child.ok_or_else(|| match self.unreachable_since(cluster) {
            Some((since, reason)) => unreachable(cluster, &since, &reason),
            None => not_connected(cluster),
        })
    }

    /// Warns of each of these clusters that cannot be reached.
    pub(super) fn warn_of_unreachable<'a>(
        &self,
        context: &RequestContext,
        clusters: impl IntoIterator<Item = &'a String>,
    ) {
        for cluster in clusters {
            if let Some((since, _)) = self.unreachable_since(cluster) {
                context.warnings.add(format!(
                    "cluster \"{cluster}\" is unreachable since {since}; showing its last known state"
                ));
            }
        }
    }

    /// Tells of everything on which depends who sees what.
    pub(super) fn changes(&self) -> Changes {
        Changes([
            self.policies.subscribe(),
            self.directory.subscribe(),
            self.catalog.subscribe(),
        ])
    }
}

/// Tells that clusters, views, catalogs or policies may have changed since it was made.
#[derive(Debug)]
pub(super) struct Changes([watch::Receiver<Revision>; 3]);

impl Changes {
    /// Waits for the next change. Cancel safe.
    pub(super) async fn next(&mut self) {
        let [policies, directory, catalog] = &mut self.0;
        tokio::select! {
            () = changed(policies) => {}
            () = changed(directory) => {}
            () = changed(catalog) => {}
        }
    }
}

async fn changed(receiver: &mut watch::Receiver<Revision>) {
    // A mirror that is gone changes no more.
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
