//! What a hub has from the start.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;
use umbra_api::root::{Fleet, FleetSpec, View, ViewSpec};
use umbra_api::{ALL, SYSTEM_NAMESPACE};

use crate::cluster::FIELD_MANAGER;

/// Creates the namespace `umbra-system` and the view and the fleet `all`, where they are missing. What is there stays as
/// it is.
///
/// # Errors
/// Those of the hub.
pub async fn ensure_defaults(client: &Client) -> Result<(), Error> {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(SYSTEM_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    ensure(&Api::all(client.clone()), SYSTEM_NAMESPACE, &namespace).await?;
    ensure_roots(client).await
}

/// Creates the view and the fleet `all`, where they are missing: what a hub has from the start whose namespaces are those of
/// the kube-apiserver before it.
///
/// # Errors
/// Those of the hub.
pub async fn ensure_roots(client: &Client) -> Result<(), Error> {
    ensure(&Api::all(client.clone()), ALL, &View::new(ALL, ViewSpec::default())).await?;
    ensure(&Api::all(client.clone()), ALL, &Fleet::new(ALL, FleetSpec::default())).await
}

async fn ensure<K>(api: &Api<K>, name: &str, object: &K) -> Result<(), Error>
where
    K: kube::Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    if api.get_opt(name).await?.is_some() {
        return Ok(());
    }
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match api.create(&parameters, object).await {
        Err(Error::Api(status)) if status.code == 409 => Ok(()),
        created => created.map(drop),
    }
}
