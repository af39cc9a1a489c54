use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::support::{Running, eventually};

async fn get(client: &Client, path: &str, accept: &str) -> Value {
    let request = http::Request::get(path)
        .header("accept", accept)
        .body(Vec::new())
        .unwrap();
    client.request(request).await.unwrap()
}

#[tokio::test]
async fn whoever_is_impersonated_may_do_what_rbac_says() {
    let running = Running::start().await;
    running
        .cluster
        .create_missing(&crate::workloads::objects("east"))
        .await
        .unwrap();
    let tina = running.client_as(crate::workloads::TENANT).await;
    let code = |result: Result<_, kube::Error>| match result {
        Ok(()) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    };
    let list = |namespace: &str| {
        let deployments: Api<Deployment> = Api::namespaced(tina.clone(), namespace);
        async move { code(deployments.list(&ListParams::default()).await.map(drop)) }
    };
    // The role is in force when the authorizer has seen it.
    eventually("tina's role", || async { (list("shop").await == 200).then_some(()) }).await;
    assert_eq!(list("monitoring").await, 403);
    let pods: Api<Pod> = Api::all(tina.clone());
    assert_eq!(code(pods.list(&ListParams::default()).await.map(drop)), 403);
    let web: Api<Deployment> = Api::namespaced(tina.clone(), "shop");
    assert_eq!(code(web.delete("web", &DeleteParams::default()).await.map(drop)), 403);

    let nobody = running.client_as("nobody").await;
    let shop: Api<Deployment> = Api::namespaced(nobody, "shop");
    assert_eq!(code(shop.list(&ListParams::default()).await.map(drop)), 403);
    running.cluster.shut_down().await;
}

#[tokio::test]
async fn pods_print_and_log() {
    let running = Running::start().await;
    running.deploy(1, "nginx").await;
    let name = running.settled(1).await.remove(0);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = get(&running.client, "/api/v1/namespaces/default/pods", accept).await;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns[..4], ["Name", "Ready", "Status", "Restarts"]);
    assert_eq!(table["rows"][0]["cells"][1], "1/1");
    assert_eq!(table["rows"][0]["cells"][2], "Running");

    let pods = running.pods();
    let log = pods.logs(&name, &LogParams::default()).await.unwrap();
    assert!(log.contains("simulated") && log.contains("image nginx"), "{log}");
    let tail = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    assert_eq!(pods.logs(&name, &tail).await.unwrap().lines().count(), 1);

    let exec = http::Request::post(format!("/api/v1/namespaces/default/pods/{name}/exec?command=sh"));
    let refused = running.client.request_text(exec.body(Vec::new()).unwrap()).await;
    let Err(kube::Error::Api(status)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(status.code, 501);
    assert!(status.message.contains("simulated"), "{}", status.message);
    running.cluster.shut_down().await;
}

#[tokio::test]
async fn discovery_and_version_are_those_of_a_cluster() {
    let running = Running::start().await;
    let version = running.client.apiserver_version().await.unwrap();
    assert_eq!(
        (version.minor.as_str(), version.git_version.as_str()),
        ("36", crate::DEFAULT_VERSION)
    );
    let groups = running.client.list_api_groups().await.unwrap();
    for group in [
        "apps",
        "batch",
        "rbac.authorization.k8s.io",
        "discovery.k8s.io",
        "authorization.k8s.io",
    ] {
        assert!(groups.groups.iter().any(|one| one.name == group), "{group}");
    }
    let core = running.client.list_core_api_resources("v1").await.unwrap();
    let names: Vec<&str> = core.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert!(names.contains(&"pods/log") && names.contains(&"nodes"), "{names:?}");
    assert!(!names.contains(&"serviceaccounts/token"));
    let openapi = get(&running.client, "/openapi/v3", "application/json").await;
    assert!(openapi["paths"]["apis/apps/v1"].is_object());
    running.cluster.shut_down().await;
}

#[tokio::test]
async fn namespaces_are_furnished_and_end() {
    let running = Running::start().await;
    let namespaces: Api<Namespace> = Api::all(running.client.clone());
    let shop = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces.create(&PostParams::default(), &shop).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(running.client.clone(), "shop");
    let maps: Api<ConfigMap> = Api::namespaced(running.client.clone(), "shop");
    eventually("the service account", || async {
        accounts.get_opt("default").await.unwrap().map(drop)
    })
    .await;
    eventually("the authority", || async {
        maps.get_opt("kube-root-ca.crt").await.unwrap().map(drop)
    })
    .await;
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    eventually("the namespace to go", || async {
        namespaces.get_opt("shop").await.unwrap().is_none().then_some(())
    })
    .await;
    running.cluster.shut_down().await;
}

#[tokio::test]
async fn a_cluster_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start_on(folder.path()).await;
    running.deploy(2, "nginx").await;
    let names = running.settled(2).await;
    let (uid, address) = (running.cluster.uid().to_owned(), running.cluster.address());
    let token = running.cluster.token().to_owned();
    running.cluster.shut_down().await;
    drop(running);

    let running = Running::start_on(folder.path()).await;
    assert_eq!(running.cluster.uid(), uid);
    assert_eq!(running.cluster.address(), address);
    assert_eq!(running.cluster.token(), token);
    assert_eq!(running.settled(2).await, names);
    let web = running.deployments().get("web").await.unwrap();
    assert_eq!(web.name_any(), "web");
    running.cluster.shut_down().await;
}
