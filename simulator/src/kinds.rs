//! The API of a simulated cluster: which kinds it serves and who decides on requests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::discovery::SubresourceDescriptor;
use umbra_apimachinery::gvk::GroupVersion;
use umbra_apimachinery::request::RootName;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{AUTHENTICATED, UserInfo};
use umbra_auth::rbac::{Attributes, RbacKind};
use umbra_registry::builtin;
use umbra_registry::builtin::lifecycle::{EscalationCheck, NamespaceLifecycle};
use umbra_registry::generic::StoreApi;
use umbra_registry::generic::admission::AdmissionChain;
use umbra_registry::generic::authorization::RbacAuthorizer;
use umbra_registry::generic::collection::{Installation, RootParts};
use umbra_registry::generic::reviews::Reviews;
use umbra_registry::generic::strategy::Strategy;
use umbra_registry::root::{Root, Roots};
use umbra_storage::{CacheOptions, Store};

use crate::connections::{CONNECTIONS, PodConnections};
use crate::network;

/// How long the first read of everything stored may take.
const FILL: Duration = Duration::from_secs(60);

/// Serves all built-in kinds out of `store` under `name`, with RBAC, and makes what every cluster has from the start.
///
/// # Errors
/// Where the store cannot be read or written.
pub(crate) async fn serve(
    name: &str,
    version: &str,
    store: &Arc<dyn Store>,
    tracker: &TaskTracker,
    cancelled: &CancellationToken,
) -> Result<Arc<StoreApi>, Status> {
    let authorizer = RbacAuthorizer::new();
    let root = format!("simulated/{name}");
    let admission = AdmissionChain(vec![
        Arc::new(NamespaceLifecycle::new(Arc::clone(store), &root)),
        Arc::new(EscalationCheck::new(Arc::clone(&authorizer))),
    ]);
    let api = StoreApi::new(RootParts {
        name: root,
        store: Arc::clone(store),
        cache: CacheOptions::default(),
        admission: Arc::new(admission),
        authorizer: Arc::clone(&authorizer) as _,
        reviews: Some(Reviews::new(Arc::clone(&authorizer) as _, None)),
        version: version_info(version),
        tracker: tracker.clone(),
        cancelled: cancelled.clone(),
    });
    let strategies = builtin::cluster();
    let documents = builtin::documents(&strategies);
    api.install(
        strategies.into_iter().map(|strategy| installation(strategy, &api)),
        documents,
    );
    api.ready(Instant::now() + FILL).await?;
    follow_rbac(&api, &authorizer, tracker, cancelled)?;
    builtin::bootstrap::bootstrap(&api).await?;
    wait_for_rbac(&authorizer).await?;
    let (collecting, cancelled) = (
        builtin::controllers::run(Arc::clone(&api), cancelled.clone()),
        cancelled.clone(),
    );
    tracker.spawn(async move { cancelled.run_until_cancelled(collecting).await });
    Ok(api)
}

/// The kind with what a simulated cluster adds to it.
fn installation(mut strategy: Strategy, api: &Arc<StoreApi>) -> Installation {
    let resource = strategy.descriptor.group_resource().to_string();
    match resource.as_str() {
        "pods" => {
            strategy.behavior = Arc::new(network::Pods(Arc::clone(&strategy.behavior)));
            strategy.descriptor.subresources.extend(connections(&strategy));
            let connector = PodConnections::new(Arc::downgrade(api));
            return Installation {
                connector: Some(Arc::new(connector)),
                ..Installation::from(strategy)
            };
        }
        "services" => {
            let inner = Arc::clone(&strategy.behavior);
            let api = Arc::downgrade(api);
            strategy.behavior = Arc::new(network::Services { inner, api });
        }
        // There are no token requests.
        "serviceaccounts" => strategy.descriptor.subresources.retain(|one| one.name != "token"),
        _ => {}
    }
    strategy.into()
}

/// The connections of a kind as Kubernetes describes them, which the store leaves out.
fn connections(strategy: &Strategy) -> Vec<SubresourceDescriptor> {
    let mut all = umbra_openapi::builtin::resources().iter();
    let found = all.find(|descriptor| descriptor.resource == strategy.descriptor.resource);
    let subresources = found
        .map(|descriptor| descriptor.subresources.clone())
        .unwrap_or_default();
    subresources
        .into_iter()
        .filter(|one| CONNECTIONS.contains(&one.name.as_str()))
        .collect()
}

fn follow_rbac(
    api: &StoreApi,
    authorizer: &Arc<RbacAuthorizer>,
    tracker: &TaskTracker,
    cancelled: &CancellationToken,
) -> Result<(), Status> {
    let version = GroupVersion::new("rbac.authorization.k8s.io", "v1");
    let mut caches = Vec::new();
    for kind in RbacKind::ALL {
        let resource = version.resource(kind.resource());
        let store = api.store(&resource).ok_or_else(Status::no_such_path)?;
        caches.push((kind, Arc::clone(store.cache())));
    }
    authorizer.follow(caches, tracker, cancelled.clone());
    Ok(())
}

/// Waits until the roles of the beginning are in force, so that the first request is judged by them.
async fn wait_for_rbac(authorizer: &RbacAuthorizer) -> Result<(), Status> {
    let anyone = UserInfo::new("anyone", [AUTHENTICATED]);
    let deadline = Instant::now() + FILL;
    // The binding of `system:discovery`, which is made from roles and bindings alike.
    while !authorizer
        .index()
        .authorize(&anyone, &Attributes::path("get", "/api"))
        .is_allowed()
    {
        if Instant::now() > deadline {
            let message =
                "the cluster's roles are not in force after a minute; delete its data directory if they were changed";
            return Err(Status::failure(Reason::ServiceUnavailable, message));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// The body of `/version`.
fn version_info(version: &str) -> Bytes {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']);
    let info = json!({
        "major": numbers.next().unwrap_or_default(),
        "minor": numbers.next().unwrap_or_default(),
        "gitVersion": version,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    info.to_string().into()
}

/// A cluster is one root.
pub(crate) struct OnlyRoot(pub(crate) Arc<StoreApi>);

#[async_trait]
impl Roots for OnlyRoot {
    async fn root(&self, name: RootName<'_>) -> Result<Root, Status> {
        match name {
            RootName::Hub => Ok(Root::Api(Arc::clone(&self.0) as _)),
            RootName::Cluster(_) | RootName::View(_) | RootName::Fleet(_) => Err(Status::no_such_path()),
        }
    }

    async fn enter(&self, _user: &UserInfo, _name: RootName<'_>, _method: &http::Method) -> Result<(), Status> {
        // Each resource is checked by itself.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers_are_read_from_the_label() {
        let info: serde_json::Value = serde_json::from_slice(&version_info("v1.36.0-umbra-simulator")).unwrap();
        assert_eq!((&info["major"], &info["minor"]), (&"1".into(), &"36".into()));
        assert_eq!(info["gitVersion"], "v1.36.0-umbra-simulator");
    }
}
