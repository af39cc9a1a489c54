use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn deployment(replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "uid": "d", "generation": 1, "annotations": {"a": "b"}},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

/// The cluster as it becomes when plans are carried out and pods become ready at once, or not.
struct World {
    deployment: Value,
    sets: Vec<Value>,
    ready: fn(&Value) -> bool,
}

impl World {
    fn new(deployment: Value) -> Self {
        Self {
            deployment,
            sets: Vec::new(),
            ready: |_| true,
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.deployment, &self.sets, now())
    }

    /// One step of the Deployment; then each ReplicaSet makes its pods. Answers whether anything changed.
    fn step(&mut self) -> bool {
        let plan = self.plan();
        let mut changed = !plan.create.is_empty() || !plan.update.is_empty() || !plan.delete.is_empty();
        self.sets.extend(plan.create);
        for set in plan.update {
            let found = self.sets.iter_mut().find(|one| one.name() == set.name());
            *found.unwrap() = set;
        }
        self.sets
            .retain(|set| !plan.delete.iter().any(|name| set.name() == name));
        if let Some(annotated) = plan.annotated {
            self.deployment = annotated;
            changed = true;
        }
        changed |= self.deployment["status"] != plan.status;
        self.deployment["status"] = plan.status;
        for set in &mut self.sets {
            let replicas = set["spec"]["replicas"].clone();
            let ready = if (self.ready)(set) { replicas.clone() } else { 0.into() };
            let status = json!({"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready});
            changed |= set["status"] != status;
            set["status"] = status;
        }
        changed
    }

    /// Steps until nothing changes, and checks after each that the bounds are kept.
    fn settle(&mut self, most: i64, least: i64) {
        for _ in 0..100 {
            if !self.step() {
                return;
            }
            let sum = |field: &str| self.sets.iter().map(|set| count(&set["status"], field)).sum::<i64>();
            assert!(sum("replicas") <= most, "{}", sum("replicas"));
            assert!(sum("availableReplicas") >= least, "{}", sum("availableReplicas"));
        }
        panic!("the rollout does not come to an end");
    }

    fn progressing(&self) -> &str {
        let conditions = self.deployment["status"]["conditions"].as_array().unwrap();
        let progressing = conditions.iter().find(|one| one["type"] == "Progressing").unwrap();
        progressing["reason"].as_str().unwrap()
    }

    fn images(&self) -> Vec<(&str, i64)> {
        let of = |set: &Value| count(&set["spec"], "replicas");
        self.sets
            .iter()
            .map(|set| {
                (
                    set["spec"]["template"]["spec"]["containers"][0]["image"]
                        .as_str()
                        .unwrap(),
                    of(set),
                )
            })
            .collect()
    }

    fn set_image(&mut self, image: &str) {
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        let generation = count(&self.deployment["metadata"], "generation") + 1;
        self.deployment["metadata"]["generation"] = generation.into();
    }
}

#[test]
fn a_new_deployment_is_complete_and_has_revision_1() {
    let mut world = World::new(deployment(4, "nginx:1"));
    world.settle(4, 0);
    assert_eq!(world.images(), [("nginx:1", 4)]);
    let set = &world.sets[0];
    assert_eq!(set.annotation(REVISION), Some("1"));
    assert_eq!(set.annotation("a"), Some("b"));
    assert_eq!(
        set["metadata"]["labels"][TEMPLATE_HASH],
        set["spec"]["selector"]["matchLabels"][TEMPLATE_HASH]
    );
    assert_eq!(world.deployment.annotation(REVISION), Some("1"));
    let status = &world.deployment["status"];
    assert_eq!(
        (count(status, "readyReplicas"), count(status, "observedGeneration")),
        (4, 1)
    );
    assert_eq!(world.progressing(), "NewReplicaSetAvailable");
    assert_eq!(world.plan().again, None);
}

#[test]
fn a_rolling_update_keeps_its_bounds() {
    let mut world = World::new(deployment(4, "nginx:1"));
    world.settle(4, 0);
    world.set_image("nginx:2");
    // 25% of 4 is one more and one less.
    world.settle(5, 3);
    assert_eq!(world.images(), [("nginx:1", 0), ("nginx:2", 4)]);
    assert_eq!(world.deployment.annotation(REVISION), Some("2"));
    // Back again: the same ReplicaSet, as revision 3.
    world.set_image("nginx:1");
    world.settle(5, 3);
    assert_eq!(world.images(), [("nginx:1", 4), ("nginx:2", 0)]);
    assert_eq!(world.deployment.annotation(REVISION), Some("3"));
}

#[test]
fn history_is_limited() {
    let mut world = World::new(deployment(1, "nginx:1"));
    for image in ["nginx:1", "nginx:2", "nginx:3", "nginx:4"] {
        world.set_image(image);
        world.settle(2, 0);
    }
    assert_eq!(world.images(), [("nginx:3", 0), ("nginx:4", 1)]);
}

#[test]
fn recreation_stops_everything_first() {
    let mut world = World::new(deployment(3, "nginx:1"));
    world.deployment["spec"]["strategy"] = json!({"type": "Recreate"});
    world.settle(3, 0);
    world.set_image("nginx:2");
    world.settle(3, 0);
    assert_eq!(world.images(), [("nginx:1", 0), ("nginx:2", 3)]);
}

#[test]
fn a_rollout_that_gets_stuck_keeps_what_runs_and_says_so() {
    let mut world = World::new(deployment(4, "nginx:1"));
    world.settle(4, 0);
    world.ready = |set| set["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1";
    world.set_image("broken");
    world.settle(5, 3);
    assert_eq!(world.images(), [("nginx:1", 3), ("broken", 2)]);
    assert_eq!(world.progressing(), "ReplicaSetUpdated");
    assert!(world.plan().again.is_some());
    let later = now().saturating_add(SignedDuration::from_secs(601)).unwrap();
    let plan = plan(&world.deployment, &world.sets, later);
    let conditions = plan.status["conditions"].as_array().unwrap();
    let progressing = conditions.iter().find(|one| one["type"] == "Progressing").unwrap();
    assert_eq!(progressing["reason"], "ProgressDeadlineExceeded");
    assert_eq!(plan.again, None);
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut world = World::new(deployment(2, "nginx:1"));
    world.settle(2, 0);
    world.deployment["spec"]["paused"] = true.into();
    world.deployment["spec"]["replicas"] = 3.into();
    world.settle(3, 0);
    assert_eq!(world.images(), [("nginx:1", 3)]);
    world.set_image("nginx:2");
    world.settle(3, 3);
    assert_eq!(world.images(), [("nginx:1", 3)]);
}
