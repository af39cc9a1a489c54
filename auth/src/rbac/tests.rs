use proptest::prelude::*;
use umbra_apimachinery::selector::LabelSelector;
use umbra_apimachinery::user::{AUTHENTICATED, UserInfo};

use super::*;

fn strings(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

/// As `newRule` of Kubernetes' tests: every list, also one with an empty string.
fn rule(verbs: &str, groups: &str, resources: &str, urls: &str) -> PolicyRule {
    PolicyRule {
        verbs: strings(verbs),
        api_groups: strings(groups),
        resources: strings(resources),
        resource_names: Vec::new(),
        non_resource_urls: strings(urls),
    }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ..ObjectMeta::default()
    }
}

fn cluster_role(name: &str, rules: Vec<PolicyRule>) -> RbacObject {
    RbacObject::ClusterRole(ClusterRole {
        metadata: metadata("", name),
        rules,
        aggregation_rule: None,
    })
}

fn subjects(list: &[&str]) -> Vec<Subject> {
    list.iter()
        .map(|subject| {
            let (kind, name) = subject.split_once(':').unwrap();
            Subject {
                kind: kind.to_owned(),
                name: name.to_owned(),
                ..Subject::default()
            }
        })
        .collect()
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: types::GROUP.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

fn cluster_binding(name: &str, role: &str, list: &[&str]) -> RbacObject {
    RbacObject::ClusterRoleBinding(ClusterRoleBinding {
        metadata: metadata("", name),
        subjects: subjects(list),
        role_ref: role_ref("ClusterRole", role),
    })
}

fn binding(namespace: &str, name: &str, kind: &str, role: &str, list: &[&str]) -> RbacObject {
    RbacObject::RoleBinding(RoleBinding {
        metadata: metadata(namespace, name),
        subjects: subjects(list),
        role_ref: role_ref(kind, role),
    })
}

fn index(objects: Vec<RbacObject>) -> RbacIndex {
    let mut index = RbacIndex::new();
    for object in objects {
        index.upsert(object);
    }
    index
}

fn user(name: &str, groups: &str) -> UserInfo {
    UserInfo::new(name, strings(groups))
}

/// `TestAuthorizer`, first case.
#[test]
fn a_cluster_role_bound_in_a_namespace() {
    let index = index(vec![
        cluster_role("admin", vec![rule("*", "*", "*", "*")]),
        binding("ns1", "b", "ClusterRole", "admin", &["User:admin", "Group:admins"]),
    ]);
    let allowed = |name, groups, verb, resource, namespace| {
        let attributes = Attributes::resource(verb, "", resource, namespace, "");
        index.authorize(&user(name, groups), &attributes).is_allowed()
    };
    assert!(allowed("admin", "", "get", "Pods", "ns1"));
    assert!(allowed("admin", "group1", "watch", "Foobar", "ns1"));
    assert!(allowed("joe", "admins", "watch", "Foobar", "ns1"));
    assert!(allowed("joe", "group1,admins", "watch", "Foobar", "ns1"));
    assert!(!allowed("admin", "", "GET", "Pods", "ns2"));
    assert!(!allowed("admin", "", "GET", "Nodes", ""));
    assert!(!allowed("joe", "group1", "get", "Pods", "ns1"));
}

/// `TestAuthorizer`, second case, and `TestRuleMatches` on URLs.
#[test]
fn paths() {
    let index = index(vec![
        cluster_role("getter", vec![rule("get", "", "", "/apis")]),
        cluster_role("any", vec![rule("*", "", "", "/apis")]),
        cluster_role("prefix", vec![rule("get", "", "", "/apis/*")]),
        cluster_role("everything", vec![rule("get", "", "", "*")]),
        cluster_binding("a", "getter", &["User:foo", "Group:bar"]),
        cluster_binding("b", "any", &["User:admin"]),
        cluster_binding("c", "prefix", &["User:prefixed"]),
        cluster_binding("d", "everything", &["User:all"]),
    ]);
    let allowed = |name, verb, path| {
        index
            .authorize(&user(name, "none"), &Attributes::path(verb, path))
            .is_allowed()
    };
    assert!(allowed("foo", "get", "/apis"));
    assert!(!allowed("foo", "watch", "/apis"));
    assert!(!allowed("foo", "get", "/api/v1"));
    assert!(allowed("admin", "watch", "/apis"));
    assert!(allowed("prefixed", "get", "/apis/v1/foobar"));
    assert!(!allowed("prefixed", "get", "/apis"));
    assert!(!allowed("prefixed", "get", "/api/v1"));
    assert!(allowed("all", "get", "/metrics"));
    let by_group = index.authorize(&user("x", "bar"), &Attributes::path("get", "/apis"));
    assert!(by_group.is_allowed());
}

/// `TestAuthorizer`, third and fourth case, and `TestRuleMatches` on subresources.
#[test]
fn subresources() {
    let allowed = |rules: &str, resource: &str| {
        rule("*", "*", rules, "x").allows(&Attributes::resource("get", "", resource, "ns1", ""))
    };
    assert!(allowed("pods", "pods"));
    assert!(!allowed("pods", "pods/status"));
    assert!(allowed("pods/status,*/scale", "pods/status"));
    assert!(allowed("pods/status,*/scale", "anything/scale"));
    assert!(!allowed("pods/status,*/scale", "pods"));
    assert!(!allowed("pods/*", "pods/log"), "only the parent may be a star");
    assert!(!allowed("*/scale", "pods/xscale"));
    assert!(allowed("*", "pods/log"));
}

#[test]
fn names_and_groups() {
    let named = PolicyRule {
        resource_names: strings("a,b"),
        ..rule("get", "apps", "deployments", "x")
    };
    let allowed = |group, name| named.allows(&Attributes::resource("get", group, "deployments", "ns", name));
    assert!(allowed("apps", "a"));
    assert!(!allowed("apps", "c"));
    assert!(!allowed("apps", ""), "a collection has no name");
    assert!(!allowed("", "a"));
    assert!(!named.allows(&Attributes::path("get", "/a")));
}

/// `TestAppliesTo`.
#[test]
fn subjects_of_all_kinds() {
    let account = |name: &str, namespace: &str| Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ..Subject::default()
    };
    let everything = || cluster_role("all", vec![rule("*", "*", "*", "*")]);
    let in_namespace = |subject: Subject| {
        index(vec![
            everything(),
            RbacObject::RoleBinding(RoleBinding {
                metadata: metadata("default", "b"),
                subjects: vec![subject],
                role_ref: role_ref("ClusterRole", "all"),
            }),
        ])
    };
    let request = Attributes::resource("get", "", "pods", "default", "");
    let allowed = |index: &RbacIndex, name, groups| index.authorize(&user(name, groups), &request).is_allowed();

    let star = in_namespace(subjects(&["User:*"]).remove(0));
    assert!(!allowed(&star, "foobar", "x"), "a star is no wildcard");
    let everyone = in_namespace(subjects(&["Group:system:authenticated"]).remove(0));
    assert!(allowed(&everyone, "foobar", AUTHENTICATED));
    let elsewhere = in_namespace(account("default", "kube-system"));
    assert!(allowed(&elsewhere, "system:serviceaccount:kube-system:default", "x"));
    assert!(!allowed(&elsewhere, "system:serviceaccount:default:default", "x"));
    let here = in_namespace(account("web", ""));
    assert!(allowed(&here, "system:serviceaccount:default:web", "x"));

    let cluster_wide = |subject: Subject| {
        index(vec![
            everything(),
            RbacObject::ClusterRoleBinding(ClusterRoleBinding {
                metadata: metadata("", "b"),
                subjects: vec![subject],
                role_ref: role_ref("ClusterRole", "all"),
            }),
        ])
    };
    let nowhere = cluster_wide(account("web", ""));
    assert!(!allowed(&nowhere, "system:serviceaccount:default:web", "x"));
    assert!(!allowed(&nowhere, "system:serviceaccount::web", "x"));
    assert!(allowed(
        &cluster_wide(account("web", "a")),
        "system:serviceaccount:a:web",
        "x"
    ));
}

