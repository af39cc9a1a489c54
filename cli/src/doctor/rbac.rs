//! What umbra's service account may do on the hub cluster, asked by SubjectAccessReview: `manifests/base/rbac.yaml`.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::api_service::{APPLY, NAME};
use super::asking::{Hub, Read, reason};
use super::finding::Finding;

const RBAC: &str = "rbac";
/// The Secret with the authority of the agents of tunnels.
const AGENTS: &str = "umbra-agents";

/// Permissions that belong together.
#[derive(Debug)]
struct Grant {
    /// What gives them.
    binding: &'static str,
    /// What they are for, after "umbra may" and "umbra may not".
    purpose: &'static str,
    permissions: Vec<ResourceAttributes>,
}

fn permissions(
    verbs: &[&str],
    group: &str,
    resource: &str,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Vec<ResourceAttributes> {
    let permission = |verb: &&str| ResourceAttributes {
        verb: Some((*verb).to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    verbs.iter().map(permission).collect()
}

fn grants(namespace: &str) -> Vec<Grant> {
    let secrets = permissions(
        &["get", "list", "watch", "create"],
        "",
        "secrets",
        Some(namespace),
        None,
    );
    let own = [super::certificates::SECRET, AGENTS];
    let own = own.map(|name| permissions(&["update"], "", "secrets", Some(namespace), Some(name)));
    let reviews = [
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
    ];
    vec![
        Grant {
            binding: "ClusterRoleBinding umbra:auth-delegator (to system:auth-delegator)",
            purpose: "ask whose tokens are good and who may do what",
            permissions: reviews
                .into_iter()
                .flat_map(|(group, resource)| permissions(&["create"], group, resource, None, None))
                .collect(),
        },
        Grant {
            binding: "RoleBinding kube-system/umbra:authentication-reader (to extension-apiserver-authentication-reader)",
            purpose: "read who the front proxy is",
            permissions: permissions(
                &["get", "list", "watch"],
                "",
                "configmaps",
                Some("kube-system"),
                Some(super::front_proxy::NAME),
            ),
        },
        Grant {
            binding: "ClusterRoleBinding umbra:api-service",
            purpose: "keep the caBundle of its APIService up to date",
            permissions: permissions(
                &["get", "patch"],
                "apiregistration.k8s.io",
                "apiservices",
                None,
                Some(NAME),
            ),
        },
        Grant {
            binding: "RoleBinding umbra of its namespace",
            purpose: "read the credentials of children and keep its own Secrets",
            permissions: secrets.into_iter().chain(own.concat()).collect(),
        },
    ]
}

/// The service account that umbra runs as: that of its Deployment, or that of the manifests.
fn account(deployments: &Read<Vec<Deployment>>) -> String {
    let Read::There(deployments) = deployments else {
        return "umbra".to_owned();
    };
    let named = deployments
        .iter()
        .find_map(|one| one.spec.template.spec.as_ref()?.service_account_name.clone());
    named.unwrap_or_else(|| "umbra".to_owned())
}

/// Asks what the service account may do.
pub(super) async fn check(hub: &Hub, deployments: &Read<Vec<Deployment>>) -> Vec<Finding> {
    let account = account(deployments);
    let asked = grants(&hub.namespace).into_iter().map(|grant| {
        let account = &account;
        async move {
            let answers = join_all(grant.permissions.iter().map(|one| may(hub, account, one.clone()))).await;
            judge(&grant, account, &hub.namespace, answers)
        }
    });
    join_all(asked).await
}

async fn may(hub: &Hub, account: &str, permission: ResourceAttributes) -> Result<bool, String> {
    let namespace = &hub.namespace;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{account}")),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(permission),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(hub.client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(|error| reason(&error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn judge(grant: &Grant, account: &str, namespace: &str, answers: Vec<Result<bool, String>>) -> Finding {
    let mut missing = Vec::new();
    for (permission, answer) in grant.permissions.iter().zip(answers) {
        match answer {
            Ok(true) => {}
            Ok(false) => missing.push(shown(permission)),
            Err(why) => {
                return Finding::not_checked(RBAC, format!("whether umbra may {}: {why}", grant.purpose));
            }
        }
    }
    if missing.is_empty() {
        return Finding::ok(RBAC, format!("umbra may {}", grant.purpose));
    }
    let message = format!(
        "service account {namespace}/{account} may not {}: it lacks {}",
        grant.purpose,
        missing.join(", ")
    );
    Finding::wrong(
        RBAC,
        message,
        format!("{} is missing or changed: {APPLY}", grant.binding),
    )
}

fn shown(permission: &ResourceAttributes) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let mut text = format!("{} {}", part(&permission.verb), part(&permission.resource));
    if let Some(name) = &permission.name {
        text = format!("{text}/{name}");
    }
    if let Some(namespace) = &permission.namespace {
        text = format!("{text} in {namespace}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_missing_permission_names_the_binding_that_gives_it() {
        let grants = grants("umbra-system");
        let reviews = &grants[0];
        let judged = |answers: Vec<Result<bool, String>>| judge(reviews, "umbra", "umbra-system", answers);
        assert_eq!(judged(vec![Ok(true), Ok(true)]).level, Level::Ok);
        let missing = judged(vec![Ok(true), Ok(false)]);
        assert_eq!(missing.level, Level::Wrong);
        assert!(
            missing.message.contains("create subjectaccessreviews"),
            "{}",
            missing.message
        );
        assert!(missing.advice.unwrap().contains("umbra:auth-delegator"));
        assert_eq!(judged(vec![Err("no".to_owned())]).level, Level::NotChecked);
        assert_eq!(
            shown(&grants[3].permissions[4]),
            "update secrets/umbra-serving in umbra-system"
        );
    }

    #[test]
    fn the_manifests_give_what_is_asked_for() {
        let manifest = include_str!("../../../manifests/base/rbac.yaml");
        for grant in grants(umbra_api::SYSTEM_NAMESPACE) {
            let named = grant
                .binding
                .split([' ', '/'])
                .find(|word| word.starts_with("umbra"))
                .unwrap();
            assert!(manifest.contains(&format!("name: {named}\n")), "{named}");
        }
    }

    #[test]
    fn the_account_is_that_of_the_deployment() {
        assert_eq!(account(&Read::Missing), "umbra");
        let deployment = serde_json::from_value(serde_json::json!({"spec": {"selector": {}, "template": {"spec":
            {"serviceAccountName": "other", "containers": []}}}}));
        assert_eq!(account(&Read::There(vec![deployment.unwrap()])), "other");
    }
}
