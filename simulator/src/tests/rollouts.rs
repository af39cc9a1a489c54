use k8s_openapi::api::apps::v1::{DaemonSet, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::support::{Running, eventually, is_ready};

#[tokio::test]
async fn deployments_become_pods_that_are_kept_scaled_and_rolled_out() {
    let running = Running::start().await;
    running.deploy(3, "nginx:1").await;
    let names = running.settled(3).await;
    let web = running.rolled_out().await;
    assert_eq!(web.annotations()["deployment.kubernetes.io/revision"], "1");
    let pod = running.pods().get(&names[0]).await.unwrap();
    let status = pod.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.pod_ip.unwrap().starts_with("10.24"));
    assert_eq!(pod.spec.unwrap().service_account_name.as_deref(), Some("default"));

    // One that is deleted is replaced.
    running
        .pods()
        .delete(&names[0], &DeleteParams::default())
        .await
        .unwrap();
    eventually("the pod to go", || async {
        running.pods().get_opt(&names[0]).await.unwrap().is_none().then_some(())
    })
    .await;
    let replaced = running.settled(3).await;
    assert!(
        !replaced.contains(&names[0]) && replaced.contains(&names[1]),
        "{replaced:?}"
    );

    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    running
        .deployments()
        .patch_scale("web", &PatchParams::default(), &scale)
        .await
        .unwrap();
    running.settled(1).await;

    // Another template rolls out, here by server-side apply as a hub does it.
    let image = json!([{"name": "web", "image": "nginx:2"}]);
    let apply = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "template": {"spec": {"containers": image}}},
    });
    let as_umbra = PatchParams::apply("umbra").force();
    running
        .deployments()
        .patch("web", &as_umbra, &Patch::Apply(&apply))
        .await
        .unwrap();
    let web = running.rolled_out().await;
    assert_eq!(web.annotations()["deployment.kubernetes.io/revision"], "2");
    for name in running.settled(2).await {
        let pod = running.pods().get(&name).await.unwrap();
        assert_eq!(pod.spec.unwrap().containers[0].image.as_deref(), Some("nginx:2"));
    }
    // Applying the same again changes nothing.
    let again = running
        .deployments()
        .patch("web", &as_umbra, &Patch::Apply(&apply))
        .await
        .unwrap();
    let now = running.deployments().get("web").await.unwrap();
    assert_eq!(again.metadata.generation, now.metadata.generation);
    let managers = now.metadata.managed_fields.unwrap();
    assert!(managers.iter().any(|one| one.manager.as_deref() == Some("umbra")));

    // The owner takes all that is its own along.
    running
        .deployments()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    running.settled(0).await;
    let sets: Api<ReplicaSet> = Api::namespaced(running.client.clone(), "default");
    eventually("the replica sets to go", || async {
        sets.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
            .then_some(())
    })
    .await;
    running.cluster.shut_down().await;
}

#[tokio::test]
async fn a_broken_image_leaves_what_runs() {
    let running = Running::start().await;
    running.deploy(2, "nginx:1").await;
    running.settled(2).await;
    let broken =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "registry.invalid/web:2"}]}}}});
    let params = PatchParams::default();
    running
        .deployments()
        .patch("web", &params, &Patch::Strategic(broken))
        .await
        .unwrap();
    eventually("a pod that waits for its image", || async {
        let pods = running.pods().list(&ListParams::default()).await.unwrap();
        let reason = |pod: &Pod| {
            let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
            status.state.as_ref()?.waiting.as_ref()?.reason.clone()
        };
        pods.items
            .iter()
            .any(|pod| reason(pod).as_deref() == Some("ImagePullBackOff"))
            .then_some(())
    })
    .await;
    assert_eq!(running.ready_pods().await.len(), 2);
    running.cluster.shut_down().await;
}

#[tokio::test]
async fn the_sample_workloads_run() {
    let running = Running::start().await;
    let objects = crate::workloads::objects("west");
    assert_eq!(running.cluster.create_missing(&objects).await.unwrap(), objects.len());
    assert_eq!(running.cluster.create_missing(&objects).await.unwrap(), 0);

    let client = || running.client.clone();
    let nodes: Api<Node> = Api::all(client());
    assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items.len(), 3);
    let agents: Api<DaemonSet> = Api::namespaced(client(), "monitoring");
    eventually("an agent on every node", || async {
        let status = agents.get("agent").await.unwrap().status?;
        (status.number_ready == 3 && status.desired_number_scheduled == 3).then_some(())
    })
    .await;
    let ledgers: Api<StatefulSet> = Api::namespaced(client(), "billing");
    eventually("the ledger", || async {
        let status = ledgers.get("ledger").await.unwrap().status?;
        (status.ready_replicas == Some(2) && status.current_revision == status.update_revision).then_some(())
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(client(), "billing");
    assert!(is_ready(&pods.get("ledger-1").await.unwrap()));

    let services: Api<Service> = Api::namespaced(client(), "shop");
    let address = services.get("web").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    assert!(address.starts_with("10.96."), "{address}");
    let slices: Api<EndpointSlice> = Api::namespaced(client(), "shop");
    eventually("the endpoints of web", || async {
        let slice = slices.get_opt("web-0").await.unwrap()?;
        let ready = slice.endpoints.iter().flatten();
        let ready = ready.filter(|one| one.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true));
        let port = slice.ports.as_ref()?.first()?.port;
        (ready.count() == 2 && port == Some(8080)).then_some(())
    })
    .await;
    running.cluster.shut_down().await;
}

#[tokio::test]
async fn jobs_end() {
    let running = Running::start().await;
    let jobs: Api<Job> = Api::namespaced(running.client.clone(), "default");
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
        "spec": {"completions": 2, "parallelism": 2, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}],
        }}},
    });
    jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap())
        .await
        .unwrap();
    eventually("the job to be complete", || async {
        let status = jobs.get("once").await.unwrap().status?;
        let complete = status
            .conditions
            .iter()
            .flatten()
            .any(|one| one.type_ == "Complete" && one.status == "True");
        (complete && status.succeeded == Some(2)).then_some(())
    })
    .await;
    running.cluster.shut_down().await;
}