#[test]
fn reasons_name_the_binding_or_the_missing_role() {
    let mut index = index(vec![
        cluster_role("reader", vec![rule("get", "", "pods", "x")]),
        binding("ns1", "b", "ClusterRole", "reader", &["User:alice"]),
        binding("ns1", "c", "Role", "gone", &["User:bob"]),
        cluster_binding("d", "gone", &["User:bob", "Group:dev"]),
    ]);
    let request = Attributes::resource("get", "", "pods", "ns1", "p");
    let alice = index.authorize(&user("alice", "x"), &request);
    assert_eq!(
        alice.reason(),
        r#"RBAC: allowed by RoleBinding "b/ns1" of ClusterRole "reader" to User "alice""#
    );
    let bob = index.authorize(&user("bob", "dev"), &request);
    assert_eq!(
        bob.reason(),
        r#"RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, role.rbac.authorization.k8s.io "gone" not found]"#
    );
    assert_eq!(index.rules_for(&user("bob", "dev"), "ns1").unresolved.len(), 2);

    assert!(index.remove(RbacKind::RoleBinding, "ns1", "b"));
    assert!(!index.remove(RbacKind::RoleBinding, "ns1", "b"));
    assert_eq!(index.authorize(&user("alice", "x"), &request).reason(), "");
}

