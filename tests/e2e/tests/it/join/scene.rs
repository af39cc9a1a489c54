//! A hub of the form that is asked for, a cluster that could join it, and a server in front of the cluster that says what is not so.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use umbra_e2e::altered::{Alteration, Altered};
use umbra_e2e::any_hub::AnyHub;
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment;
use umbra_e2e::hub::umbra;
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::kubectl::{Kubectl, Outcome};
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;

use super::{difference, inventory, token};
use crate::sorted_lines;

/// What it is called, on the hub and as a context.
pub(super) const GUEST: &str = "guest";

pub(super) struct Scene<'a> {
    pub(super) world: &'a World,
    pub(super) hub: Box<dyn AnyHub>,
    pub(super) cluster: Box<dyn Deref<Target = Cluster> + 'a>,
    pub(super) altered: Altered,
    folder: PathBuf,
    before: Vec<String>,
}

/// What an administrator of a hub has there.
fn on_hub(hub: &dyn AnyHub) -> Vec<String> {
    let root = hub.root();
    let clusters = root.ok("get managedclusters,clusterjoinrequests -o name");
    let secrets = root.ok("get secrets -n umbra-system -o name");
    sorted_lines(&(clusters + &secrets))
}

impl<'a> Scene<'a> {
    pub(super) fn start(world: &'a World) -> Self {
        let cluster = World::spare();
        let hub = world.another_hub();
        let authority = identity::authority(cluster.folder());
        let altered = Altered::start(port(cluster.server()), &authority);
        let folder = environment::folder("guest");
        let before = [on_hub(&*hub), inventory(&cluster)].concat();
        Self {
            world,
            hub,
            cluster: Box::new(cluster),
            altered,
            folder,
            before,
        }
    }

    /// A kubeconfig with the context [`GUEST`].
    pub(super) fn kubeconfig(
        &self,
        name: &str,
        server: &str,
        authority_folder: &Path,
        credential: &Credential,
    ) -> PathBuf {
        let authority = identity::authority(authority_folder);
        let context = Context {
            name: GUEST,
            server: server.to_owned(),
            authority_pem: authority.certificate_pem(),
            credential,
        };
        identity::write_kubeconfig(&self.folder.join(name), &[context])
    }

    /// One that leads to the altered server, with the cluster's administrator.
    pub(super) fn altered_kubeconfig(&self) -> PathBuf {
        let credential = Credential::Token(token(&self.cluster));
        self.kubeconfig("altered", &self.altered.url(), self.cluster.folder(), &credential)
    }

    /// A kubeconfig of somebody with a certificate of the cluster.
    pub(super) fn kubeconfig_of(&self, user: &str) -> PathBuf {
        let authority = identity::authority(self.cluster.folder());
        let credential = Credential::Certificate(identity::certificate(&authority, user, &[]));
        self.kubeconfig(user, self.cluster.server(), self.cluster.folder(), &credential)
    }

    /// A kubeconfig of somebody with a certificate of the hub.
    pub(super) fn hub_kubeconfig_of(&self, user: &str) -> PathBuf {
        let authority = identity::authority(self.hub.folder());
        let credential = Credential::Certificate(identity::certificate(&authority, user, &[]));
        self.kubeconfig(user, &self.hub.url(), self.hub.folder(), &credential)
    }

    /// `umbra join guest` with flags.
    pub(super) fn command(&self, kubeconfig: &Path, flags: &[&str]) -> Command {
        let mut command = umbra(self.world.programs);
        command
            .args(["join", GUEST, "--context", GUEST, "--kubeconfig"])
            .arg(kubeconfig)
            .arg("--hub-kubeconfig")
            .arg(self.hub.kubeconfig())
            .args(flags);
        command
    }

    #[track_caller]
    pub(super) fn join(&self, kubeconfig: &Path, flags: &[&str]) -> Outcome {
        Outcome::of(self.command(kubeconfig, flags), "")
    }

    /// Joining fails, says all of this, and leaves nothing behind.
    #[track_caller]
    pub(super) fn refused(&self, kubeconfig: &Path, flags: &[&str], expected: &[&str]) {
        self.was_refused(self.join(kubeconfig, flags), expected);
    }

    #[track_caller]
    pub(super) fn was_refused(&self, outcome: Outcome, expected: &[&str]) {
        let said = outcome.expect_failure();
        for text in expected {
            assert!(said.contains(text), "{text:?} is not said: {said}");
        }
        assert!(!said.contains("warning: not all"), "{said}");
        self.nothing_is_left(expected.first().unwrap_or(&""));
    }

    /// Hub and cluster are as they were at the beginning.
    #[track_caller]
    pub(super) fn nothing_is_left(&self, when: &str) {
        wait::until(&format!("{when}: nothing is left"), wait::DEADLINE, || {
            let after = [on_hub(&*self.hub), inventory(&self.cluster)].concat();
            match after == self.before {
                true => Ok(()),
                false => Err(difference(&self.before, &after)),
            }
        });
    }

    /// What there is now is how it is to be.
    pub(super) fn begin_anew(&mut self) {
        self.before = [on_hub(&*self.hub), inventory(&self.cluster)].concat();
    }

    pub(super) fn alter(&self, alteration: Alteration) {
        self.altered.alter(alteration);
    }

    pub(super) fn kubectl_on_hub_as(&self, user: &str) -> Kubectl {
        Kubectl::new(self.world.programs, &self.hub_kubeconfig_of(user))
    }
}

/// The port of a URL.
#[track_caller]
pub(super) fn port(url: &str) -> u16 {
    let port = url
        .rsplit(':')
        .next()
        .and_then(|port| port.trim_end_matches('/').parse().ok());
    port.unwrap_or_else(|| panic!("{url} has no port"))
}

/// Waits until a process has said something.
#[track_caller]
pub(super) fn says(process: &Process, text: &str) {
    wait::until(text, wait::DEADLINE, || {
        let said = process.output();
        if said.contains(text) { Ok(()) } else { Err(said) }
    });
}
