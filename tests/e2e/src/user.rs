//! Users, whom the hub knows and the children too, each by what it makes of them.

use umbra_auth::certificates::{CertificateAuthority, IssuedCertificate};

use crate::environment;
use crate::identity::{self, Context, Credential};
use crate::kubectl::Kubectl;
use crate::world::World;

/// Where the service accounts of the tests are on the hub.
const ROBOTS: &str = "e2e-robots";

/// How a user proves who it is to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// With a client certificate.
    Certificate,
    /// With the token of a service account of the hub.
    Token,
}

/// A user with a kubeconfig for the hub and for the children.
#[derive(Debug)]
pub struct User {
    /// The contexts `hub`, `view`, `fleet`, and for each child `NAME` through the hub and `NAME-direct`, where the user has a
    /// certificate of the child with the name and groups that the hub forwards.
    pub kubectl: Kubectl,
    /// What names of objects for this user begin with.
    pub short_name: String,
    /// What the hub calls the user.
    pub name: String,
    /// What the children call the user.
    pub name_on_children: String,
    credential: Credential,
}

impl User {
    #[track_caller]
    pub(crate) fn create(world: &World, proof: Proof, short_name: &str, groups: &[&str]) -> Self {
        let authority = identity::authority(world.hub.folder());
        let (name, name_on_children, forwarded, credential) = match proof {
            Proof::Certificate => (
                short_name.to_owned(),
                short_name.to_owned(),
                groups.iter().map(|group| (*group).to_owned()).collect(),
                Credential::Certificate(identity::certificate(&authority, short_name, groups)),
            ),
            Proof::Token => {
                let name = format!("system:serviceaccount:{ROBOTS}:{short_name}");
                let forwarded = vec![
                    "hub:system:serviceaccounts".to_owned(),
                    format!("hub:system:serviceaccounts:{ROBOTS}"),
                ];
                // No service account of the hub is one of a child.
                let there = format!("hub:{name}");
                (name, there, forwarded, Credential::Token(token(world, short_name)))
            }
        };
        let path = environment::folder(short_name).join("kubeconfig");
        write_kubeconfig(world, &path, (&authority, &credential), (&name_on_children, &forwarded));
        Self {
            kubectl: Kubectl::new(world.programs, &path),
            short_name: short_name.to_owned(),
            name,
            name_on_children,
            credential,
        }
    }

    /// Lets the user enter the view and the roots of the children; what is there for whom, the children say.
    ///
    /// # Panics
    /// Where the hub refuses.
    #[track_caller]
    pub fn let_in(&self, world: &World) {
        let (hub, role) = (world.hub.root(), format!("enter-{}", self.short_name));
        hub.ok([
            "create",
            "clusterrole",
            &role,
            "--verb=get,create,update,patch,delete",
            "--resource=views.umbra.dev/proxy,managedclusters.umbra.dev/proxy",
        ]);
        let (role_flag, user_flag) = (format!("--clusterrole={role}"), format!("--user={}", self.name));
        hub.ok(["create", "clusterrolebinding", &role, &role_flag, &user_flag]);
    }

    /// The certificate, where the user proves itself with one.
    #[must_use]
    pub fn certificate(&self) -> Option<&IssuedCertificate> {
        match &self.credential {
            Credential::Certificate(certificate) => Some(certificate),
            _ => None,
        }
    }

    /// The value of the header `Authorization`, where the user proves itself with a token.
    #[must_use]
    pub fn authorization(&self) -> Option<String> {
        match &self.credential {
            Credential::Token(token) => Some(format!("Bearer {token}")),
            _ => None,
        }
    }
}

/// A token of a service account of the hub, which is made first.
#[track_caller]
fn token(world: &World, name: &str) -> String {
    let hub = world.hub.root();
    let made = hub.run(["create", "namespace", ROBOTS]);
    assert!(made.succeeded() || made.stderr.contains("AlreadyExists"), "{made}");
    let hub = hub.namespace(ROBOTS);
    hub.ok(["create", "serviceaccount", name]);
    hub.ok(["create", "token", name]).trim().to_owned()
}

#[track_caller]
fn write_kubeconfig(
    world: &World,
    path: &std::path::Path,
    (authority, through_hub): (&CertificateAuthority, &Credential),
    (name, groups): (&str, &[String]),
) {
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let direct: Vec<(String, CertificateAuthority, Credential)> = world
        .children
        .iter()
        .map(|child| {
            let authority = identity::authority(child.folder());
            let credential = Credential::Certificate(identity::certificate(&authority, name, &groups));
            (format!("{}-direct", child.name), authority, credential)
        })
        .collect();
    let through = |name, server| Context {
        name,
        server,
        authority_pem: authority.certificate_pem(),
        credential: through_hub,
    };
    let mut contexts = vec![
        through("hub", world.hub.url()),
        through("view", world.hub.view_url()),
        through("fleet", world.hub.fleet_url()),
    ];
    for (child, (name, authority, credential)) in world.children.iter().zip(&direct) {
        contexts.push(through(&child.name, world.hub.cluster_url(&child.name)));
        contexts.push(Context {
            name,
            server: child.server().to_owned(),
            authority_pem: authority.certificate_pem(),
            credential,
        });
    }
    identity::write_kubeconfig(path, &contexts);
}
