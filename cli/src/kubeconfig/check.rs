//! What the hub says about roots: which there are, and whether this user may enter them.
//!
//! A user may enter who may `get` the subresource `proxy` of a root (`docs/aggregated.md`). Whether a root exists is found out
//! by entering it, because users who may enter need not be allowed to read the object.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, ResourceRule, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
    SelfSubjectRulesReviewSpec,
};
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Api, Client, Error};

use super::root::{Kind, Root};

/// How long the hub may take for one answer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// How many questions are under way at once: few enough for any API server.
const AT_ONCE: usize = 16;
/// The verbs that a root needs, one for each HTTP method.
const VERBS: &str = "get,create,update,patch,delete";

/// Asks a hub as the user.
pub(super) struct Asking {
    client: Client,
    server: String,
}

impl Asking {
    /// Of the hub at `server`.
    pub(super) fn new(client: Client, server: &str) -> Self {
        Self {
            client,
            server: server.to_owned(),
        }
    }

    /// Makes sure that a root is there and the user may enter it; returns a warning where it does not answer now.
    ///
    /// # Errors
    /// What is missing, and who can do something about it.
    pub(super) async fn check(&self, root: &Root) -> Result<Option<String>> {
        if self.may_enter(root).await? == Some(false) {
            return Err(self.forbidden(root).await);
        }
        let request = http::Request::get(format!("{}/version", root.prefix())).body(Vec::new())?;
        match self.within(self.client.request_text(request)).await {
            Ok(_) => Ok(None),
            Err(Failure::Status(404, _)) => Err(self.missing(root).await),
            Err(Failure::Status(403, _)) if root.kind != Kind::Cluster => Err(self.forbidden(root).await),
            // The child judges, too. Its answer is no reason against a context that leads to it.
            Err(Failure::Status(code, message)) if code == 403 || code >= 500 => {
                Ok(Some(format!("the {root} does not answer as it should now: {message}")))
            }
            Err(failure) => Err(self.unusable(&failure)),
        }
    }

    /// All roots that the user may enter, as far as the user may find out what there is, and what kept it from being found out.
    ///
    /// # Errors
    /// Where the hub cannot be asked.
    pub(super) async fn all(&self) -> Result<(Vec<Root>, Vec<String>)> {
        let mut warnings = Vec::new();
        let mut roots = BTreeSet::new();
        for kind in Kind::ALL {
            let names = match self.names(kind).await {
                Ok(names) => names,
                Err(Failure::Status(403, _)) => {
                    let resource = kind.resource();
                    warnings.push(format!(
                        "you may not list {resource}.umbra.dev: only those are found that your permissions name"
                    ));
                    self.permitted(kind).await
                }
                Err(Failure::Status(404, _)) => bail!("what answers at {} is not an Umbra hub", self.server),
                Err(failure) => return Err(self.unusable(&failure)),
            };
            roots.extend(names.into_iter().map(|name| Root { kind, name }));
        }
        let asked = stream::iter(roots).map(|root| async move { (self.may_enter(&root).await, root) });
        let mut entered = Vec::new();
        let mut asked = asked.buffered(AT_ONCE);
        while let Some((may, root)) = asked.next().await {
            if may? != Some(false) {
                entered.push(root);
            }
        }
        Ok((entered, warnings))
    }

