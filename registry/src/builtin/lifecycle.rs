//! Admission that the built-in kinds rely on: objects live in namespaces that exist, and nobody grants what they do not
//! hold.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use umbra_apimachinery::gvk::{GroupResource, GroupVersionResource};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_auth::rbac::{Attributes, PolicyRule, RoleRef};
use umbra_storage::Store;

use crate::generic::admission::{Admission, Operation};
use crate::generic::authorization::RbacAuthorizer;
use crate::generic::codec;
use crate::generic::keys::Keys;
use crate::generic::metadata;
use crate::generic::store::storage_status;
use crate::request::RequestContext;

/// The API group of roles and bindings.
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Namespaces that cannot be deleted (`NamespaceLifecycle` of `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses objects for namespaces that are not there or are going.
#[derive(Debug, Clone)]
pub struct NamespaceLifecycle {
    store: Arc<dyn Store>,
    keys: Keys,
}

impl NamespaceLifecycle {
    /// Looks namespaces of `root` up in the store, so that one that was made just now counts.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, root: &str) -> Self {
        let keys = Keys::new(root, &namespaces(), false);
        Self { store, keys }
    }

    async fn check(&self, resource: &GroupVersionResource, namespace: &str, name: &str) -> Result<(), Status> {
        let key = self.keys.key(None, namespace);
        let response = self.store.get(&key).await.map_err(|error| storage_status(&error))?;
        let Some(entry) = response.entry else {
            return Err(Status::not_found(&namespaces(), namespace));
        };
        let found = codec::decode(&entry.value, entry.revision.0).map_err(Status::internal)?;
        if !metadata::is_deleting(&found) {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let status = Status::forbidden(&resource.group_resource(), name, &why);
        let message = format!("namespace {namespace} is being terminated");
        Err(status.cause("NamespaceTerminating", message, "metadata.namespace"))
    }
}

fn namespaces() -> GroupResource {
    GroupResource::new("", "namespaces")
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    async fn admit(
        &self,
        _context: &RequestContext,
        operation: Operation,
        resource: &GroupVersionResource,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Status> {
        let is_namespace = resource.group_resource() == namespaces();
        match operation {
            Operation::Delete if is_namespace && IMMORTAL.contains(&object.name()) => Err(Status::forbidden(
                &namespaces(),
                object.name(),
                "this namespace may not be deleted",
            )),
            Operation::Create if !is_namespace && !object.namespace().is_empty() => {
                self.check(resource, object.namespace(), object.name()).await
            }
            _ => Ok(()),
        }
    }
}

/// Refuses roles and bindings that grant more than their author holds, unless the author may `escalate` the role or `bind`
/// it (`pkg/registry/rbac/*/policybased/storage.go`).
#[derive(Debug, Clone)]
pub struct EscalationCheck {
    authorizer: Arc<RbacAuthorizer>,
}

impl EscalationCheck {
    /// Compares with the rules that `authorizer` has in force.
    #[must_use]
    pub fn new(authorizer: Arc<RbacAuthorizer>) -> Self {
        Self { authorizer }
    }

    /// What the object would grant; nothing where it grants no more than before.
    fn wanted(&self, object: &Value, old: Option<&Value>) -> Result<Vec<PolicyRule>, Status> {
        let same = |field: &str| old.is_some_and(|old| old[field] == object[field]);
        match object["kind"].as_str().unwrap_or_default() {
            "Role" | "ClusterRole" if same("rules") && same("aggregationRule") => Ok(Vec::new()),
            "Role" | "ClusterRole" if !object["aggregationRule"].is_null() => {
                // Whatever will carry the labels is granted.
                let all = || vec!["*".to_owned()];
                Ok(vec![PolicyRule {
                    verbs: all(),
                    api_groups: all(),
                    resources: all(),
                    ..PolicyRule::default()
                }])
            }
            "Role" | "ClusterRole" => {
                let rules = object["rules"].clone();
                let rules: Option<Vec<PolicyRule>> = serde_json::from_value(rules)
                    .map_err(|error| Status::bad_request(format!("the rules cannot be read: {error}")))?;
                Ok(rules.unwrap_or_default())
            }
            _ if same("subjects") && same("roleRef") => Ok(Vec::new()),
            _ => {
                let role: RoleRef = serde_json::from_value(object["roleRef"].clone())
                    .map_err(|error| Status::bad_request(format!("roleRef cannot be read: {error}")))?;
                let index = self.authorizer.index();
                // A role that does not exist grants nothing yet, but may one day: only who may bind it is let through.
                index
                    .role_rules(&role, object.namespace())
                    .map(<[PolicyRule]>::to_vec)
                    .map_err(|missing| Status::forbidden(&roles_of(&role), &role.name, missing))
            }
        }
    }

    /// Whether the author was given the right to grant this without holding it.
    fn exempt(&self, context: &RequestContext, object: &Value) -> bool {
        let (verb, resource, name) = match object["kind"].as_str().unwrap_or_default() {
            "Role" => ("escalate", "roles", object.name()),
            "ClusterRole" => ("escalate", "clusterroles", object.name()),
            _ => {
                let role = &object["roleRef"];
                let resource = if role["kind"] == "Role" {
                    "roles"
                } else {
                    "clusterroles"
                };
                ("bind", resource, role["name"].as_str().unwrap_or_default())
            }
        };
        let attributes = Attributes::resource(verb, RBAC_GROUP, resource, object.namespace(), name);
        self.authorizer
            .index()
            .authorize(&context.user, &attributes)
            .is_allowed()
    }
}

fn roles_of(role: &RoleRef) -> GroupResource {
    let resource = if role.kind == "Role" { "roles" } else { "clusterroles" };
    GroupResource::new(RBAC_GROUP, resource)
}

#[async_trait]
impl Admission for EscalationCheck {
    async fn admit(
        &self,
        context: &RequestContext,
        operation: Operation,
        resource: &GroupVersionResource,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if resource.group != RBAC_GROUP || operation == Operation::Delete || self.exempt(context, object) {
            return Ok(());
        }
        let wanted = self.wanted(object, old)?;
        self.authorizer
            .index()
            .confirm_no_escalation(&context.user, object.namespace(), &wanted)
            .map_err(|error| Status::forbidden(&resource.group_resource(), object.name(), error))
    }
}
