//! The RBAC objects of one cluster, indexed by subject.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use umbra_apimachinery::user::{MASTERS, UserInfo};

use super::aggregation::{StoredClusterRole, aggregate};
use super::decision::{Decision, EffectiveRules, describe_unresolved};
use super::escalation::{EscalationError, covers};
use super::matching::Attributes;
use super::types::{PolicyRule, RbacKind, RbacObject, RoleRef, Subject};
use super::visibility::Visibility;
use crate::service_account;

/// A binding of either kind; the namespace is empty for a cluster role binding.
#[derive(Debug)]
struct Binding {
    namespace: String,
    name: String,
    subjects: Vec<Subject>,
    role_ref: RoleRef,
}

/// The bindings of one user name or group: names by namespace; the empty namespace holds the cluster role bindings and
/// sorts first, which is the order in which Kubernetes looks.
type Bindings = BTreeMap<String, BTreeMap<String, Arc<Binding>>>;

/// The RBAC objects of one cluster. Cloning is shallow.
#[derive(Debug, Clone, Default)]
pub struct RbacIndex {
    roles: BTreeMap<String, BTreeMap<String, Arc<[PolicyRule]>>>,
    cluster_roles: BTreeMap<String, StoredClusterRole>,
    bindings: Bindings,
    by_user: HashMap<String, Bindings>,
    by_group: HashMap<String, Bindings>,
    /// Collect aggregated cluster roles here, because no controller does.
    aggregates: bool,
    /// `system:masters` may do everything.
    masters_bypass: bool,
    generation: u64,
}

impl RbacIndex {
    /// An empty index of a cluster whose cluster roles arrive aggregated, where no group is above RBAC: for the copies of
    /// a child, evaluated for what is forwarded of a caller's identity.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same index, in which members of `system:masters` may do everything, as every kube-apiserver lets them. Right for
    /// the hub, and for a child where that group is really forwarded.
    #[must_use]
    pub fn with_masters_bypass(mut self) -> Self {
        self.masters_bypass = true;
        self
    }

    /// The same index, which collects the rules of aggregated cluster roles itself. For the hub's own roles.
    #[must_use]
    pub fn with_aggregation(mut self) -> Self {
        self.aggregates = true;
        aggregate(&mut self.cluster_roles);
        self
    }

    /// Counts the changes: equal numbers of one index mean equal decisions.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds or replaces an object.
    pub fn upsert(&mut self, object: RbacObject) {
        self.generation += 1;
        match object {
            RbacObject::Role(role) => {
                let roles = self.roles.entry(role.metadata.namespace).or_default();
                roles.insert(role.metadata.name, role.rules.into());
            }
            RbacObject::ClusterRole(role) => {
                let rules = role.rules.clone().into();
                let object = Arc::new(role);
                let name = object.metadata.name.clone();
                self.cluster_roles.insert(name, StoredClusterRole { object, rules });
                self.cluster_roles_changed();
            }
            RbacObject::RoleBinding(binding) => self.bind(Binding {
                namespace: binding.metadata.namespace,
                name: binding.metadata.name,
                subjects: binding.subjects,
                role_ref: binding.role_ref,
            }),
            RbacObject::ClusterRoleBinding(binding) => self.bind(Binding {
                namespace: String::new(),
                name: binding.metadata.name,
                subjects: binding.subjects,
                role_ref: binding.role_ref,
            }),
        }
    }

    /// Removes an object; `namespace` is ignored for cluster-scoped kinds. Returns whether it was there.
    pub fn remove(&mut self, kind: RbacKind, namespace: &str, name: &str) -> bool {
        let found = match kind {
            RbacKind::Role => remove_nested(&mut self.roles, namespace, name).is_some(),
            RbacKind::ClusterRole => {
                let found = self.cluster_roles.remove(name).is_some();
                self.cluster_roles_changed();
                found
            }
            RbacKind::RoleBinding => !namespace.is_empty() && self.unbind(namespace, name),
            RbacKind::ClusterRoleBinding => self.unbind("", name),
        };
        self.generation += u64::from(found);
        found
    }

