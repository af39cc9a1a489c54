//! The kubeconfigs in the Secrets of `umbra-system`, followed. A Secret has one under the key `kubeconfig`, or its parts: `server`,
//! `token` or `tls.crt` and `tls.key`, and `ca.crt`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, Error};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use umbra_api::SYSTEM_NAMESPACE;
use umbra_registry::copies::retry;

/// The key of a Secret that holds the kubeconfig.
const KUBECONFIG: &str = "kubeconfig";
/// The key of a Secret that names the context, where the current one is not meant.
const CONTEXT: &str = "context";
/// Where a Secret without a kubeconfig says what its credential is for, and its token.
const SERVER: &str = "server";
const TOKEN: &str = "token";
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
    let data = secret.data.as_ref()?;
    let bytes = |key: &str| data.get(key).map(|value| &value.0).filter(|value| !value.is_empty());
    let text = |key: &str| String::from_utf8(bytes(key)?.clone()).ok();
    let line = |key: &str| {
        text(key)
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    };
    let kubeconfig = match text(KUBECONFIG) {
        Some(text) => StoredKubeconfig {
            text,
            context: line(CONTEXT),
        },
        None => StoredKubeconfig {
            text: from_parts(&line(SERVER)?, line(TOKEN).as_deref(), &|key| {
                bytes(key).map(|value| BASE64.encode(value))
            })?,
            context: None,
        },
    };
    Some((secret.metadata.name.clone()?, Arc::new(kubeconfig)))
}

/// The kubeconfig of a Secret that has its parts as keys, called as in Secrets of service accounts (`token`, `ca.crt`) and of
/// certificates (`tls.crt`, `tls.key`), and the server beside them. `None` where there is no credential.
fn from_parts(server: &str, token: Option<&str>, data: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (certificate, key) = (data("tls.crt"), data("tls.key"));
    if token.is_none() && certificate.is_none() {
        return None;
    }
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": {
            "server": server,
            "certificate-authority-data": data("ca.crt"),
        }}],
        "users": [{"name": "user", "user": {
            "token": token,
            "client-certificate-data": certificate,
            "client-key-data": key,
        }}],
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
        "current-context": "context",
    });
    Some(kubeconfig.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use umbra_child::kubeconfig::Kubeconfig;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";

    fn secret(data: &[(&str, &str)]) -> Secret {
        Secret {
            metadata: kube::api::ObjectMeta {
                name: Some("s".to_owned()),
                ..kube::api::ObjectMeta::default()
            },
            data: Some(
                data.iter()
                    .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
                    .collect(),
            ),
            ..Secret::default()
        }
    }

    #[test]
    fn a_secret_has_a_kubeconfig_or_its_parts() {
        let token = secret(&[("server", "https://c.test\n"), ("token", "t0ken\n"), ("ca.crt", PEM)]);
        let (name, stored) = read(&token).unwrap();
        let kubeconfig = Kubeconfig::parse(&stored.text, "test").unwrap();
        let selected = kubeconfig.select(None).unwrap();
        assert_eq!(
            (name.as_str(), selected.cluster.server.as_str()),
            ("s", "https://c.test")
        );
        assert_eq!(selected.user.token.as_deref(), Some("t0ken"));
        assert_eq!(
            selected.certificate_authority().unwrap().as_deref(),
            Some(PEM.as_bytes())
        );
        assert!(selected.credentials().unwrap().certificate.is_none());

        let certificate = secret(&[("server", "https://c.test"), ("tls.crt", PEM), ("tls.key", PEM)]);
        let (_, stored) = read(&certificate).unwrap();
        let kubeconfig = Kubeconfig::parse(&stored.text, "test").unwrap();
        assert!(kubeconfig.select(None).unwrap().user.client_certificate_data.is_some());

        let whole = secret(&[("kubeconfig", "text"), ("context", " x \n"), ("token", "t")]);
        let (_, stored) = read(&whole).unwrap();
        assert_eq!((stored.text.as_str(), stored.context.as_deref()), ("text", Some("x")));
        // A credential without a server could be sent anywhere.
        for useless in [
            secret(&[("token", "t")]),
            secret(&[("server", "https://c.test")]),
            secret(&[]),
        ] {
            assert!(read(&useless).is_none());
        }
    }
}
