//! What all views share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use umbra_api::cluster::{Access, ManagedCluster};
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::status::Status;
use umbra_child::{Child, Children, Health};
use umbra_storage::Revision;

use super::memory::Memory;
use super::shape::{Clusters, Member, Shape};
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
    /// When clusters came or left, as far as somebody has seen it.
    membership_changed: BTreeMap<String, Revision>,
    /// When a resource of a cluster did while the cluster stayed.
    moved: HashMap<(GroupVersionResource, String), Revision>,
}

/// How many clusters and resources that came or left are told apart. Beyond that, all watches of the view begin anew.
const MEMBERSHIP_CHANGES: usize = 4096;

impl Kept {
    /// Notes which clusters are there that were not, or are not any more, or call users by other names.
    fn compare(&mut self, clusters: &Clusters, now: Revision) {
        let before = &self.shape.clusters;
        let same = |name: &String, member: &Member| before.get(name).is_some_and(|old| old.identity == member.identity);
        let came = clusters
            .iter()
            .filter(|(name, member)| !same(name, member))
            .map(|(name, _)| name);
        let left = before.keys().filter(|name| !clusters.contains_key(*name));
        for name in came.chain(left) {
            self.membership_changed.insert(name.clone(), now);
        }
        self.bound_changes(now);
    }

    /// Puts another shape in the place of the one before, and notes of which clusters it shows more or less of what they have had
    /// all the time: a watch that goes on from before would never hear of it.
    fn replace(&mut self, shape: Shape, now: Revision) {
        for (resource, cluster) in shape.moved(&self.shape) {
            self.moved.insert((resource.clone(), cluster.clone()), now);
        }
        self.bound_changes(now);
        self.shape = Arc::new(shape);
    }

    fn bound_changes(&mut self, now: Revision) {
        if self.membership_changed.len() + self.moved.len() > MEMBERSHIP_CHANGES {
            self.membership_changed.clear();
            self.moved.clear();
            self.authority_changed = now;
        }
    }
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
        let kept = shapes.get_mut(view);
        if let Some(kept) = &kept
            && Arc::ptr_eq(&kept.directory, &directory)
            && Arc::ptr_eq(&kept.catalog, &catalog)
        {
            return Some(Arc::clone(&kept.shape));
        }
        let spec = &object.spec;
        let selected = directory.select(spec.cluster_selector.as_ref(), spec.cluster_names.as_deref());
        let members = selected.into_iter().filter_map(|name| {
            let cluster = directory.clusters.get(&name)?;
            let member = Member {
                identity: identity_of(cluster),
                api: catalog.clusters.get(&name).map(|entry| Arc::clone(&entry.api)),
                registered: cluster.metadata.creation_timestamp.as_ref().map(|time| time.0),
            };
            Some((name, member))
        });
        let clusters: Clusters = members.collect();
        let authorization = spec.authorization;
        let Some(kept) = kept else {
            let shape = Arc::new(Shape::new(clusters, authorization));
            let kept = Kept {
                directory,
                catalog,
                shape: Arc::clone(&shape),
                authority_changed: Revision(0),
                membership_changed: BTreeMap::new(),
                moved: HashMap::new(),
            };
            shapes.insert(view.to_owned(), kept);
            return Some(shape);
        };
        let now = (*self.directory.subscribe().borrow()).max(*self.catalog.subscribe().borrow());
        kept.compare(&clusters, now);
        let same_authority = kept.shape.authorization == authorization;
        if !same_authority {
            kept.authority_changed = now;
        }
        if !same_authority || !kept.shape.is_of(&clusters) {
            kept.replace(Shape::new(clusters, authorization), now);
        }
        (kept.directory, kept.catalog) = (directory, catalog);
        Some(Arc::clone(&kept.shape))
    }

    /// Whether a cluster that `admitted` lets through has come to a view, or left it, since `revision`, with all it has or with this
    /// resource, as far as somebody here has seen it.
    pub(super) fn membership_changed_since(
        &self,
        view: &str,
        resource: &GroupVersionResource,
        revision: Revision,
        admitted: impl Fn(&str) -> bool,
    ) -> bool {
        let shapes = self.shapes.lock();
        shapes.get(view).is_some_and(|kept| {
            let clusters = kept.membership_changed.iter();
            let moved = kept.moved.iter().filter(|((moved, _), _)| moved == resource);
            let mut changed = clusters.chain(moved.map(|((_, cluster), when)| (cluster, when)));
            changed.any(|(name, when)| *when > revision && admitted(name))
        })
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
    /// 503 where there is nothing yet, or cannot be. Why not is not for everybody who may enter a view.
    pub(super) fn child(&self, cluster: &str) -> Result<Child, Status> {
        let child = self.children.get(cluster);
        child.ok_or_else(|| match self.unreachable_since(cluster) {
            Some((since, _)) => unreachable(cluster, &since, ""),
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