#[test]
fn masters_only_where_the_index_says_so() {
    let root = user("root", "system:masters");
    let request = Attributes::resource("delete", "", "nodes", "", "n");
    assert!(!RbacIndex::new().authorize(&root, &request).is_allowed());
    assert!(RbacIndex::new().visible(&root, "list", "", "nodes").is_nothing());
    let hub = RbacIndex::new().with_masters_bypass();
    assert!(hub.authorize(&root, &request).is_allowed());
    assert!(hub.visible(&root, "list", "", "nodes").all_namespaces);
    assert!(!hub.authorize(&user("root", "masters"), &request).is_allowed());
}

#[test]
fn a_binding_that_changes_leaves_nothing_behind() {
    let reader = || cluster_role("reader", vec![rule("list", "", "pods", "x")]);
    let mut index = index(vec![
        reader(),
        binding("ns1", "b", "ClusterRole", "reader", &["User:alice", "Group:dev"]),
        binding("ns1", "b", "ClusterRole", "reader", &["User:bob"]),
    ]);
    let sees = |index: &RbacIndex, name: &str| !index.visible(&user(name, "dev"), "list", "", "pods").is_nothing();
    assert!(!sees(&index, "alice"));
    assert!(sees(&index, "bob"));
    index.remove(RbacKind::ClusterRole, "", "reader");
    assert!(!sees(&index, "bob"), "roles are looked up when they are needed");
    let generation = index.generation();
    index.upsert(reader());
    assert!(sees(&index, "bob"));
    assert!(index.generation() > generation);
}

#[test]
fn aggregation_follows_labels_through_levels() {
    let labelled = |name: &str, labels: &[&str], rules: Vec<PolicyRule>, selects: &[&str]| {
        let mut role = ClusterRole {
            metadata: metadata("", name),
            rules,
            aggregation_rule: None,
        };
        role.metadata.labels = labels
            .iter()
            .map(|label| ((*label).to_owned(), "true".to_owned()))
            .collect();
        if !selects.is_empty() {
            let selectors = selects.iter().map(|label| LabelSelector {
                match_labels: [((*label).to_owned(), "true".to_owned())].into(),
                match_expressions: Vec::new(),
            });
            role.aggregation_rule = Some(AggregationRule {
                cluster_role_selectors: selectors.collect(),
            });
        }
        RbacObject::ClusterRole(role)
    };
    let mut index = RbacIndex::new().with_aggregation();
    index.upsert(labelled("admin", &[], vec![rule("stale", "", "x", "y")], &["to-admin"]));
    index.upsert(labelled("edit", &["to-admin"], Vec::new(), &["to-edit"]));
    index.upsert(labelled(
        "pods",
        &["to-edit", "to-admin"],
        vec![rule("get", "", "pods", "x")],
        &[],
    ));
    index.upsert(labelled("other", &[], vec![rule("get", "", "nodes", "x")], &[]));
    assert_eq!(
        index.cluster_role_rules("admin").unwrap(),
        [rule("get", "", "pods", "x")]
    );
    index.remove(RbacKind::ClusterRole, "", "pods");
    assert!(index.cluster_role_rules("admin").unwrap().is_empty());

    let mut child = RbacIndex::new();
    child.upsert(labelled(
        "admin",
        &[],
        vec![rule("get", "", "pods", "x")],
        &["to-admin"],
    ));
    assert_eq!(
        child.cluster_role_rules("admin").unwrap().len(),
        1,
        "as the child's controller left it"
    );
}

