//! What the tests share: two clusters, `north` and `south`, both children of one hub, and a third cluster that is free.

use std::ops::Deref;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use umbra_auth::certificates::CertificateAuthority;

use crate::cluster::Cluster;
use crate::environment::{self, Programs};
use crate::hub::Hub;
use crate::identity::{self, Context, Credential};
use crate::kubectl::Kubectl;

/// The names of the two children, as clusters and as children.
pub const CHILDREN: [&str; 2] = ["north", "south"];

/// The clusters and the hub.
#[derive(Debug)]
pub struct World {
    /// The programs.
    pub programs: &'static Programs,
    /// The hub with both children.
    pub hub: Hub,
    /// The children.
    pub children: [Cluster; 2],
}

static WORLD: LazyLock<Option<RwLock<World>>> = LazyLock::new(|| {
    let programs = environment::programs()?;
    let hub = Hub::start(programs, &[]);
    let children = CHILDREN.map(|name| Cluster::start(programs, name));
    for child in &children {
        hub.join(&child.name, &child.name, &child.kubeconfig()).expect_success();
    }
    for child in &children {
        hub.wait_for_child(&child.name);
    }
    Some(RwLock::new(World {
        programs,
        hub,
        children,
    }))
});

static SPARE: LazyLock<Mutex<Cluster>> = LazyLock::new(|| {
    let programs = environment::programs().expect("whoever asks has the programs");
    Mutex::new(Cluster::start(programs, "spare"))
});

/// A user with a kubeconfig for the hub and for the children.
#[derive(Debug)]
pub struct User {
    /// The contexts `hub`, `view`, `fleet`, and for each child `NAME` through the hub and `NAME-direct`.
    pub kubectl: Kubectl,
    /// The certificate that the hub accepts.
    pub certificate: umbra_auth::certificates::IssuedCertificate,
}

impl World {
    /// The world, beside other tests; `None` where the programs are not there.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn shared() -> Option<RwLockReadGuard<'static, Self>> {
        // Asked first, so that every test that is skipped says so.
        environment::programs()?;
        Some(WORLD.as_ref()?.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The world without other tests, for those that kill the hub.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn exclusive() -> Option<RwLockWriteGuard<'static, Self>> {
        environment::programs()?;
        Some(WORLD.as_ref()?.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The third cluster, to which only the holder does anything. To be asked for after the world.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn spare() -> impl Deref<Target = Cluster> {
        let guard: MutexGuard<'static, Cluster> = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        guard
    }

    /// A user with a certificate of the hub and one of each child.
    ///
    /// # Panics
    /// Where one cannot be issued.
    #[must_use]
    #[track_caller]
    pub fn user(&self, name: &str, groups: &[&str]) -> User {
        let hub_authority = identity::authority(self.hub.folder());
        let certificate = identity::certificate(&hub_authority, name, groups);
        let through_hub = Credential::Certificate(certificate.clone());
        let mut direct: Vec<(String, CertificateAuthority, Credential)> = Vec::new();
        for child in &self.children {
            let authority = identity::authority(child.folder());
            let credential = Credential::Certificate(identity::certificate(&authority, name, groups));
            direct.push((format!("{}-direct", child.name), authority, credential));
        }
        let hub_pem = hub_authority.certificate_pem();
        let through = |name, server| Context {
            name,
            server,
            authority_pem: hub_pem,
            credential: &through_hub,
        };
        let mut contexts = vec![
            through("hub", self.hub.url()),
            through("view", self.hub.view_url()),
            through("fleet", self.hub.fleet_url()),
        ];
        for (child, (name, authority, credential)) in self.children.iter().zip(&direct) {
            contexts.push(through(&child.name, self.hub.cluster_url(&child.name)));
            let server = child.server().to_owned();
            contexts.push(Context {
                name,
                server,
                authority_pem: authority.certificate_pem(),
                credential,
            });
        }
        let path = environment::folder(name).join("kubeconfig");
        identity::write_kubeconfig(&path, &contexts);
        User {
            kubectl: Kubectl::new(self.programs, &path),
            certificate,
        }
    }
}
