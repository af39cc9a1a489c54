//! The keys that encrypt at rest, where several replicas share a store: a Secret of the hub cluster, unless a file is named.
//!
//! Whoever finds no Secret makes one with a new key; of two that do so at once, the first counts. What the store needs is
//! compared with the keys when it is opened: a Secret that was lost and made anew does not make a store unreadable without
//! a word. To change keys, put the new one second and restart all replicas, so that all can read it; then put it first and
//! restart them again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Error};
use umbra_api::SYSTEM_NAMESPACE;
use umbra_auth::certificates::write_private;
use umbra_storage::encryption::generate;
use zeroize::Zeroizing;

use crate::up::data_dir::DataDir;

/// The Secret, and its key.
const SECRET: &str = "umbra-encryption";
const CONFIGURATION: &str = "encryption.yaml";

/// Brings the shared keys to where the store looks for them.
///
/// # Errors
/// Where the Secret cannot be read or made, or the file cannot be written.
pub(super) async fn fetch(hub: &kube::Client, data: &DataDir) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
    let shared = load(&secrets).await.with_context(|| {
        format!(
            "the keys that encrypt at rest, in Secret {SYSTEM_NAMESPACE}/{SECRET} of the hub cluster, cannot be used; \
             --encryption-provider-config names a file instead"
        )
    })?;
    let path = data.encryption_key_file();
    write_private(&path, &shared).with_context(|| format!("cannot write {}", path.display()))
}

async fn load(secrets: &Api<Secret>) -> Result<Zeroizing<Vec<u8>>> {
    if let Some(present) = secrets.get_opt(SECRET).await.context("it cannot be read")? {
        return read(present);
    }
    let name = format!("key-{:08x}", rand::random::<u32>());
    let text = generate(&name).map_err(|_| anyhow!("the operating system gives no random bytes to make a key of"))?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/managed-by".to_owned(),
                "umbra".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(
            CONFIGURATION.to_owned(),
            ByteString(text.as_bytes().to_vec()),
        )])),
        ..Secret::default()
    };
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
        // Another replica was faster; its keys count.
        Err(Error::Api(status)) if status.code == 409 => read(secrets.get(SECRET).await.context("it cannot be read")?),
        Err(error) => Err(error).context("it cannot be created"),
    }
}

fn read(secret: Secret) -> Result<Zeroizing<Vec<u8>>> {
    let value = secret.data.and_then(|mut data| data.remove(CONFIGURATION));
    value
        .map(|value| Zeroizing::new(value.0))
        .with_context(|| format!("it has no key {CONFIGURATION}"))
}