/// From `policy_comparator_test.go`.
#[test]
fn covering() {
    let resources = |verbs: &str, groups: &str, resources: &str, names: &str| PolicyRule {
        verbs: strings(verbs),
        api_groups: strings(groups),
        resources: strings(resources),
        resource_names: if names.is_empty() { Vec::new() } else { strings(names) },
        non_resource_urls: Vec::new(),
    };
    let urls = |verbs: &str, urls: &str| PolicyRule {
        verbs: strings(verbs),
        non_resource_urls: strings(urls),
        ..PolicyRule::default()
    };
    let covered = |owner: &[PolicyRule], wanted: &PolicyRule| covers(owner, std::slice::from_ref(wanted)).is_ok();

    let split = [
        resources("get,list", "v1", "services,endpoints", ""),
        resources("create,delete", "v1", "services,endpoints", ""),
    ];
    assert!(covered(
        &split,
        &resources("get,create", "v1", "services,endpoints", "")
    ));
    let missing = covers(&split, &[resources("get,update", "v1", "services", "")]).unwrap_err();
    assert_eq!(missing, [resources("update", "v1", "services", "")]);
    assert!(covered(
        &[resources("*", "*", "*", "")],
        &resources("get", "v1", "pods/log", "a")
    ));
    assert!(!covered(
        &[resources("get", "v1", "pods", "")],
        &resources("*", "v1", "pods", "")
    ));
    assert!(covered(
        &[resources("get", "v1", "*/scale", "")],
        &resources("get", "v1", "a/scale", "")
    ));
    assert!(!covered(
        &[resources("get", "v1", "*/scale", "")],
        &resources("get", "v1", "a/status", "")
    ));
    assert!(covered(
        &[resources("get", "v1", "pods", "a,b")],
        &resources("get", "v1", "pods", "b")
    ));
    assert!(!covered(
        &[resources("get", "v1", "pods", "a,b")],
        &resources("get", "v1", "pods", "")
    ));
    assert!(covered(&[urls("get", "/foo/*")], &urls("get", "/foo/bar,/foo/")));
    assert!(!covered(&[urls("get", "/foo/*")], &urls("get", "/foo")));
    assert!(covered(&[urls("*", "*")], &urls("post", "/anything")));
    assert!(covered(&[], &PolicyRule::default()), "nothing is always covered");
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    let index = index(vec![
        cluster_role("reader", vec![rule("get", "", "pods", "x")]),
        binding("ns1", "b", "ClusterRole", "reader", &["User:alice"]),
    ])
    .with_masters_bypass();
    let wanted = |verbs: &str| {
        vec![PolicyRule {
            verbs: strings(verbs),
            api_groups: vec![String::new()],
            resources: strings("pods"),
            ..PolicyRule::default()
        }]
    };
    let alice = user("alice", "dev");
    assert!(index.confirm_no_escalation(&alice, "ns1", &wanted("get")).is_ok());
    assert!(index.confirm_no_escalation(&alice, "ns2", &wanted("get")).is_err());
    let error = index
        .confirm_no_escalation(&alice, "ns1", &wanted("get,list,watch"))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "user \"alice\" (groups=[\"dev\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}"
    );
    let root = user("root", "system:masters");
    assert!(index.confirm_no_escalation(&root, "", &wanted("*")).is_ok());
}

