//! Whether what a watch shows is still what its caller may see.
//!
//! The children's RBAC and a standalone hub's tell when they change. A hub behind a kube-apiserver does not: it is asked
//! again every 2 s ([`PERIOD`]), by way of the answers that are remembered for 10 s by default (`AccessReviewOptions`). So
//! a permission that is withdrawn ends the watch 12 s later at the latest, beside what the hub itself takes to notice, and
//! each question costs one review in 10 s, however many watch. About namespaces in which nothing was allowed, the hub is
//! asked less often: about new ones after 10 s, about those that it has refused after a minute.
//!
//! Whether its caller may enter the view at all the hub is asked in the same way, also where the children decide inside.
//!
//! While the hub is asked, nothing is sent; where it cannot be asked, the watch ends with the error that says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_auth::rbac::Visibility;

use super::permissions::{HubPermissions, PermissionChanges, may_enter};
use super::resource::ViewResource;
use super::selection::ViewSelection;
use super::services::{Changes, ViewServices};
use super::shape::{Served, Shape};
use super::sight::{Act, Authority, Extent, Question, Sight};
use crate::copies::policy::ChildPolicies;
use crate::request::RequestContext;
use crate::resource::{Event, EventStream};

/// How long after the last look at the hub's answers the next one is due, at most; at least three quarters of it, at random.
const PERIOD: Duration = Duration::from_secs(2);
/// At every fifth look, about every 10 s, new namespaces are looked for.
const NEW_NAMESPACES: u32 = 5;
/// At every thirtieth look, about once in a minute, all namespaces are asked about.
const ALL_NAMESPACES: u32 = 30;
/// How long a look may take, in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Knows what a watch was begun with, and whether that is still right.
pub(super) struct Vigil {
    services: Arc<ViewServices>,
    view: Arc<str>,
    shape: Arc<Shape>,
    policies: Arc<ChildPolicies>,
    authority: Authority,
    hub: Arc<dyn HubPermissions>,
    user: Arc<UserInfo>,
    resource: GroupVersionResource,
    namespaced: bool,
    namespace: Option<String>,
    selection: ViewSelection,
    sight: Arc<Sight>,
    /// Namespaces of which the hub has shown nothing when it was asked last.
    refused: BTreeSet<String>,
    looks: u32,
}

/// What is watched.
pub(super) struct Watched<'a> {
    pub(super) extent: Extent<'a>,
    pub(super) selection: &'a ViewSelection,
    pub(super) sight: &'a Arc<Sight>,
    /// From before `sight` was judged.
    pub(super) policies: Arc<ChildPolicies>,
}

impl Vigil {
    pub(super) fn new(resource: &ViewResource, context: &RequestContext, watched: Watched<'_>) -> Self {
        Self {
            services: Arc::clone(&resource.services),
            view: Arc::clone(&resource.view),
            shape: Arc::clone(&resource.shape),
            policies: watched.policies,
            authority: resource.authority.clone(),
            hub: Arc::clone(&resource.hub),
            user: Arc::clone(&context.user),
            resource: resource.served.descriptor.resource.clone(),
            namespaced: watched.extent.namespaced,
            namespace: watched.extent.namespace.map(str::to_owned),
            selection: watched.selection.clone(),
            sight: Arc::clone(watched.sight),
            refused: BTreeSet::new(),
            looks: 0,
        }
    }

    /// Judges again where clusters, views or the children's RBAC have changed. Most changes are of something else, such as
    /// the time of a cluster's last probe: then nothing is judged.
    ///
    /// # Errors
    /// 410 where something else may be seen now, 500 where the hub cannot be asked.
    pub(super) async fn still_right(&mut self) -> Result<(), Status> {
        let shape = self.services.shape(&self.view).ok_or_else(outdated)?;
        let policies = self.services.policies.state();
        let hub_decides = matches!(self.authority, Authority::Hub(_));
        if Arc::ptr_eq(&shape, &self.shape) && (hub_decides || Arc::ptr_eq(&policies, &self.policies)) {
            return Ok(());
        }
        if shape.authorization != self.shape.authorization {
            return Err(outdated());
        }
        let served = shape.served(&self.resource).ok_or_else(outdated)?;
        let admitted = self.admitted(served);
        let deadline = Instant::now() + PATIENCE;
        let judged = self
            .services
            .judge(&self.authority, self.question(), &admitted, deadline);
        if judged.await? != *self.sight {
            return Err(outdated());
        }
        self.shape = shape;
        self.policies = policies;
        Ok(())
    }

