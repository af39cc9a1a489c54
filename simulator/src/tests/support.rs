//! A cluster and a client of it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Data, Options, SimulatedCluster};

/// Longer than anything takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Running {
    pub(super) cluster: SimulatedCluster,
    pub(super) client: Client,
}

impl Running {
    pub(super) async fn start() -> Self {
        Self::start_with(Options::new("east")).await
    }

    pub(super) async fn start_on(path: &std::path::Path) -> Self {
        let data = Data::Path(path.to_owned());
        Self::start_with(Options {
            data,
            ..Options::new("east")
        })
        .await
    }

    async fn start_with(options: Options) -> Self {
        let tracker = TaskTracker::new();
        let cluster = SimulatedCluster::start(options, &tracker, CancellationToken::new())
            .await
            .unwrap();
        let client = client(&cluster.kubeconfig().to_yaml()).await;
        Self { cluster, client }
    }

    /// A client of the administrator who acts as `user`.
    pub(super) async fn client_as(&self, user: &str) -> Client {
        let mut config = config(&self.cluster.kubeconfig().to_yaml()).await;
        config.auth_info.impersonate = Some(user.to_owned());
        Client::try_from(config).unwrap()
    }

    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(super) fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(super) async fn deploy(&self, replicas: i32, image: &str) -> Deployment {
        let deployment = serde_json::from_value(deployment(replicas, image)).unwrap();
        self.deployments()
            .create(&PostParams::default(), &deployment)
            .await
            .unwrap()
    }

    /// The names of the pods of `web` that are ready and stay.
    pub(super) async fn ready_pods(&self) -> Vec<String> {
        let pods = self
            .pods()
            .list(&ListParams::default().labels("app=web"))
            .await
            .unwrap();
        let mut names: Vec<String> = pods
            .items
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod))
            .map(kube::ResourceExt::name_any)
            .collect();
        names.sort();
        names
    }

    /// Waits until exactly that many pods of `web` are there, and all are ready.
    pub(super) async fn settled(&self, count: usize) -> Vec<String> {
        let what = format!("{count} ready pods and no others");
        eventually(&what, || async {
            let all = self
                .pods()
                .list(&ListParams::default().labels("app=web"))
                .await
                .unwrap();
            let ready = self.ready_pods().await;
            (all.items.len() == count && ready.len() == count).then_some(ready)
        })
        .await
    }

    /// Waits for the status of the deployment `web` to be as `kubectl rollout status` wants it.
    pub(super) async fn rolled_out(&self) -> Deployment {
        eventually("the rollout to be done", || async {
            let web = self.deployments().get("web").await.unwrap();
            let (spec, status) = (&web.spec, web.status.as_ref()?);
            let wanted = spec.replicas;
            let done = status.observed_generation >= web.metadata.generation
                && status.updated_replicas == wanted
                && status.replicas == wanted
                && status.available_replicas == wanted;
            done.then(|| web.clone())
        })
        .await
    }
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .clone()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

pub(super) fn deployment(replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        },
    })
}

async fn config(yaml: &str) -> Config {
    let kubeconfig = Kubeconfig::from_yaml(yaml).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap()
}

async fn client(yaml: &str) -> Client {
    Client::try_from(config(yaml).await).unwrap()
}

/// Asks until there is an answer.
pub(super) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