#[test]
fn objects_as_servers_write_them() {
    let json = br#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding",
        "metadata":{"name":"b","namespace":"ns1","uid":"1","labels":null},
        "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":null}"#;
    let object = RbacObject::from_json(RbacKind::RoleBinding, json).unwrap();
    assert_eq!(
        (object.kind(), object.metadata().name.as_str()),
        (RbacKind::RoleBinding, "b")
    );
    let json = br#"{"metadata":{"name":"r"},"rules":null}"#;
    assert!(RbacObject::from_json(RbacKind::Role, json).is_ok());
    let json = br#"{"metadata":{"name":"r"},"rules":[{"verbs":["get"],"nonResourceURLs":["/x"],"apiGroups":null}]}"#;
    let RbacObject::ClusterRole(role) = RbacObject::from_json(RbacKind::ClusterRole, json).unwrap() else {
        panic!("a cluster role was asked for")
    };
    assert_eq!(role.rules[0].non_resource_urls, ["/x"]);
    assert!(RbacObject::from_json(RbacKind::Role, b"1").is_err());
}

// Random policies over small alphabets, so that rules, bindings and requests meet often.

fn any_of(values: &'static [&'static str], at_most: usize) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(proptest::sample::select(values).prop_map(str::to_owned), 0..=at_most)
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    (
        any_of(&["get", "list", "*"], 2),
        any_of(&["", "apps", "*"], 2),
        any_of(&["pods", "pods/log", "*/log", "*"], 2),
        any_of(&["a", "b", ""], 2),
    )
        .prop_map(|(verbs, api_groups, resources, resource_names)| PolicyRule {
            verbs,
            api_groups,
            resources,
            resource_names,
            non_resource_urls: Vec::new(),
        })
}

fn any_subject() -> impl Strategy<Value = Subject> {
    let kinds = proptest::sample::select(vec!["User", "Group", "ServiceAccount", "Other"]);
    let names = proptest::sample::select(vec!["alice", "dev", "ops", "web"]);
    (kinds, names, proptest::sample::select(vec!["", "n1", "n2"])).prop_map(|(kind, name, namespace)| Subject {
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ..Subject::default()
    })
}

fn any_object() -> impl Strategy<Value = RbacObject> {
    let namespace = || proptest::sample::select(vec!["n1", "n2", "n3"]);
    let role = || proptest::sample::select(vec!["r1", "r2", "r3"]);
    let name = || proptest::sample::select(vec!["b1", "b2", "b3", "b4"]);
    let rules = || proptest::collection::vec(any_rule(), 0..3);
    let some_subjects = || proptest::collection::vec(any_subject(), 0..3);
    prop_oneof![
        (namespace(), role(), rules()).prop_map(|(namespace, name, rules)| RbacObject::Role(Role {
            metadata: metadata(namespace, name),
            rules
        })),
        (role(), rules()).prop_map(|(name, rules)| cluster_role(name, rules)),
        (namespace(), name(), any::<bool>(), role(), some_subjects()).prop_map(
            |(namespace, name, cluster, role, subjects)| RbacObject::RoleBinding(RoleBinding {
                metadata: metadata(namespace, name),
                subjects,
                role_ref: role_ref(if cluster { "ClusterRole" } else { "Role" }, role),
            })
        ),
        (name(), role(), some_subjects()).prop_map(|(name, role, subjects)| {
            RbacObject::ClusterRoleBinding(ClusterRoleBinding {
                metadata: metadata("", name),
                subjects,
                role_ref: role_ref("ClusterRole", role),
            })
        }),
    ]
}

fn any_user() -> impl Strategy<Value = UserInfo> {
    let names = vec![
        "alice",
        "bob",
        "system:serviceaccount:n1:web",
        "system:serviceaccount:n2:dev",
    ];
    (proptest::sample::select(names), any_of(&["dev", "ops"], 2)).prop_map(|(name, groups)| UserInfo::new(name, groups))
}

