//! A hub that decides by RBAC objects it was given: one that tells all, or one that answers single questions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_auth::rbac::{Attributes, Decision, RbacIndex, RbacKind, RbacObject, Visibility};

use super::super::{HubPermissions, PermissionChanges};
use crate::generic::authorization::Rules;

#[derive(Debug)]
pub(super) struct ScriptedHub {
    tells: bool,
    index: Mutex<RbacIndex>,
    changed: watch::Sender<()>,
    is_down: AtomicBool,
    /// Whether nobody may enter.
    is_closed: AtomicBool,
    questions: AtomicUsize,
}

impl ScriptedHub {
    pub(super) fn new(tells: bool) -> Arc<Self> {
        Arc::new(Self {
            tells,
            index: Mutex::default(),
            changed: watch::Sender::new(()),
            is_down: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            questions: AtomicUsize::new(0),
        })
    }

    /// Lets a user do something in a namespace, or everywhere for the empty one.
    pub(super) fn grant(&self, user: &str, namespace: &str, resources: &[&str], verbs: &[&str], names: &[&str]) {
        let (role, binding, kind) = if namespace.is_empty() {
            (RbacKind::ClusterRole, RbacKind::ClusterRoleBinding, "ClusterRole")
        } else {
            (RbacKind::Role, RbacKind::RoleBinding, "Role")
        };
        let metadata = json!({"name": user, "namespace": namespace});
        let rules = json!([{"apiGroups": ["core.view.umbra.dev"], "resources": resources, "verbs": verbs,
            "resourceNames": names}]);
        let objects = [
            (role, json!({"metadata": metadata, "rules": rules})),
            (
                binding,
                json!({"metadata": metadata, "subjects": [{"kind": "User", "name": user}],
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": user}}),
            ),
        ];
        for (kind, object) in objects {
            let object = RbacObject::from_json(kind, object.to_string().as_bytes()).unwrap();
            self.index.lock().upsert(object);
        }
        self.changed.send_replace(());
    }

    pub(super) fn revoke(&self, user: &str, namespace: &str) {
        let kind = if namespace.is_empty() {
            RbacKind::ClusterRoleBinding
        } else {
            RbacKind::RoleBinding
        };
        assert!(self.index.lock().remove(kind, namespace, user));
        self.changed.send_replace(());
    }

    pub(super) fn breaks_down(&self) {
        self.is_down.store(true, Ordering::Relaxed);
    }

    /// Lets nobody enter a view any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.changed.send_replace(());
    }

    /// How often it was asked about what is inside.
    pub(super) fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl HubPermissions for ScriptedHub {
    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<Decision, Status> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(Status::internal("the hub is down"));
        }
        if (attributes.verb, attributes.resource, attributes.subresource) == ("get", "views", "proxy") {
            assert_eq!((attributes.group, attributes.name), ("umbra.dev", "all"));
            let reason = String::new();
            return Ok(match self.is_closed.load(Ordering::Relaxed) {
                true => Decision::NoOpinion { reason },
                false => Decision::Allow { reason },
            });
        }
        self.questions.fetch_add(1, Ordering::Relaxed);
        Ok(self.index.lock().authorize(user, attributes))
    }

    fn visible(&self, user: &UserInfo, verb: &str, group: &str, resource: &str) -> Option<Visibility> {
        self.tells
            .then(|| self.index.lock().visible(user, verb, group, resource))
    }

    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules {
            unresolved: vec!["ask one by one".to_owned()],
            ..Rules::default()
        }
    }

    fn changes(&self) -> PermissionChanges {
        if self.tells {
            PermissionChanges::Told(self.changed.subscribe())
        } else {
            PermissionChanges::Asked
        }
    }
}
