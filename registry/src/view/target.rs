//! Which object of which cluster a name means.

use umbra_apimachinery::names::QualifiedName;
use umbra_apimachinery::status::{Reason, Status};

use super::resource::ViewResource;
use super::shape::Source;
use super::sight::{Authority, Sight};
use crate::copies::key::{CopyKey, copy_key};
use crate::request::RequestContext;
use crate::resource::Object;

/// An object, or where it is to be.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) cluster: String,
    /// As the child knows it.
    pub(super) name: String,
    pub(super) source: Source,
    /// The object, where finding it meant reading it.
    pub(super) found: Option<Object>,
}

impl Target {
    /// As the view knows it.
    pub(super) fn qualified(&self) -> String {
        let (name, cluster) = (self.name.as_str(), self.cluster.as_str());
        QualifiedName { name, cluster }.to_string()
    }

    /// Whether its revisions are the hub's.
    pub(super) fn is_copied(&self) -> bool {
        self.source == Source::Copies
    }
}

impl ViewResource {
    /// The object that `name` means: a qualified one says it all, a bare one is looked for.
    ///
    /// # Errors
    /// 404 where there is no such cluster or, for a bare name, no such object; 409 where several clusters have it.
    pub(super) async fn resolve(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Target, Status> {
        match QualifiedName::parse(name) {
            Some(qualified) => self.target(qualified.cluster, qualified.name),
            None => self.find(context, namespace, name).await,
        }
    }

    /// The object of that name in that cluster.
    ///
    /// # Errors
    /// 404 where the view has no such cluster, or the cluster no such resource.
    pub(super) fn target(&self, cluster: &str, name: &str) -> Result<Target, Status> {
        let resource = self.group_resource();
        let not_found = |why: String| {
            let qualified = QualifiedName { name, cluster }.to_string();
            let message = format!("{resource} \"{qualified}\" not found: {why}");
            Status::failure(Reason::NotFound, message).about(&resource, &qualified)
        };
        let Some(source) = self.served.clusters.get(cluster) else {
            let view = &self.view;
            return Err(not_found(if self.shape.clusters.contains_key(cluster) {
                let version = self.served.descriptor.resource.group_version();
                format!(
                    "the cluster \"{cluster}\" does not serve {} in {version}",
                    resource.resource
                )
            } else {
                let names = self.shape.cluster_names();
                format!("the view \"{view}\" has no cluster \"{cluster}\"; it has: {names}")
            }));
        };
        Ok(Target {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            source: *source,
            found: None,
        })
    }

    /// The one object of that name that the caller may get.
    async fn find(&self, context: &RequestContext, namespace: Option<&str>, name: &str) -> Result<Target, Status> {
        let resource = self.group_resource();
        let place = self.rbac_namespace(namespace, name);
        let sight = self
            .sight_of_object(context, self.served.clusters.keys(), place, name)
            .await?;
        // A hub that tells all it knows may have told of other places.
        let allowed = sight.0.keys().any(|cluster| sight.allows(cluster, place, name));
        if !allowed && matches!(self.authority, Authority::Hub(_)) {
            return Err(self.forbidden(context, "get", "", place, name));
        }
        let mut found = self.find_copies(context, namespace, name, &sight).await?;
        let live: Vec<&String> = self.served.live().collect();
        if !live.is_empty() {
            found.extend(self.find_live(context, namespace, name, live).await);
        }
        if found.len() > 1 {
            return Err(self.ambiguous(name, &found));
        }
        if let Some(one) = found.pop() {
            return Ok(one);
        }
        if allowed {
            self.services.warn_of_unreachable(context, self.served.clusters.keys());
            return Err(Status::not_found(&resource, name));
        }
        Err(self.forbidden(context, "get", "", place, name))
    }

    async fn find_copies(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        sight: &Sight,
    ) -> Result<Vec<Target>, Status> {
        if !self.served.has_copies() {
            return Ok(Vec::new());
        }
        let snapshot = self.present_copies(context).await?;
        let place = self.rbac_namespace(namespace, name);
        let has_it = |cluster: &&String| {
            snapshot.get(&self.key(cluster, namespace, name)).is_some() && sight.allows(cluster, place, name)
        };
        self.served
            .copied()
            .filter(has_it)
            .map(|cluster| self.target(cluster, name))
            .collect()
    }

    /// 409 for a name that several clusters have.
    fn ambiguous(&self, name: &str, found: &[Target]) -> Status {
        let names: Vec<String> = found.iter().map(Target::qualified).collect();
        let why = format!(
            "several clusters have an object of this name; say which one is meant: {}",
            names.join(", ")
        );
        let status = Status::conflict(&self.group_resource(), name, why);
        names.into_iter().fold(status, |status, name| {
            status.cause("AmbiguousName", name, "metadata.name")
        })
    }

    /// The key of a copy.
    pub(super) fn key(&self, cluster: &str, namespace: Option<&str>, name: &str) -> String {
        let namespace = namespace.filter(|_| self.served.descriptor.namespaced);
        copy_key(
            &self.group_resource(),
            CopyKey {
                cluster,
                namespace,
                name,
            },
        )
    }
}
