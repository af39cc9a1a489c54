//! Clients that change objects of children over and over, directly, while something else happens.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::Duration;

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// Between two changes of one child: 25 changes a second leave most of a small machine to what is tested.
const PERIOD: Duration = Duration::from_millis(40);
/// Every so many changes of an object that is there it is deleted, and made again later.
const DELETION: usize = 8;

/// One writer for each child, until they are stopped.
#[derive(Debug)]
pub struct Writers {
    cancelled: CancellationToken,
    threads: Vec<JoinHandle<usize>>,
}

impl Writers {
    /// Makes so many ConfigMaps in a namespace of every child, and begins to change, delete and make them.
    ///
    /// # Panics
    /// Where they cannot be made.
    #[must_use]
    #[track_caller]
    pub fn start(children: &[Cluster], namespace: &str, objects: usize) -> Self {
        let cancelled = CancellationToken::new();
        let (filled, all_filled) = std::sync::mpsc::channel();
        let threads = children.iter().map(|child| {
            let (kubeconfig, namespace) = (child.kubeconfig(), namespace.to_owned());
            let (cancelled, filled) = (cancelled.clone(), filled.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
                    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
                    let client = kube::Client::try_from(config.expect("a configuration")).expect("a client");
                    let mut writer = Writer::new(client, &namespace);
                    writer.fill(objects).await;
                    filled.send(()).expect("somebody waits");
                    writer.write_until(&cancelled).await
                })
            })
        });
        let threads: Vec<_> = threads.collect();
        for _ in &threads {
            all_filled.recv().expect("the writers begin");
        }
        Self { cancelled, threads }
    }

    /// Stops them, and says how many changes they have made.
    ///
    /// # Panics
    /// Where a change has failed.
    #[must_use]
    #[track_caller]
    pub fn stop(self) -> usize {
        self.cancelled.cancel();
        let changes = self.threads.into_iter().map(|thread| thread.join());
        changes.map(|changes| changes.expect("every change succeeds")).sum()
    }
}

/// Changes the objects of one child. It is alone with them, so it knows which of them are there.
struct Writer {
    api: Api<DynamicObject>,
    exists: BTreeMap<String, bool>,
}

impl Writer {
    fn new(client: kube::Client, namespace: &str) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"));
        Self {
            api: Api::namespaced_with(client, namespace, &resource),
            exists: BTreeMap::new(),
        }
    }

    async fn fill(&mut self, objects: usize) {
        for number in 0..objects {
            self.create(&format!("item-{number:03}"), number).await;
        }
    }

    async fn create(&mut self, name: &str, number: usize) {
        let made = object(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"made": number.to_string()}},
            "data": {"number": number.to_string()},
        }));
        let answer = self.api.create(&PostParams::default(), &made).await;
        answer.unwrap_or_else(|error| panic!("creating {name}: {error}"));
        self.exists.insert(name.to_owned(), true);
    }

    async fn write_until(&mut self, cancelled: &CancellationToken) -> usize {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let names: Vec<String> = self.exists.keys().cloned().collect();
        let mut changes = 0;
        while !cancelled.is_cancelled() {
            ticks.tick().await;
            // A stride that has no factor in common with any number of objects below it: all of them come, in no order.
            self.change(&names[changes * 7919 % names.len()], changes).await;
            changes += 1;
        }
        changes
    }

    async fn change(&mut self, name: &str, number: usize) {
        if !self.exists[name] {
            self.create(name, number).await;
        } else if number.is_multiple_of(DELETION) {
            let answer = self.api.delete(name, &DeleteParams::default()).await;
            answer.unwrap_or_else(|error| panic!("deleting {name}: {error}"));
            self.exists.insert(name.to_owned(), false);
        } else {
            let patch = Patch::Merge(json!({"data": {"number": number.to_string()}}));
            let answer = self.api.patch(name, &PatchParams::default(), &patch).await;
            answer.unwrap_or_else(|error| panic!("changing {name}: {error}"));
        }
    }
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).expect("an object")
}
