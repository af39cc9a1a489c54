//! Who may do what in a root that decides by its own RBAC objects.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::UserInfo;
use umbra_auth::rbac::{Attributes, PolicyRule, RbacIndex, RbacKind, RbacObject};
use umbra_storage::cache::{EventKind, WatchFrom};
use umbra_storage::{Cache, CacheEvent, CacheWatch};

use super::indexer::{Lifecycle, StoredIndexer, StoredObject};

/// Decides requests.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Whether it is allowed, and why or why not.
    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Verdict;

    /// The rules that apply to a user in a namespace, for `SelfSubjectRulesReview`.
    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules;
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, or what could not be evaluated; may be empty.
    pub reason: String,
}

/// What applies to a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// The rules, possibly repeated.
    pub rules: Vec<PolicyRule>,
    /// What could not be resolved; the rules may be incomplete then.
    pub unresolved: Vec<String>,
}

/// Allows everything: for roots whose doors are guarded elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn decide(&self, _user: &UserInfo, _attributes: &Attributes<'_>) -> Verdict {
        Verdict {
            allowed: true,
            reason: String::new(),
        }
    }

    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules {
            rules: everything(),
            unresolved: Vec::new(),
        }
    }
}

/// The rules of who may do everything.
fn everything() -> Vec<PolicyRule> {
    let all = || vec!["*".to_owned()];
    vec![
        PolicyRule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..PolicyRule::default()
        },
        PolicyRule {
            verbs: all(),
            non_resource_urls: all(),
            ..PolicyRule::default()
        },
    ]
}

/// Decides by RBAC objects that a task keeps reading from the root's caches. Members of `system:masters` may do
/// everything.
#[derive(Debug)]
pub struct RbacAuthorizer {
    index: ArcSwap<RbacIndex>,
    changed: watch::Sender<()>,
}

impl RbacAuthorizer {
    /// An authorizer that allows nothing to anybody but `system:masters` until [`RbacAuthorizer::follow`] has read
    /// something.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            index: ArcSwap::from_pointee(empty()),
            changed: watch::Sender::new(()),
        })
    }

    /// The rules in force.
    #[must_use]
    pub fn index(&self) -> Arc<RbacIndex> {
        self.index.load_full()
    }

    /// Changes whenever the rules in force may have.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn publish(&self, index: &RbacIndex) {
        self.index.store(Arc::new(index.clone()));
        self.changed.send_replace(());
    }

    /// Follows the four RBAC resources in `caches` until `cancelled`, in a task of `tracker`.
    pub fn follow(
        self: &Arc<Self>,
        caches: Vec<(RbacKind, Arc<Cache<StoredIndexer>>)>,
        tracker: &TaskTracker,
        cancelled: CancellationToken,
    ) {
        let authorizer = Arc::clone(self);
        tracker.spawn(async move {
            let follow = async {
                loop {
                    authorizer.follow_until_error(&caches).await;
                    // The caches start over; what is known stays in force meanwhile.
                    tokio::time::sleep(Duration::from_millis(100).mul_f64(rand::random())).await;
                }
            };
            cancelled.run_until_cancelled(follow).await;
        });
    }

    async fn follow_until_error(&self, caches: &[(RbacKind, Arc<Cache<StoredIndexer>>)]) {
        let mut index = empty();
        let mut watches = Vec::new();
        for (kind, cache) in caches {
            if cache.ready(Instant::now() + Duration::from_secs(60)).await.is_err() {
                return;
            }
            let begun = cache.snapshot_and_watch(cache.prefix(), WatchFrom::Now, BUFFER);
            let Ok((snapshot, watch)) = begun else { return };
            for object in &snapshot {
                upsert(&mut index, *kind, object);
            }
            watches.push(next(*kind, watch));
        }
        self.publish(&index);
        let mut events: FuturesUnordered<_> = watches.into_iter().collect();
        while let Some((kind, event, watch)) = events.next().await {
            let Some(event) = event else { return };
            match event.kind {
                EventKind::Put => upsert(&mut index, kind, &event.object),
                EventKind::Delete => {
                    index.remove(kind, &event.object.namespace, &event.object.name);
                }
            }
            self.publish(&index);
            events.push(next(kind, watch));
        }
    }
}

