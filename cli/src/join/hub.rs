//! The hub, as `umbra join` and `umbra leave` reach it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Error};
use umbra_api::cluster::ManagedCluster;
use umbra_api::{ADMINISTRATORS, SYSTEM_NAMESPACE};
use umbra_apimachinery::user::UserInfo;
use umbra_child::identity::{Identity, name_on_child};

use crate::registration::{Administrators, is_credential_of, secret_name};
use crate::up::data_dir::{HUB_CONTEXT, VIEW_CONTEXT};

/// How long the hub may take to answer. It is close, or not there.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the hub may take to remove what it has of a cluster: 100,000 copies take seconds.
const REMOVAL: Duration = Duration::from_secs(120);
/// How often it is asked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A client of the hub root, and the kubeconfig it comes from.
///
/// # Errors
/// Where there is no such kubeconfig, or no hub answers.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<(Client, PathBuf)> {
    let path = match kubeconfig {
        Some(path) => path.to_owned(),
        None => {
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
            let home = home.context("there is no home directory; name the hub's kubeconfig with --hub-kubeconfig")?;
            PathBuf::from(home).join(".umbra/kubeconfig")
        }
    };
    let shown = path.display();
    if !path.exists() {
        bail!(
            "there is no kubeconfig of a hub at {shown}; start a hub with `umbra up`, or name its kubeconfig with --hub-kubeconfig"
        );
    }
    let file =
        Kubeconfig::read_from(&path).with_context(|| format!("{shown} cannot be read as the kubeconfig of a hub"))?;
    let own = file.contexts.iter().any(|context| context.name == HUB_CONTEXT);
    let options = KubeConfigOptions {
        context: own.then(|| HUB_CONTEXT.to_owned()),
        ..KubeConfigOptions::default()
    };
    let mut config = Config::from_custom_kubeconfig(file, &options)
        .await
        .with_context(|| format!("{shown} cannot be used to reach a hub"))?;
    config.connect_timeout = Some(ANSWER);
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config).with_context(|| format!("{shown} cannot be used to reach a hub"))?;
    let answered = tokio::time::timeout(ANSWER, clusters(&client)).await;
    let answered = answered.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", ANSWER.as_secs())));
    answered.map_err(|error| {
        anyhow!("no hub can be used at {server}, which {shown} names: {error:#}. Is `umbra up` running?")
    })?;
    Ok((client, path))
}

/// Whether the kubeconfig is one that `umbra up` writes.
///
/// # Errors
/// Where it cannot be read any more.
pub(crate) fn is_standalone(path: &Path) -> Result<bool> {
    let file = Kubeconfig::read_from(path)?;
    Ok(file.contexts.iter().any(|context| context.name == HUB_CONTEXT))
}

/// Whether the caller may write the credentials of clusters; why not, where the hub says no.
///
/// # Errors
/// What the hub says.
pub(super) async fn may_write_secrets(hub: &Client) -> Result<Option<String>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(hub.clone());
    for verb in ["create", "patch"] {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(SYSTEM_NAMESPACE.to_owned()),
                    resource: Some("secrets".to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await;
        let status = answer.map_err(|error| chain(&error))?.status.unwrap_or_default();
        if !status.allowed {
            return Ok(Some(format!("{verb} is not allowed")));
        }
    }
    Ok(None)
}

/// How a person goes on with the hub of a kubeconfig: kubectl on the hub root, and on the view of all clusters.
///
/// # Errors
/// Where the kubeconfig cannot be read any more.
pub(crate) fn command_lines(path: &Path) -> Result<[String; 2]> {
    let file = Kubeconfig::read_from(path)?;
    let kubectl = format!("kubectl --kubeconfig {}", path.display());
    if file.contexts.iter().any(|context| context.name == HUB_CONTEXT) {
        return Ok([HUB_CONTEXT, VIEW_CONTEXT].map(|context| format!("{kubectl} --context {context}")));
    }
    // A cluster that umbra extends: its contexts are of whoever runs it, and the view is below its URL.
    let current = file
        .contexts
        .iter()
        .find(|one| Some(&one.name) == file.current_context.as_ref());
    let cluster = current.and_then(|context| Some(&context.context.as_ref()?.cluster));
    let server = file.clusters.iter().find(|one| Some(&one.name) == cluster);
    let server = server
        .and_then(|one| one.cluster.as_ref()?.server.as_deref())
        .unwrap_or("https://HUB");
    let view = format!(
        "{kubectl} --server {server}/apis/umbra.dev/v1alpha1/views/all/proxy",
        server = server.trim_end_matches('/')
    );
    Ok([kubectl, view])
}

/// The clusters that have joined.
///
/// # Errors
/// What the hub says.
pub(crate) async fn clusters(hub: &Client) -> Result<Vec<ManagedCluster>> {
    let clusters: Api<ManagedCluster> = Api::all(hub.clone());
    match clusters.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(Error::Api(status)) if status.code == 404 => bail!("what answers there is not an Umbra hub"),
        Err(Error::Api(status)) => bail!("the clusters cannot be listed: {}", status.message),
        Err(error) => Err(chain(&error)),
    }
}