    /// Decides one request.
    #[must_use]
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        if self.is_master(user) {
            return Decision::Allow { reason: String::new() };
        }
        let mut unresolved = BTreeSet::new();
        for binding in self.bindings_in(user, attributes.namespace) {
            match self.rules_of(binding) {
                Ok(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    return Decision::Allow {
                        reason: format!("RBAC: allowed by {}", describe(binding, user)),
                    };
                }
                Ok(_) => {}
                Err(missing) => {
                    unresolved.insert(missing);
                }
            }
        }
        Decision::NoOpinion {
            reason: describe_unresolved(unresolved),
        }
    }

    /// Everything of one resource that `verb` is allowed on: agrees with [`Self::authorize`] for every namespace and
    /// name. `resource` may carry a subresource, as `pods/log`.
    #[must_use]
    pub fn visible(&self, user: &UserInfo, verb: &str, group: &str, resource: &str) -> Visibility {
        if self.is_master(user) {
            return Visibility::everything();
        }
        let attributes = Attributes::resource(verb, group, resource, "", "");
        let mut visibility = Visibility::default();
        // One cluster role is often bound in very many namespaces: it is judged once.
        let mut judged: HashMap<*const PolicyRule, Grant<'_>> = HashMap::new();
        for (namespace, bindings) in self.bindings_of(user).flatten() {
            for binding in bindings.values() {
                let Ok(rules) = self.rules_of(binding) else { continue };
                let grant = judged
                    .entry(rules.as_ptr())
                    .or_insert_with(|| Grant::of(rules, &attributes));
                grant.add_to(&mut visibility, namespace);
            }
        }
        visibility
    }

    /// The rules that apply to an identity in a namespace; the empty namespace is cluster-wide. What
    /// `SelfSubjectRulesReview` reports.
    #[must_use]
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> EffectiveRules<'_> {
        let mut effective = EffectiveRules::default();
        let mut unresolved = BTreeSet::new();
        for binding in self.bindings_in(user, namespace) {
            match self.rules_of(binding) {
                Ok(rules) => effective.rules.extend(rules),
                Err(missing) => {
                    unresolved.insert(missing);
                }
            }
        }
        effective.unresolved = unresolved.into_iter().collect();
        effective
    }

    /// The rules that a binding to this role would grant. `namespace` is that of the binding.
    ///
    /// # Errors
    /// Where there is no such role: what kube-apiserver says then.
    pub fn role_rules(&self, role_ref: &RoleRef, namespace: &str) -> Result<&[PolicyRule], String> {
        let (rules, kind) = match role_ref.kind.as_str() {
            "Role" => (
                self.roles.get(namespace).and_then(|roles| roles.get(&role_ref.name)),
                "role",
            ),
            "ClusterRole" => (
                self.cluster_roles.get(&role_ref.name).map(|role| &role.rules),
                "clusterrole",
            ),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        rules
            .map(AsRef::as_ref)
            .ok_or_else(|| format!("{kind}.rbac.authorization.k8s.io {:?} not found", role_ref.name))
    }

    /// Whether an identity may grant these rules in a namespace: it has to hold them all. Members of `system:masters` may
    /// where they are above RBAC.
    ///
    /// # Errors
    /// Which permissions are missing.
    pub fn confirm_no_escalation(
        &self,
        user: &UserInfo,
        namespace: &str,
        wanted: &[PolicyRule],
    ) -> Result<(), EscalationError> {
        if self.is_master(user) {
            return Ok(());
        }
        let held = self.rules_for(user, namespace);
        covers(held.rules.iter().copied(), wanted)
            .map_err(|missing| EscalationError::new(&user.name, &user.groups, &missing, &held.unresolved))
    }

    /// The rules that an aggregated cluster role has collected, or its own.
    #[must_use]
    pub fn cluster_role_rules(&self, name: &str) -> Option<&[PolicyRule]> {
        self.cluster_roles.get(name).map(|role| role.rules.as_ref())
    }

    fn is_master(&self, user: &UserInfo) -> bool {
        self.masters_bypass && user.in_group(MASTERS)
    }

    /// The bindings of the user and of each of its groups. One binding may come more than once.
    fn bindings_of(&self, user: &UserInfo) -> impl Iterator<Item = &Bindings> {
        let groups = user.groups.iter().filter_map(|group| self.by_group.get(group));
        self.by_user.get(&user.name).into_iter().chain(groups)
    }

    /// The bindings that count in a namespace, cluster role bindings first.
    fn bindings_in<'a>(&'a self, user: &UserInfo, namespace: &str) -> impl Iterator<Item = &'a Binding> {
        let found: Vec<&Bindings> = self.bindings_of(user).collect();
        let mut ordered: Vec<&BTreeMap<String, Arc<Binding>>> = found.iter().filter_map(|one| one.get("")).collect();
        if !namespace.is_empty() {
            ordered.extend(found.iter().filter_map(|one| one.get(namespace)));
        }
        ordered.into_iter().flat_map(BTreeMap::values).map(AsRef::as_ref)
    }

    fn rules_of(&self, binding: &Binding) -> Result<&[PolicyRule], String> {
        self.role_rules(&binding.role_ref, &binding.namespace)
    }

    fn cluster_roles_changed(&mut self) {
        if self.aggregates {
            aggregate(&mut self.cluster_roles);
        }
    }

    fn bind(&mut self, binding: Binding) {
        self.unbind(&binding.namespace, &binding.name);
        let binding = Arc::new(binding);
        for subject in &binding.subjects {
            let Some((index, key)) = self.subject_index(subject, &binding.namespace) else {
                continue;
            };
            insert_nested(index.entry(key).or_default(), &binding);
        }
        insert_nested(&mut self.bindings, &binding);
    }

    fn unbind(&mut self, namespace: &str, name: &str) -> bool {
        let Some(binding) = remove_nested(&mut self.bindings, namespace, name) else {
            return false;
        };
        for subject in &binding.subjects {
            let Some((index, key)) = self.subject_index(subject, namespace) else {
                continue;
            };
            if let Some(bindings) = index.get_mut(&key) {
                remove_nested(bindings, namespace, name);
                if bindings.is_empty() {
                    index.remove(&key);
                }
            }
        }
        true
    }

    /// Where the bindings of a subject are kept; `None` where it denotes nobody.
    fn subject_index(
        &mut self,
        subject: &Subject,
        binding_namespace: &str,
    ) -> Option<(&mut HashMap<String, Bindings>, String)> {
        match subject.kind.as_str() {
            "User" => Some((&mut self.by_user, subject.name.clone())),
            "Group" => Some((&mut self.by_group, subject.name.clone())),
            "ServiceAccount" => {
                let username = service_account_username(subject, binding_namespace)?;
                Some((&mut self.by_user, username))
            }
            _ => None,
        }
    }
}