/// Changes of RBAC objects that may wait: they are applied faster than any store writes them.
const BUFFER: usize = 1_000;

type Next = (RbacKind, Option<Arc<CacheEvent<Lifecycle>>>, CacheWatch<StoredIndexer>);

async fn next(kind: RbacKind, mut watch: CacheWatch<StoredIndexer>) -> Next {
    let event = watch.next().await.and_then(Result::ok);
    (kind, event, watch)
}

fn empty() -> RbacIndex {
    RbacIndex::new().with_masters_bypass().with_aggregation()
}

fn upsert(index: &mut RbacIndex, kind: RbacKind, object: &StoredObject) {
    match RbacObject::from_json(kind, &object.bytes) {
        Ok(object) => index.upsert(object),
        Err(error) => tracing::error!(key = %object.key, %error, "an RBAC object cannot be read and grants nothing"),
    }
}

#[async_trait]
impl Authorizer for RbacAuthorizer {
    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Verdict {
        let decision = self.index.load().authorize(user, attributes);
        Verdict {
            allowed: decision.is_allowed(),
            reason: decision.reason().to_owned(),
        }
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        if user.in_group(umbra_apimachinery::user::MASTERS) {
            return AllowAll.rules(user, namespace).await;
        }
        let index = self.index.load();
        let effective = index.rules_for(user, namespace);
        Rules {
            rules: effective.rules.into_iter().cloned().collect(),
            unresolved: effective.unresolved,
        }
    }
}

/// What a request wants to do.
#[must_use]
pub fn attributes(info: &RequestInfo) -> Attributes<'_> {
    if !info.is_resource_request {
        return Attributes::path(&info.verb, &info.path);
    }
    Attributes {
        verb: &info.verb,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        // As kube-apiserver: who may list one object may list it by its name.
        name: if info.name.is_empty() {
            &info.selected_name
        } else {
            &info.name
        },
        path: "",
        is_resource_request: true,
    }
}

/// 403 as kube-apiserver words it (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`).
#[must_use]
pub fn forbidden(user: &UserInfo, attributes: &Attributes<'_>, reason: &str) -> Status {
    let because = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    if !attributes.is_resource_request {
        let message = format!(
            "forbidden: User \"{}\" cannot {} path \"{}\"{because}",
            user.name, attributes.verb, attributes.path
        );
        return Status::failure(Reason::Forbidden, message);
    }
    let resource = if attributes.subresource.is_empty() {
        attributes.resource.to_owned()
    } else {
        format!("{}/{}", attributes.resource, attributes.subresource)
    };
    let scope = if attributes.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", attributes.namespace)
    };
    let why = format!(
        "User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {scope}{because}",
        user.name, attributes.verb, attributes.group
    );
    Status::forbidden(
        &GroupResource::new(attributes.group, attributes.resource),
        attributes.name,
        why,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_for_a_name_count_for_lists_of_it() {
        let name = |method: &str, path: &str, query: &str| {
            let info = RequestInfo::parse(method, path, query);
            let attributes = attributes(&info);
            (attributes.verb.to_owned(), attributes.name.to_owned())
        };
        let (collection, one) = ("/apis/umbra.dev/v1alpha1/views", "/apis/umbra.dev/v1alpha1/views/all");
        let list = name("GET", collection, "watch=1&fieldSelector=metadata.name%3Dall");
        assert_eq!(list, ("watch".to_owned(), "all".to_owned()));
        assert_eq!(name("GET", collection, "").1, "");
        assert_eq!(name("DELETE", collection, "fieldSelector=metadata.name%3Dall").1, "");
        assert_eq!(name("GET", one, "fieldSelector=metadata.name%3Dother").1, "all");
    }
}
