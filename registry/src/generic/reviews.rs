//! Questions that are asked by creating an object: may I, may they, who am I, whose token is this
//! (`k8s.io/kubernetes/pkg/registry/{authorization,authentication}`).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind};
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_auth::rbac::{Attributes, PolicyRule};

use super::authorization::Authorizer;
use super::body;
use crate::request::RequestContext;

/// Says whose a bearer token is.
#[async_trait]
pub trait TokenReviewer: Send + Sync {
    /// The identity; `None` where the token is nobody's.
    ///
    /// # Errors
    /// Why it could not be found out.
    async fn review(&self, token: &str, audiences: &[String]) -> Result<Option<UserInfo>, Status>;
}

/// Answers reviews.
#[derive(Clone)]
pub struct Reviews {
    authorizer: Arc<dyn Authorizer>,
    tokens: Option<Arc<dyn TokenReviewer>>,
}

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviews").finish_non_exhaustive()
    }
}

/// The reviews: group, resource, kind, whether namespaced.
const REVIEWS: [(&str, &str, &str, bool); 6] = [
    (
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        false,
    ),
    (
        "authorization.k8s.io",
        "subjectaccessreviews",
        "SubjectAccessReview",
        false,
    ),
    (
        "authorization.k8s.io",
        "localsubjectaccessreviews",
        "LocalSubjectAccessReview",
        true,
    ),
    (
        "authorization.k8s.io",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        false,
    ),
    (
        "authentication.k8s.io",
        "selfsubjectreviews",
        "SelfSubjectReview",
        false,
    ),
    ("authentication.k8s.io", "tokenreviews", "TokenReview", false),
];

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AccessReviewSpec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}

impl AccessReviewSpec {
    fn attributes(&self) -> Result<Attributes<'_>, Status> {
        match (&self.resource_attributes, &self.non_resource_attributes) {
            (Some(resource), None) => Ok(Attributes {
                verb: &resource.verb,
                group: &resource.group,
                resource: &resource.resource,
                subresource: &resource.subresource,
                namespace: &resource.namespace,
                name: &resource.name,
                path: "",
                is_resource_request: true,
            }),
            (None, Some(path)) => Ok(Attributes::path(&path.verb, &path.path)),
            _ => Err(Status::bad_request(
                "exactly one of spec.nonResourceAttributes or spec.resourceAttributes must be specified",
            )),
        }
    }
}

impl Reviews {
    /// Reviews that ask `authorizer`, and `tokens` where there is something to ask about tokens.
    #[must_use]
    pub fn new(authorizer: Arc<dyn Authorizer>, tokens: Option<Arc<dyn TokenReviewer>>) -> Self {
        Self { authorizer, tokens }
    }

    /// The resources, for discovery.
    pub fn descriptors(&self) -> impl Iterator<Item = ResourceDescriptor> {
        let tokens = self.tokens.is_some();
        REVIEWS
            .into_iter()
            .filter(move |(_, resource, _, _)| tokens || *resource != "tokenreviews")
            .map(|(group, resource, kind, namespaced)| ResourceDescriptor {
                resource: GroupVersion::new(group, "v1").resource(resource),
                kind: kind.to_owned(),
                singular: kind.to_ascii_lowercase(),
                namespaced,
                verbs: vec!["create".to_owned()],
                ..ResourceDescriptor::default()
            })
    }

    /// Answers a review; `None` where the request is none.
    pub async fn answer(&self, context: &RequestContext, sent: &Bytes) -> Option<Result<Bytes, Status>> {
        let info = &context.info;
        let (group, _, kind, _) = REVIEWS
            .into_iter()
            .find(|(group, resource, _, _)| info.group == *group && info.resource == *resource)?;
        if info.verb != "create" || !info.name.is_empty() || info.version != "v1" {
            return None;
        }
        let kind = GroupVersionKind::new(group, "v1", kind);
        Some(self.answer_kind(context, &kind, sent).await)
    }