/// The UID of the hub's own namespace `kube-system`, where the hub has one and lets the caller read it.
///
/// # Errors
/// What the hub says.
pub(crate) async fn uid(hub: &Client) -> Result<Option<String>> {
    let namespaces: Api<Namespace> = Api::all(hub.clone());
    match namespaces.get_opt("kube-system").await {
        Ok(namespace) => Ok(namespace.and_then(|namespace| namespace.metadata.uid)),
        // Whoever may register clusters need not be able to read namespaces of the hub.
        Err(Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(chain(&error)),
    }
}

/// Who is to administrate the clusters that join: on a standalone hub its group of administrators; on a hub with users of its own,
/// who are in no such group, the user who asks, by the name that a child knows.
///
/// # Errors
/// What the hub says, and where no child could know the user.
pub(crate) async fn administrators(hub: &Client) -> Result<Administrators> {
    let reviews: Api<SelfSubjectReview> = Api::all(hub.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await;
    let review = review.map_err(|error| chain(&error)).with_context(|| {
        "the hub does not say who you are to it; join with --no-admin-binding and give the hub's users their roles in the \
         cluster yourself"
    })?;
    let info = review.status.and_then(|status| status.user_info).unwrap_or_default();
    let user = UserInfo::new(info.username.unwrap_or_default(), info.groups.unwrap_or_default());
    if user.in_group(ADMINISTRATORS) {
        return Ok(Administrators::Group);
    }
    Ok(Administrators::User(name_on_child(&user, &Identity::default())?))
}

/// Tries [`unregister`] without a trace.
///
/// # Errors
/// Where the hub would refuse, and why.
pub(crate) async fn rehearse_unregister(hub: &Client, name: &str) -> Result<()> {
    let tried = DeleteParams::background().dry_run();
    let clusters: Api<ManagedCluster> = Api::all(hub.clone());
    clusters.get_opt(name).await.map_err(|error| chain(&error))?;
    would_be_deleted(clusters.delete(name, &tried).await)
        .with_context(|| format!("the ManagedCluster {name} cannot be deleted"))?;
    let secret = secret_name(name);
    if has_credential(hub, name, &secret).await? {
        let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
        would_be_deleted(secrets.delete(&secret, &tried).await)
            .with_context(|| format!("the Secret {SYSTEM_NAMESPACE}/{secret} cannot be deleted"))?;
    }
    Ok(())
}

fn would_be_deleted<T>(tried: kube::Result<T>) -> Result<()> {
    match tried {
        // Gone already; or a webhook that knows no dry runs, whose answer to the deletion itself shows then.
        Err(Error::Api(status)) if matches!(status.code, 404 | 400) => Ok(()),
        Err(Error::Api(status)) => Err(anyhow!("{}", status.message)),
        tried => tried.map(drop).map_err(|error| chain(&error)),
    }
}

/// Whether there is a Secret of that name that is the credential of the cluster. What somebody keeps there for another purpose is
/// not; whoever may not read it has not written it either.
async fn has_credential(hub: &Client, name: &str, secret: &str) -> Result<bool> {
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
    match secrets.get_opt(secret).await {
        Ok(present) => Ok(present.is_some_and(|present| is_credential_of(&present, name))),
        Err(Error::Api(status)) if status.code == 403 => Ok(false),
        Err(error) => Err(chain(&error)),
    }
}

/// Removes a cluster and its credential from the hub, and waits until nothing is left; does nothing where neither is
/// there.
///
/// # Errors
/// What the hub says, and where it takes longer than two minutes.
pub(crate) async fn unregister(hub: &Client, name: &str, progress: impl Fn(&str)) -> Result<()> {
    let clusters: Api<ManagedCluster> = Api::all(hub.clone());
    let deleted = match clusters.delete(name, &DeleteParams::background()).await {
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        Err(Error::Api(status)) => Err(anyhow!("{}", status.message)),
        other => other.map(drop).map_err(|error| chain(&error)),
    };
    deleted.with_context(|| format!("the ManagedCluster {name} cannot be deleted"))?;
    let deadline = tokio::time::Instant::now() + REMOVAL;
    while let Some(cluster) = clusters.get_opt(name).await.map_err(|error| chain(&error))? {
        let finalizers = cluster.metadata.finalizers.unwrap_or_default().join(", ");
        progress(&format!("waiting for {finalizers}"));
        if tokio::time::Instant::now() >= deadline {
            bail!(
                "the hub has not removed {name} after {} s; it still has the finalizers {finalizers}. Look at the hub's log and \
                 run `umbra leave {name}` again",
                REMOVAL.as_secs()
            );
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let secret = secret_name(name);
    if !has_credential(hub, name, &secret).await? {
        return Ok(());
    }
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
    match secrets.delete(&secret, &DeleteParams::default()).await {
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).map_err(|error| chain(&error)),
    }
    .with_context(|| format!("the Secret {SYSTEM_NAMESPACE}/{secret} cannot be deleted"))
}

/// A condition of a cluster.
pub(crate) fn condition<'a>(cluster: &'a ManagedCluster, kind: &str) -> Option<&'a Condition> {
    cluster.status.as_ref()?.conditions.iter().find(|one| one.type_ == kind)
}

/// An error with its causes, each said once: the client's messages repeat those of their sources. Of a connection that
/// fails the innermost cause says it all.
pub(crate) fn chain(error: &Error) -> anyhow::Error {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let mut texts: Vec<String> = Vec::new();
    for text in causes.map(ToString::to_string) {
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
    }
    match (error, texts.pop()) {
        (Error::Service(_), Some(innermost)) => anyhow!(innermost),
        (_, innermost) => anyhow!(texts.into_iter().chain(innermost).collect::<Vec<_>>().join(": ")),
    }
}