/// The same question answered as Kubernetes does: over all bindings, without any index.
fn allowed_by_scan(objects: &[RbacObject], user: &UserInfo, attributes: &Attributes<'_>) -> bool {
    let latest = |kind: RbacKind, namespace: &str, name: &str| {
        objects.iter().rev().find(|object| {
            object.kind() == kind && object.metadata().namespace == namespace && object.metadata().name == name
        })
    };
    let rules = |role: &RoleRef, namespace: &str| match role.kind.as_str() {
        "Role" => match latest(RbacKind::Role, namespace, &role.name) {
            Some(RbacObject::Role(role)) => role.rules.clone(),
            _ => Vec::new(),
        },
        _ => match latest(RbacKind::ClusterRole, "", &role.name) {
            Some(RbacObject::ClusterRole(role)) => role.rules.clone(),
            _ => Vec::new(),
        },
    };
    let applies = |subject: &Subject, namespace: &str| match subject.kind.as_str() {
        "User" => user.name == subject.name,
        "Group" => user.groups.contains(&subject.name),
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() {
                namespace
            } else {
                &subject.namespace
            };
            !namespace.is_empty() && user.name == format!("system:serviceaccount:{namespace}:{}", subject.name)
        }
        _ => false,
    };
    objects.iter().any(|object| {
        let meta = object.metadata();
        if latest(object.kind(), &meta.namespace, &meta.name) != Some(object) {
            return false;
        }
        let (subjects, role) = match object {
            RbacObject::RoleBinding(binding) => (&binding.subjects, &binding.role_ref),
            RbacObject::ClusterRoleBinding(binding) => (&binding.subjects, &binding.role_ref),
            _ => return false,
        };
        (meta.namespace.is_empty() || meta.namespace == attributes.namespace)
            && subjects.iter().any(|subject| applies(subject, &meta.namespace))
            && rules(role, &meta.namespace).iter().any(|rule| rule.allows(attributes))
    })
}

proptest! {
    #[test]
    fn index_scan_and_visibility_agree(
        objects in proptest::collection::vec(any_object(), 0..14),
        user in any_user(),
        verb in proptest::sample::select(vec!["get", "list"]),
        group in proptest::sample::select(vec!["", "apps"]),
        resource in proptest::sample::select(vec!["pods", "pods/log", "nodes"]),
    ) {
        let index = index(objects.clone());
        let visibility = index.visible(&user, verb, group, resource);
        let mut anything = false;
        for namespace in ["", "n1", "n2", "n3", "n4"] {
            for name in ["", "a", "b", "c"] {
                let attributes = Attributes::resource(verb, group, resource, namespace, name);
                let allowed = index.authorize(&user, &attributes).is_allowed();
                prop_assert_eq!(allowed, allowed_by_scan(&objects, &user, &attributes));
                prop_assert_eq!(allowed, visibility.allows(namespace, name), "{} {:?}", namespace, name);
                anything |= allowed;
            }
        }
        prop_assert_eq!(visibility.is_nothing(), !anything);
    }

    #[test]
    fn what_is_removed_is_as_if_it_had_never_been(
        kept in proptest::collection::vec(any_object(), 0..8),
        removed in proptest::collection::vec(any_object(), 0..4),
        user in any_user(),
    ) {
        let identity = |object: &RbacObject| (object.kind(), object.metadata().namespace.clone(), object.metadata().name.clone());
        let mut changed = RbacIndex::new();
        for object in removed.iter().chain(&kept) {
            changed.upsert(object.clone());
        }
        for object in &removed {
            if !kept.iter().any(|other| identity(other) == identity(object)) {
                let (kind, namespace, name) = identity(object);
                changed.remove(kind, &namespace, &name);
            }
        }
        let fresh = index(kept);
        prop_assert_eq!(
            changed.visible(&user, "get", "", "pods"),
            fresh.visible(&user, "get", "", "pods")
        );
    }
}