    async fn answer_kind(
        &self,
        context: &RequestContext,
        kind: &GroupVersionKind,
        sent: &Bytes,
    ) -> Result<Bytes, Status> {
        let mut review = body::decode(sent, "application/json")?.value;
        body::check_kind(&mut review, kind)?;
        let status = match kind.kind.as_str() {
            "SelfSubjectReview" => json!({"userInfo": user_json(&context.user)}),
            "SelfSubjectRulesReview" => self.rules(context, &review).await?,
            "TokenReview" => self.token(&review).await?,
            "SelfSubjectAccessReview" => self.access(&context.user, &spec(&review)?).await?,
            _ => {
                let spec = spec(&review)?;
                self.check_namespace(context, kind, &spec)?;
                self.access(&subject(&spec)?, &spec).await?
            }
        };
        review["status"] = status;
        let json = serde_json::to_vec(&review).expect("a JSON value has only string keys");
        Ok(json.into())
    }

    fn check_namespace(
        &self,
        context: &RequestContext,
        kind: &GroupVersionKind,
        spec: &AccessReviewSpec,
    ) -> Result<(), Status> {
        if kind.kind != "LocalSubjectAccessReview" {
            return Ok(());
        }
        let asked = spec
            .resource_attributes
            .as_ref()
            .map(|attributes| attributes.namespace.as_str());
        if asked == Some(context.info.namespace.as_str()) {
            return Ok(());
        }
        Err(Status::bad_request(format!(
            "spec.resourceAttributes.namespace must match the namespace of the request: {}",
            context.info.namespace
        )))
    }

    async fn access(&self, user: &UserInfo, spec: &AccessReviewSpec) -> Result<Value, Status> {
        let verdict = self.authorizer.decide(user, &spec.attributes()?).await;
        let mut status = json!({"allowed": verdict.allowed});
        if !verdict.reason.is_empty() {
            status["reason"] = verdict.reason.into();
        }
        Ok(status)
    }

    async fn rules(&self, context: &RequestContext, review: &Value) -> Result<Value, Status> {
        let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let found = self.authorizer.rules(&context.user, namespace).await;
        let (paths, resources): (Vec<&PolicyRule>, Vec<&PolicyRule>) =
            found.rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
        let mut status = json!({
            "incomplete": !found.unresolved.is_empty(),
            "nonResourceRules": paths,
            "resourceRules": resources,
        });
        if !found.unresolved.is_empty() {
            status["evaluationError"] = found.unresolved.join(", ").into();
        }
        Ok(status)
    }

    async fn token(&self, review: &Value) -> Result<Value, Status> {
        let tokens = self.tokens.as_ref().ok_or_else(Status::no_such_path)?;
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let audiences: Vec<String> = review["spec"]["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|audience| audience.as_str().map(str::to_owned))
            .collect();
        Ok(match tokens.review(token, &audiences).await {
            Ok(Some(user)) => json!({"authenticated": true, "user": user_json(&user), "audiences": audiences}),
            Ok(None) => json!({"authenticated": false}),
            Err(status) => json!({"authenticated": false, "error": status.message}),
        })
    }
}

fn spec(review: &Value) -> Result<AccessReviewSpec, Status> {
    AccessReviewSpec::deserialize(&review["spec"])
        .map_err(|error| Status::bad_request(format!("the review cannot be read: {error}")))
}

/// Whom a SubjectAccessReview is about.
fn subject(spec: &AccessReviewSpec) -> Result<UserInfo, Status> {
    if spec.user.is_empty() && spec.groups.is_empty() {
        return Err(Status::bad_request("at least one of user or group must be specified"));
    }
    Ok(UserInfo {
        name: spec.user.clone(),
        uid: spec.uid.clone(),
        groups: spec.groups.clone(),
        extra: spec.extra.clone(),
        machine: None,
    })
}

/// `authentication.k8s.io/v1` UserInfo.
fn user_json(user: &UserInfo) -> Value {
    let mut json = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        json["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        json["extra"] = json!(user.extra);
    }
    json
}
