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

/// What a name means.
#[derive(Debug)]
struct Found {
    target: Target,
    /// The clusters that could not be asked whether they have one of the name, and why not.
    not_asked: Vec<(String, Status)>,
}

/// The clusters that could not be asked, and why not.
fn what_was_not_asked(not_asked: &[(String, Status)]) -> String {
    let each = not_asked.iter().map(|(cluster, status)| not_looked_at(cluster, status));
    each.collect::<Vec<_>>().join("; ")
}

fn not_looked_at(cluster: &str, status: &Status) -> String {
    format!("cluster \"{cluster}\" has not been looked at: {status}")
}

impl ViewResource {
    /// The object that `name` means, for what is done to it: a qualified one says it all, a bare one is looked for.
    ///
    /// # Errors
    /// 404 where there is no such cluster or, for a bare name, no such object; 409 where several clusters have it, 503 where
    /// a cluster that may have it, too, cannot be asked; what kept the clusters from being asked where no other has it.
    pub(super) async fn resolve(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Target, Status> {
        let found = self.look_for(context, namespace, name).await?;
        self.the_only_one(found)
    }

    /// The object that `name` means, for who only reads it: a cluster that cannot be asked is warned of.
    ///
    /// # Errors
    /// Those of [`Self::resolve`] but for the 503.
    pub(super) async fn resolve_to_read(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Target, Status> {
        let found = self.look_for(context, namespace, name).await?;
        for (cluster, status) in &found.not_asked {
            context.warnings.add(not_looked_at(cluster, status));
        }
        Ok(found.target)
    }

    async fn look_for(&self, context: &RequestContext, namespace: Option<&str>, name: &str) -> Result<Found, Status> {
        match QualifiedName::parse(name) {
            Some(qualified) => Ok(Found {
                target: self.target(qualified.cluster, qualified.name)?,
                not_asked: Vec::new(),
            }),
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

    /// The one object of that name that the caller may get, as far as the clusters can be asked.
    async fn find(&self, context: &RequestContext, namespace: Option<&str>, name: &str) -> Result<Found, Status> {
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
        let unknown = self.services.without_policy(self.served.live());
        let mut not_asked = Vec::new();
        for (cluster, answer) in self.find_live(context, namespace, name, live).await {
            match answer {
                Ok(target) => found.push(target),
                Err(status) if status.is(Reason::NotFound) || status.is(Reason::Forbidden) => {}
                Err(status) if sight.allows(&cluster, place, name) || unknown.contains(&cluster.as_str()) => {
                    not_asked.push((cluster, status));
                }
                // Its RBAC is known: it would have said 403.
                Err(_) => {}
            }
        }
        if found.len() > 1 {
            return Err(self.ambiguous(name, &found));
        }
        if let Some(target) = found.pop() {
            return Ok(Found { target, not_asked });
        }
        if !not_asked.is_empty() {
            return Err(self.not_found_elsewhere(name, not_asked));
        }
        if allowed {
            self.services.warn_of_unreachable(context, self.served.clusters.keys());
            return Err(Status::not_found(&self.group_resource(), name));
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

    /// The object that was found, where no other cluster can have one of its name.
    ///
    /// # Errors
    /// 503 where one can.
    fn the_only_one(&self, found: Found) -> Result<Target, Status> {
        let Found { target, not_asked } = found;
        if not_asked.is_empty() {
            return Ok(target);
        }
        let (resource, qualified) = (self.group_resource(), target.qualified());
        let message = format!(
            "{resource} \"{}\" may be in several clusters: cluster \"{}\" has it, and {}; say which one is meant, as in \
             \"{qualified}\"",
            target.name,
            target.cluster,
            what_was_not_asked(&not_asked),
        );
        Err(Status::failure(Reason::ServiceUnavailable, message).about(&resource, &target.name))
    }

    /// What kept clusters from being asked, where no other has an object of that name: that there is none is not known.
    fn not_found_elsewhere(&self, name: &str, not_asked: Vec<(String, Status)>) -> Status {
        let resource = self.group_resource();
        let message = format!(
            "{resource} \"{name}\" was not found, but {}; NAME@CLUSTER asks one cluster alone",
            what_was_not_asked(&not_asked)
        );
        let first = not_asked.into_iter().next().map(|(_, status)| status);
        let first = first.expect("somebody was not asked");
        Status { message, ..first }
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