    /// The names that exist.
    async fn names(&self, kind: Kind) -> Result<Vec<String>, Failure> {
        let resource = ApiResource {
            group: umbra_api::GROUP.to_owned(),
            version: umbra_api::VERSION.to_owned(),
            api_version: umbra_api::API_VERSION.to_owned(),
            kind: String::new(),
            plural: kind.resource().to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let list = self.within(api.list_metadata(&ListParams::default())).await?;
        Ok(list.items.into_iter().filter_map(|item| item.metadata.name).collect())
    }

    /// The names that the user's permissions mention, and the one that always exists.
    async fn permitted(&self, kind: Kind) -> Vec<String> {
        let api: Api<SelfSubjectRulesReview> = Api::all(self.client.clone());
        let review = SelfSubjectRulesReview {
            spec: SelfSubjectRulesReviewSpec {
                namespace: Some("default".to_owned()),
            },
            ..SelfSubjectRulesReview::default()
        };
        let answer = self.within(api.create(&PostParams::default(), &review)).await;
        let rules = answer
            .ok()
            .and_then(|review| review.status)
            .unwrap_or_default()
            .resource_rules;
        let mut names = named_in(kind, &rules);
        if kind != Kind::Cluster {
            names.insert(umbra_api::ALL.to_owned());
        }
        names.into_iter().collect()
    }

    /// Whether the user may enter; `None` where the hub does not say.
    async fn may_enter(&self, root: &Root) -> Result<Option<bool>> {
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(umbra_api::GROUP.to_owned()),
                    version: Some(umbra_api::VERSION.to_owned()),
                    resource: Some(root.kind.resource().to_owned()),
                    subresource: Some("proxy".to_owned()),
                    name: Some(root.name.clone()),
                    verb: Some("get".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        match self.within(api.create(&PostParams::default(), &review)).await {
            Ok(answer) => Ok(answer.status.map(|status| status.allowed)),
            Err(Failure::Status(403 | 404, _)) => Ok(None),
            Err(failure) => Err(self.unusable(&failure)),
        }
    }

    /// Says which permission is missing, and which command gives it.
    async fn forbidden(&self, root: &Root) -> anyhow::Error {
        let api: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let me = self
            .within(api.create(&PostParams::default(), &SelfSubjectReview::default()))
            .await;
        let me = me.ok().and_then(|review| review.status?.user_info?.username);
        anyhow!("{}", missing_permission(root, me.as_deref()))
    }

    async fn missing(&self, root: &Root) -> anyhow::Error {
        match self.names(root.kind).await {
            Ok(names) if names.is_empty() => anyhow!("there is no {root} on the hub; there is none at all"),
            Ok(names) => anyhow!("there is no {root} on the hub; it has {}", names.join(", ")),
            Err(Failure::Status(404, _)) => anyhow!("what answers at {} is not an Umbra hub", self.server),
            Err(_) => anyhow!("there is no {root} on the hub"),
        }
    }

    fn unusable(&self, failure: &Failure) -> anyhow::Error {
        let server = &self.server;
        match failure {
            Failure::Status(401, _) => {
                anyhow!("{server} does not accept your credential (401 Unauthorized); it may have expired")
            }
            Failure::Status(code, message) => anyhow!("{server} answers {code}: {message}"),
            Failure::Other(message) => {
                anyhow!("the hub at {server} cannot be asked: {message}; --no-check writes the contexts without asking")
            }
        }
    }

    async fn within<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Error::Api(status))) => Err(Failure::Status(status.code, status.message)),
            Ok(Err(error)) => Err(Failure::Other(innermost(&error))),
            Err(_) => Err(Failure::Other(format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }
}

/// Why there is no answer.
enum Failure {
    Status(u16, String),
    Other(String),
}

/// The cause of all: what the others say is that something failed.
fn innermost(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

/// The names of roots of a kind that rules about entering them have.
fn named_in(kind: Kind, rules: &[ResourceRule]) -> BTreeSet<String> {
    let entered = format!("{}/proxy", kind.resource());
    let has = |list: &Option<Vec<String>>, wanted: &[&str]| {
        list.iter()
            .flatten()
            .any(|one| one == "*" || wanted.contains(&one.as_str()))
    };
    let about = rules
        .iter()
        .filter(|rule| has(&rule.api_groups, &[umbra_api::GROUP]))
        .filter(|rule| has(&rule.resources, &[entered.as_str(), "*/proxy"]))
        .filter(|rule| rule.verbs.iter().any(|verb| verb == "*" || verb == "get"));
    about
        .flat_map(|rule| rule.resource_names.clone().unwrap_or_default())
        .collect()
}

/// What a user is told who may not enter.
fn missing_permission(root: &Root, user: Option<&str>) -> String {
    let (resource, name) = (root.kind.resource(), &root.name);
    let role = format!("enter-{}-{name}", root.kind.word());
    let (who, subject) = match user {
        Some(user) => (format!("{user} may not"), subject(user)),
        None => ("you may not".to_owned(), "--user=YOU".to_owned()),
    };
    format!(
        "{who} enter the {root}: the permission get on {resource}/proxy {name:?} in the group umbra.dev is missing. An administrator of \
         the hub gives it by\n  kubectl create clusterrole {role} --verb={VERBS} --resource={resource}.umbra.dev/proxy \
         --resource-name={name}\n  kubectl create clusterrolebinding {role} --clusterrole={role} {subject}"
    )
}

fn subject(user: &str) -> String {
    match user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={user}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Root {
        Root {
            kind: Kind::View,
            name: "team".to_owned(),
        }
    }

    #[test]
    fn a_missing_permission_comes_with_the_commands_that_give_it() {
        let text = missing_permission(&root(), Some("jane"));
        for part in [
            "jane may not enter the view team",
            "views/proxy",
            "--resource=views.umbra.dev/proxy --resource-name=team",
            "--user=jane",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = missing_permission(&root(), Some("system:serviceaccount:shop:robot"));
        assert!(text.ends_with("--serviceaccount=shop:robot"), "{text}");
    }

    #[test]
    fn rules_name_the_roots_that_may_be_entered() {
        let rule = |groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]| {
            let list = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
            ResourceRule {
                api_groups: Some(list(groups)),
                resources: Some(list(resources)),
                verbs: list(verbs),
                resource_names: Some(list(names)),
            }
        };
        let rules = [
            rule(&["umbra.dev"], &["views/proxy"], &["get", "create"], &["team", "all"]),
            rule(&["*"], &["*"], &["*"], &["any"]),
            rule(&["umbra.dev"], &["views"], &["get"], &["object"]),
            rule(&["umbra.dev"], &["views/proxy"], &["create"], &["verb"]),
            rule(&["apps"], &["views/proxy"], &["get"], &["group"]),
            rule(&["umbra.dev"], &["fleets/proxy"], &["get"], &["fleet"]),
        ];
        let names = named_in(Kind::View, &rules);
        assert_eq!(
            names.iter().map(String::as_str).collect::<Vec<_>>(),
            ["all", "any", "team"]
        );
    }
}
