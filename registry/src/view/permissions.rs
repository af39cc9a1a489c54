//! What the hub lets callers do in views with `spec.authorization: HubRBAC`.
//!
//! The hub is asked about the group [`VirtualGroup::View`] has for a resource's own, in the namespace and by the name that
//! the clusters know. It knows nothing of clusters: which of them a view shows is fixed by the view, and who may enter the
//! view by `views/proxy`, so what is allowed is allowed for all clusters of every HubRBAC view that somebody may enter.
//!
//! A hub that decides by RBAC objects of its own tells what may be seen ([`HubPermissions::visible`]). One behind a
//! kube-apiserver answers single questions. A collection of all namespaces is then one question about all of them and,
//! where that is refused, one about each namespace that the clusters of the view have: at most [`MOST_NAMESPACES`], some at
//! once, each remembered by whoever asks.

use std::collections::BTreeSet;
use std::fmt::Debug;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use tokio::sync::watch;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_auth::delegation::VirtualGroup;
use umbra_auth::rbac::{Attributes, Decision, Visibility};

use super::sight::{Extent, Question};
use crate::generic::authorization::Rules;
use crate::root::entrance;

/// How many namespaces are asked about for one collection of all namespaces: 1,000 reviews of 5 ms, [`AT_ONCE`] at a time,
/// take 0.2 s. Who may see some namespaces of more has to name one.
pub const MOST_NAMESPACES: usize = 1_000;
/// Questions under way at once for one collection: a third of what one client of a kube-apiserver has (100 streams).
const AT_ONCE: usize = 32;

/// The hub's own permissions. Groups of what is inside views are those of [`VirtualGroup::View`].
#[async_trait]
pub trait HubPermissions: Debug + Send + Sync {
    /// Whether `user` may do it. Cancel safe.
    ///
    /// # Errors
    /// 500 where nobody can say: then nothing is allowed.
    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<Decision, Status>;

    /// All that `user` may do of it; `None` where only single questions are answered. `resource` may carry a subresource.
    fn visible(&self, user: &UserInfo, verb: &str, group: &str, resource: &str) -> Option<Visibility>;

    /// The rules that apply to `user` inside views, with the groups of the resources themselves.
    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules;

    /// How somebody learns that answers have changed.
    fn changes(&self) -> PermissionChanges;
}

/// How one learns that permissions have changed.
#[derive(Debug)]
pub enum PermissionChanges {
    /// By being told.
    Told(watch::Receiver<()>),
    /// By asking again.
    Asked,
}

/// Whether `user` may read what a view has at all, whoever decides about it.
///
/// # Errors
/// 500 where the hub cannot be asked.
pub(super) async fn may_enter(hub: &dyn HubPermissions, user: &UserInfo, view: &str) -> Result<bool, Status> {
    let decision = hub.decide(user, &entrance("views", view, "get")).await?;
    Ok(decision.is_allowed())
}

impl Question<'_> {
    /// What the hub says of one namespace, or of all for the empty one.
    ///
    /// # Errors
    /// 500 where it cannot be asked.
    pub(super) async fn decide(&self, hub: &dyn HubPermissions, namespace: &str) -> Result<Decision, Status> {
        let group = VirtualGroup::View.of(self.act.group);
        let (resource, subresource) = self.act.resource.split_once('/').unwrap_or((self.act.resource, ""));
        let attributes = Attributes {
            verb: self.act.verb,
            group: &group,
            resource,
            subresource,
            namespace,
            name: self.extent.name.unwrap_or_default(),
            path: "",
            is_resource_request: true,
        };
        hub.decide(self.user, &attributes).await
    }

    /// What the hub allows, as far as one question tells; `None` where each namespace has to be asked about.
    ///
    /// # Errors
    /// 500 where it cannot be asked.
    pub(super) async fn whole(&self, hub: &dyn HubPermissions) -> Result<Option<Visibility>, Status> {
        let (act, extent) = (self.act, self.extent);
        let group = VirtualGroup::View.of(act.group);
        if let Some(visible) = hub.visible(self.user, act.verb, &group, act.resource) {
            return Ok(Some(visible));
        }
        let namespace = extent.namespace.unwrap_or_default();
        Ok(if self.decide(hub, namespace).await?.is_allowed() {
            Some(visibility_of([namespace], extent))
        } else if extent.namespaced && extent.namespace.is_none() {
            None
        } else {
            Some(Visibility::default())
        })
    }

    /// What the hub allows in these namespaces, for a collection of all.
    ///
    /// # Errors
    /// 403 where they are too many to ask about, 500 where the hub cannot be asked.
    pub(super) async fn among(
        &self,
        hub: &dyn HubPermissions,
        namespaces: &BTreeSet<String>,
    ) -> Result<Visibility, Status> {
        if namespaces.len() > MOST_NAMESPACES {
            let resource = GroupResource::new(self.act.group, self.act.resource);
            // How many they are is nobody's business who may not see them.
            let why = format!(
                "the hub has no permission for all namespaces, and there are more than {MOST_NAMESPACES}, too many to ask \
                 about each: name one"
            );
            return Err(Status::forbidden(&resource, "", why));
        }
        let mut asked = Vec::with_capacity(namespaces.len());
        for namespace in namespaces {
            asked.push(async move {
                let decision = self.decide(hub, namespace).await?;
                Ok::<_, Status>((namespace.as_str(), decision.is_allowed()))
            });
        }
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut allowed = Vec::new();
        while let Some(answer) = answers.next().await {
            let (namespace, is_allowed) = answer?;
            if is_allowed {
                allowed.push(namespace);
            }
        }
        Ok(visibility_of(allowed, self.extent))
    }
}

/// What is visible where a question is answered with yes in these namespaces.
fn visibility_of<'a>(namespaces: impl IntoIterator<Item = &'a str>, extent: Extent<'_>) -> Visibility {
    let mut visibility = Visibility::default();
    for namespace in namespaces {
        match (namespace, extent.name) {
            ("", None) => return Visibility::everything(),
            ("", Some(name)) => drop(visibility.names.insert(name.to_owned())),
            (namespace, None) => drop(visibility.namespaces.insert(namespace.to_owned())),
            (namespace, Some(name)) => {
                let names = visibility.namespaced_names.entry(namespace.to_owned()).or_default();
                names.insert(name.to_owned());
            }
        }
    }
    visibility
}
