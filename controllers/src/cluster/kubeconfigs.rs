//! The kubeconfigs in the Secrets of `umbra-system`, followed.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, Error};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use umbra_api::SYSTEM_NAMESPACE;
use umbra_registry::copies::retry;

/// The key of a Secret that holds the kubeconfig.
const KUBECONFIG: &str = "kubeconfig";
/// The key of a Secret that names the context, where the current one is not meant.
const CONTEXT: &str = "context";
/// How long the hub lets a watch live, in seconds; kube permits less than 295.
const WATCH_SECONDS: u32 = 290;

/// A kubeconfig of a Secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct StoredKubeconfig {
    /// The text.
    pub(super) text: String,
    /// The context to use; the current one without.
    pub(super) context: Option<String>,
}

impl std::fmt::Debug for StoredKubeconfig {
    /// Without the credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredKubeconfig")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// By name of the Secret.
pub(super) type Kubeconfigs = BTreeMap<String, Arc<StoredKubeconfig>>;

/// Publishes the kubeconfigs until `cancel`; `None` until they have been read once.
pub(super) async fn follow(client: Client, sender: watch::Sender<Option<Kubeconfigs>>, cancel: CancellationToken) {
    let api: Api<Secret> = Api::namespaced(client, SYSTEM_NAMESPACE);
    let following = async {
        let mut failures = 0;
        loop {
            if let Err(error) = follow_once(&api, &sender, &mut failures).await {
                failures += 1;
                tracing::warn!(%error, "following the Secrets of {SYSTEM_NAMESPACE} is interrupted");
            }
            tokio::time::sleep(retry::pause(failures.max(1))).await;
        }
    };
    cancel.run_until_cancelled(following).await;
}

/// Lists, and follows one watch to its end.
async fn follow_once(
    api: &Api<Secret>,
    sender: &watch::Sender<Option<Kubeconfigs>>,
    failures: &mut u32,
) -> Result<(), Error> {
    let list = api.list(&ListParams::default()).await?;
    let version = list.metadata.resource_version.unwrap_or_default();
    let listed: Kubeconfigs = list.items.iter().filter_map(read).collect();
    sender.send_if_modified(|known| {
        let changed = known.as_ref() != Some(&listed);
        *known = Some(listed);
        changed
    });
    *failures = 0;
    let events = api
        .watch(&WatchParams::default().timeout(WATCH_SECONDS), &version)
        .await?;
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(secret) | WatchEvent::Modified(secret) => match read(&secret) {
                Some((name, kubeconfig)) => put(sender, name, Some(kubeconfig)),
                None => put(sender, secret.metadata.name.unwrap_or_default(), None),
            },
            WatchEvent::Deleted(secret) => put(sender, secret.metadata.name.unwrap_or_default(), None),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(Error::Api(status)),
        }
    }
    Ok(())
}

fn put(sender: &watch::Sender<Option<Kubeconfigs>>, name: String, kubeconfig: Option<Arc<StoredKubeconfig>>) {
    sender.send_if_modified(|known| {
        let known = known.get_or_insert_default();
        let changed = known.get(&name) != kubeconfig.as_ref();
        match kubeconfig {
            Some(kubeconfig) => drop(known.insert(name, kubeconfig)),
            None => drop(known.remove(&name)),
        }
        changed
    });
}

/// What is no text is as good as none: the cluster that names the Secret says so.
fn read(secret: &Secret) -> Option<(String, Arc<StoredKubeconfig>)> {
    let text = |key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        String::from_utf8(bytes.clone()).ok()
    };
    let context = text(CONTEXT)
        .map(|context| context.trim().to_owned())
        .filter(|context| !context.is_empty());
    let kubeconfig = StoredKubeconfig {
        text: text(KUBECONFIG)?,
        context,
    };
    Some((secret.metadata.name.clone()?, Arc::new(kubeconfig)))
}