    /// Judges again because the hub may have changed its mind.
    ///
    /// # Errors
    /// As [`Self::still_right`].
    async fn look_again(&mut self) -> Result<(), Status> {
        if !may_enter(&*self.hub, &self.user, &self.view).await? {
            return Err(outdated());
        }
        match self.authority.clone() {
            Authority::Hub(hub) => self.look_inside(&hub).await,
            Authority::Children => Ok(()),
        }
    }

    async fn look_inside(&mut self, hub: &Arc<dyn HubPermissions>) -> Result<(), Status> {
        // The same in every cluster. Where none is selected, nothing is shown.
        let Some(seen) = self.sight.0.values().next().cloned() else {
            return Ok(());
        };
        self.looks = self.looks.wrapping_add(1);
        if let Some(visible) = self.question().whole(&**hub).await? {
            return if visible == *seen { Ok(()) } else { Err(outdated()) };
        }
        let namespaces = self.namespaces_to_ask_about(&seen).await?;
        if self.question().among(&**hub, &namespaces).await? != *seen {
            return Err(outdated());
        }
        let refused = namespaces.into_iter().filter(|namespace| !shows(&seen, namespace));
        self.refused.extend(refused);
        Ok(())
    }

    async fn namespaces_to_ask_about(&mut self, seen: &Visibility) -> Result<BTreeSet<String>, Status> {
        let shown = seen.namespaces.iter().chain(seen.namespaced_names.keys());
        let mut namespaces: BTreeSet<String> = shown.cloned().collect();
        if self.looks.is_multiple_of(NEW_NAMESPACES) {
            if self.looks.is_multiple_of(ALL_NAMESPACES) {
                self.refused.clear();
            }
            let served = self.shape.served(&self.resource).ok_or_else(outdated)?;
            let (admitted, deadline) = (self.admitted(served), Instant::now() + PATIENCE);
            let act = self.question().act;
            let present = self.services.namespaces(act, &admitted, deadline).await?;
            let unknown = present
                .into_iter()
                .filter(|namespace| !self.refused.contains(namespace));
            namespaces.extend(unknown);
        }
        Ok(namespaces)
    }

    fn admitted<'a>(&self, served: &'a Served) -> Vec<&'a String> {
        served
            .copied()
            .filter(|cluster| self.selection.admits(cluster))
            .collect()
    }

    fn question(&self) -> Question<'_> {
        Question {
            user: &self.user,
            act: Act {
                verb: "watch",
                group: &self.resource.group,
                resource: &self.resource.resource,
            },
            extent: Extent {
                namespaced: self.namespaced,
                namespace: self.namespace.as_deref(),
                name: self.selection.name(),
            },
        }
    }
}

fn shows(seen: &Visibility, namespace: &str) -> bool {
    seen.namespaces.contains(namespace) || seen.namespaced_names.contains_key(namespace)
}

fn outdated() -> Status {
    Status::expired("the clusters of the view, or what you may see of them, have changed; list again")
}

/// When the hub's answers have to be looked at again.
enum Due {
    Told(watch::Receiver<()>),
    At(Instant),
}

impl Due {
    fn of(hub: &dyn HubPermissions) -> Self {
        match hub.changes() {
            PermissionChanges::Told(mut told) => {
                // What was judged may be older than the receiver.
                told.mark_changed();
                Self::Told(told)
            }
            PermissionChanges::Asked => Self::At(Instant::now() + wait()),
        }
    }

    /// Waits until it is time. Cancel safe.
    async fn wait(&mut self) {
        match self {
            // Who is gone changes no more.
            Self::Told(told) => {
                if told.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Self::At(instant) => {
                tokio::time::sleep_until(*instant).await;
                *instant = Instant::now() + wait();
            }
        }
    }
}

fn wait() -> Duration {
    PERIOD.mul_f64(1.0 - rand::random::<f64>() / 4.0)
}

struct Guarded {
    events: EventStream,
    changes: Changes,
    due: Due,
    vigil: Vigil,
}

/// The events until the caller's sight changes. Then 410: the client lists again, sees what it may see now and forgets the
/// rest. Changes are looked at before events, so that an event which is no longer to be seen is not sent after them.
pub(super) fn until_changed(events: EventStream, changes: Changes, vigil: Vigil) -> EventStream {
    let due = Due::of(&*vigil.hub);
    let begun = Some(Guarded {
        events,
        changes,
        due,
        vigil,
    });
    Box::pin(stream::unfold(begun, |state| async move {
        let mut state = state?;
        loop {
            let judged = tokio::select! {
                biased;
                () = state.changes.next() => state.vigil.still_right().await,
                () = state.due.wait() => state.vigil.look_again().await,
                event = state.events.next() => return event.map(|event| (event, Some(state))),
            };
            if let Err(status) = judged {
                return Some((Event::Error(Box::new(status)), None));
            }
        }
    }))
}