/// What one role grants of one verb on one resource.
struct Grant<'a> {
    all: bool,
    names: Vec<&'a str>,
}

impl<'a> Grant<'a> {
    fn of(rules: &'a [PolicyRule], attributes: &Attributes<'_>) -> Self {
        let mut grant = Self {
            all: false,
            names: Vec::new(),
        };
        for rule in rules.iter().filter(|rule| rule.matches_kind_of_request(attributes)) {
            grant.all |= rule.resource_names.is_empty();
            grant.names.extend(rule.resource_names.iter().map(String::as_str));
        }
        grant
    }

    fn add_to(&self, visibility: &mut Visibility, namespace: &str) {
        if self.all {
            visibility.add_all(namespace);
            return;
        }
        for name in &self.names {
            visibility.add_name(namespace, name);
        }
    }
}

/// The user name that a service account subject denotes. In a cluster role binding without a namespace: nobody.
fn service_account_username(subject: &Subject, binding_namespace: &str) -> Option<String> {
    let namespace = if subject.namespace.is_empty() {
        binding_namespace
    } else {
        &subject.namespace
    };
    (!namespace.is_empty()).then(|| service_account::username(namespace, &subject.name))
}

fn applies_to(subject: &Subject, binding_namespace: &str, user: &UserInfo) -> bool {
    match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.in_group(&subject.name),
        "ServiceAccount" => service_account_username(subject, binding_namespace).is_some_and(|name| name == user.name),
        _ => false,
    }
}

/// Names a binding as kube-apiserver's audit annotation does.
fn describe(binding: &Binding, user: &UserInfo) -> String {
    let subject = binding
        .subjects
        .iter()
        .find(|subject| applies_to(subject, &binding.namespace, user));
    let subject = match subject {
        Some(subject) if subject.kind == "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() {
                &binding.namespace
            } else {
                &subject.namespace
            };
            format!("ServiceAccount \"{}/{namespace}\"", subject.name)
        }
        Some(subject) => format!("{} {:?}", subject.kind, subject.name),
        None => String::new(),
    };
    let (kind, name) = if binding.namespace.is_empty() {
        ("ClusterRoleBinding", binding.name.clone())
    } else {
        ("RoleBinding", format!("{}/{}", binding.name, binding.namespace))
    };
    let role = &binding.role_ref;
    format!("{kind} {name:?} of {} {:?} to {subject}", role.kind, role.name)
}

fn insert_nested(bindings: &mut Bindings, binding: &Arc<Binding>) {
    bindings
        .entry(binding.namespace.clone())
        .or_default()
        .insert(binding.name.clone(), Arc::clone(binding));
}

fn remove_nested<T>(map: &mut BTreeMap<String, BTreeMap<String, T>>, namespace: &str, name: &str) -> Option<T> {
    let names = map.get_mut(namespace)?;
    let removed = names.remove(name);
    if names.is_empty() {
        map.remove(namespace);
    }
    removed
}
