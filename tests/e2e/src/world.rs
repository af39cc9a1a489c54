//! What the tests share: two clusters, `north` and `south`, both children of one hub, and a third cluster that is free.
//!
//! The hub has the form that `E2E_HUB` names: what works on a hub alone has to work behind a kube-apiserver, too.

use std::ops::Deref;
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::aggregated::Aggregated;
use crate::any_hub::AnyHub;
use crate::cluster::Cluster;
use crate::environment::{self, Form, Programs};
use crate::hub::Hub;
use crate::kubectl::Kubectl;
use crate::turn::Shared;
use crate::user::{Proof, User};
use crate::wait;

/// The names of the two children, as clusters and as children.
pub const CHILDREN: [&str; 2] = ["north", "south"];

/// The clusters and the hub.
#[derive(Debug)]
pub struct World {
    /// The programs.
    pub programs: &'static Programs,
    /// The hub with both children.
    pub hub: Box<dyn AnyHub>,
    /// The children.
    pub children: [Cluster; 2],
    robot: OnceLock<User>,
}

static WORLD: LazyLock<Option<World>> = LazyLock::new(|| {
    let programs = environment::programs()?;
    let world = World {
        programs,
        hub: start_hub(programs, "hub", &[]),
        children: CHILDREN.map(|name| Cluster::start(programs, name)),
        robot: OnceLock::new(),
    };
    for child in &world.children {
        world
            .hub
            .join(&child.name, &child.name, &child.kubeconfig())
            .expect_success();
    }
    for name in CHILDREN {
        world.hub.wait_for_child(name);
    }
    Some(world)
});

static SPARE: LazyLock<Mutex<Cluster>> = LazyLock::new(|| {
    let programs = environment::programs().expect("whoever asks has the programs");
    Mutex::new(Cluster::start(programs, "spare"))
});

/// A hub of the form that is asked for, without children. The flags are those of `umbra serve`.
fn start_hub(programs: &Programs, name: &str, flags: &'static [&'static str]) -> Box<dyn AnyHub> {
    match environment::form() {
        Form::Standalone => Box::new(Hub::start(programs, &[])),
        Form::Aggregated => Box::new(Aggregated::start(programs, name, flags)),
    }
}

impl World {
    /// The world, beside other tests; `None` where the programs are not there.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn shared() -> Option<Shared<Self>> {
        // Asked first, so that every test that is skipped says so.
        environment::programs()?;
        Self::started().map(Shared::beside_others)
    }

    /// The world without other tests, for those that kill the hub.
    ///
    /// # Panics
    /// Where it cannot be started, and where the test has asked for something shared before.
    #[must_use]
    pub fn exclusive() -> Option<Shared<Self>> {
        environment::programs()?;
        Self::started().map(Shared::alone)
    }

    pub(crate) fn started() -> Option<&'static Self> {
        WORLD.as_ref()
    }

    /// The third cluster, to which only the holder does anything. To be asked for after the world.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn spare() -> impl Deref<Target = Cluster> {
        let guard: MutexGuard<'static, Cluster> = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        // What the test before has deleted is not to go while this one looks.
        wait::for_text(
            "nothing is being deleted",
            || guard.kubectl().ok("get namespaces"),
            |text| !text.contains("Terminating"),
        );
        guard
    }

    /// Another hub of the same form, without children, for tests that the placements of others would disturb: those are for all
    /// clusters.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn another_hub(&self) -> Box<dyn AnyHub> {
        // Every kind of credential can be tried on it: `umbra up` runs exec plugins, `umbra serve` only where it is told to.
        start_hub(self.programs, "another-hub", &["--allow-exec-credentials"])
    }

    /// A user whom the hub and the children know, and let do nothing yet. With a certificate the user is called `name` everywhere
    /// and is in `groups`; with a token it is a service account of the hub.
    ///
    /// # Panics
    /// Where one cannot be made.
    #[must_use]
    #[track_caller]
    pub fn user(&self, proof: Proof, name: &str, groups: &[&str]) -> User {
        User::create(self, proof, name, groups)
    }

    /// kubectl on the view of all children as administrators who prove themselves in different ways: with a certificate, and with
    /// the token of a service account of the hub. Both may do everything in the children.
    ///
    /// # Panics
    /// Where there is no such service account and none can be made.
    #[must_use]
    #[track_caller]
    pub fn views(&self) -> [Kubectl; 2] {
        let robot = self.robot.get_or_init(|| self.start_robot());
        [self.hub.view(), robot.kubectl.context("view")]
    }

    fn start_robot(&self) -> User {
        let robot = self.user(Proof::Token, "administrator", &[]);
        robot.let_in(self);
        for child in &self.children {
            let there = format!("--user={}", robot.name_on_children);
            child.kubectl().ok([
                "create",
                "clusterrolebinding",
                "e2e-administrator",
                "--clusterrole=cluster-admin",
                &there,
            ]);
        }
        let view = robot.kubectl.context("view");
        wait::for_text(
            "the service account's permissions",
            || view.run("get namespaces -o name").to_string(),
            |text| {
                CHILDREN
                    .iter()
                    .all(|child| text.contains(&format!("kube-system@{child}")))
            },
        );
        robot
    }
}
