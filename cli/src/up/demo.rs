//! `umbra up --demo`: three simulated children with sample workloads.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;
use umbra_api::ADMINISTRATORS;
use umbra_simulator::{Data, Options, SimulatedCluster, workloads};

use crate::hub::Hub;
use crate::progress::Progress;
use crate::registration::{Administrators, Registration, administrators_binding, register, wait_until_ready};

/// The simulated children and where each says it is.
const CLUSTERS: [(&str, &str); 3] = [("east", "eu-central"), ("west", "us-west"), ("edge", "eu-central")];

/// How long the copies of the three children may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to try on the demo.
pub(crate) const TRY: [&str; 5] = [
    "kubectl --context umbra-view get pods -A",
    "kubectl --context umbra-view get deploy -A -l umbra.dev/cluster=west",
    "kubectl --context umbra-view scale deploy/web@east -n shop --replicas=4",
    "kubectl --context umbra-fleet apply -f examples/web/",
    "kubectl --context umbra-view get pods -A -w",
];

/// Simulated children that run.
pub(crate) struct Demo {
    cancel: CancellationToken,
    tracker: tokio_util::task::TaskTracker,
}

impl Demo {
    /// Ends the children.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Starts the children and joins them, where they are not joined yet.
///
/// # Errors
/// Where a child does not start or cannot be joined.
pub(crate) async fn start(data_dir: &Path, hub: &Hub, progress: &mut Progress) -> Result<Demo> {
    let demo = Demo {
        cancel: CancellationToken::new(),
        tracker: tokio_util::task::TaskTracker::new(),
    };
    for (name, region) in CLUSTERS {
        progress.step(format!("simulating cluster {name}"));
        let options = Options {
            data: Data::Path(data_dir.join("demo").join(name)),
            ..Options::new(name)
        };
        let cluster = SimulatedCluster::start(options, &demo.tracker, demo.cancel.child_token())
            .await
            .with_context(|| format!("the simulated cluster {name} does not start"))?;
        cluster
            .create_missing(&[administrators_binding(ADMINISTRATORS, &Administrators::Group)])
            .await?;
        cluster.create_missing(&workloads::objects(name)).await?;
        let registration = Registration {
            name: name.to_owned(),
            kubeconfig: cluster.kubeconfig().clone(),
            labels: [
                ("region".to_owned(), region.to_owned()),
                ("umbra.dev/simulated".to_owned(), "true".to_owned()),
            ]
            .into(),
        };
        register(hub.client(), &registration).await?;
    }
    progress.step("copying the clusters");
    for (name, _) in CLUSTERS {
        wait_until_ready(hub.client(), name, PATIENCE, |text| progress.detail(text)).await?;
    }
    Ok(demo)
}
