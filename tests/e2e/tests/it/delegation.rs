//! What an aggregated server leaves to its hub, asked of a real kube-apiserver: whose token it is, what somebody may do,
//! whose certificates and headers count.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::user::UserInfo;
use umbra_auth::authenticate::{AuthenticationError, Credentials};
use umbra_auth::certificates::CertificateAuthority;
use umbra_auth::delegation::{
    AccessReviewOptions, AccessReviews, AlwaysAllow, DelegatedAuthorizer, HubReviewer, Patience, TokenReviewOptions,
    TokenReviews, VirtualGroup,
};
use umbra_auth::rbac::Attributes;
use umbra_auth::trust::{ClientTrust, TrustKeeper, TrustOptions};
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment;
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;

/// The hub, with an identity that may ask it and nothing else: what an installation grants.
struct Asked {
    cluster: Cluster,
    runtime: Runtime,
    /// Asks as the service account `umbra-system/umbra`.
    client: kube::Client,
}

const GRANTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: umbra-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: umbra, namespace: umbra-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: umbra-auth-delegator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:auth-delegator'}
subjects: [{kind: ServiceAccount, name: umbra, namespace: umbra-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: umbra-authentication-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: umbra, namespace: umbra-system}]
";

static ASKED: LazyLock<Option<Asked>> = LazyLock::new(|| {
    let programs = environment::programs()?;
    let cluster = Cluster::start(programs, "delegation");
    cluster.kubectl().apply(GRANTS);
    let token = token(cluster.kubectl(), "umbra-system", "umbra", "");
    let runtime = Runtime::new().expect("a runtime");
    let client = client(&runtime, cluster.folder(), cluster.server(), token);
    Some(Asked {
        cluster,
        runtime,
        client,
    })
});

/// A token of a service account.
fn token(kubectl: &Kubectl, namespace: &str, name: &str, flag: &str) -> String {
    let command = format!("create token {name} -n {namespace} {flag}");
    kubectl.ok(command).trim().to_owned()
}

/// A client that proves itself with a token.
fn client(runtime: &Runtime, authority: &Path, server: &str, token: String) -> kube::Client {
    let kubeconfig = identity::write_kubeconfig(
        &environment::folder("delegation-kubeconfig").join("kubeconfig"),
        &[Context {
            name: "asks",
            server: server.to_owned(),
            authority_pem: identity::authority(authority).certificate_pem(),
            credential: &Credential::Token(token),
        }],
    );
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        kube::Client::try_from(config.expect("a configuration")).expect("a client")
    })
}

impl Asked {
    fn tokens(&self, audiences: &[&str]) -> TokenReviews {
        tokens_by(self.client.clone(), audiences)
    }

    fn judge(&self, tokens: &TokenReviews, token: &str) -> Result<Arc<UserInfo>, AuthenticationError> {
        self.runtime.block_on(tokens.authenticate_token(token))
    }

    /// Makes a namespace with a service account.
    fn service_account(&self, namespace: &str, name: &str) {
        let kubectl = self.cluster.kubectl();
        kubectl.ok(["create", "namespace", namespace]);
        kubectl.ok(["create", "serviceaccount", name, "-n", namespace]);
    }
}

fn tokens_by(client: kube::Client, audiences: &[&str]) -> TokenReviews {
    let options = TokenReviewOptions {
        audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        ..TokenReviewOptions::default()
    };
    TokenReviews::new(Arc::new(HubReviewer::new(client)), options)
}

#[test]
fn a_token_is_whose_the_hub_says_until_it_is_revoked() {
    let Some(asked) = &*ASKED else { return };
    let namespace = "delegation-tokens";
    asked.service_account(namespace, "robot");
    let kubectl = asked.cluster.kubectl();
    let good = token(kubectl, namespace, "robot", "");
    let tokens = asked.tokens(&[]);
    let user = asked.judge(&tokens, &good).expect("a good token");
    assert_eq!(user.name, format!("system:serviceaccount:{namespace}:robot"));
    for group in [
        &format!("system:serviceaccounts:{namespace}"),
        "system:serviceaccounts",
        "system:authenticated",
    ] {
        assert!(user.in_group(group), "{user:?}");
    }
    assert!(!user.uid.is_empty());
    let credential = &user.extra["authentication.kubernetes.io/credential-id"];
    assert!(credential[0].starts_with("JTI="), "{credential:?}");

    for _ in 0..100 {
        asked.judge(&tokens, &good).expect("a token that is remembered");
    }
    assert_eq!((tokens.statistics().asked, tokens.statistics().remembered), (1, 100));

    let refused = asked.judge(&tokens, "guess").expect_err("nobody's token");
    assert!(!refused.is_unjudged(), "{refused}");

    kubectl.ok(["delete", "serviceaccount", "robot", "-n", namespace]);
    let refused = wait::until("the refusal of a revoked token", wait::DEADLINE, || {
        asked
            .judge(&tokens, &good)
            .map_or_else(Ok, |user| Err(format!("{user:?}")))
    });
    assert!(matches!(refused, AuthenticationError::Token(_)), "{refused}");
}

#[test]
fn a_token_for_somebody_else_is_refused() {
    let Some(asked) = &*ASKED else { return };
    let namespace = "delegation-audiences";
    asked.service_account(namespace, "robot");
    let kubectl = asked.cluster.kubectl();
    let for_umbra = token(kubectl, namespace, "robot", "--audience=umbra");
    let for_hub = token(kubectl, namespace, "robot", "");
    let (umbra, hub) = (asked.tokens(&["other", "umbra"]), asked.tokens(&[]));
    asked.judge(&umbra, &for_umbra).expect("a token for this server");
    asked.judge(&hub, &for_hub).expect("a token for the hub");
    for (tokens, token) in [(&umbra, &for_hub), (&hub, &for_umbra)] {
        let refused = asked.judge(tokens, token).expect_err("a token for somebody else");
        assert!(!refused.is_unjudged(), "{refused}");
    }
}

#[test]
fn a_hub_that_cannot_be_asked_lets_nobody_in() {
    let Some(asked) = &*ASKED else { return };
    let namespace = "delegation-outage";
    asked.service_account(namespace, "robot");
    let good = token(asked.cluster.kubectl(), namespace, "robot", "");
    let client = |server: &str| client(&asked.runtime, asked.cluster.folder(), server, good.clone());

    // Whoever may not ask is told what is missing.
    let forbidden = tokens_by(client(asked.cluster.server()), &[]);
    let error = asked
        .judge(&forbidden, &good)
        .expect_err("a question that is forbidden");
    assert!(error.is_unjudged(), "{error}");
    assert!(
        error.to_string().contains("bind ClusterRole system:auth-delegator"),
        "{error}"
    );

    let nobody = client(&format!("https://127.0.0.1:{}", environment::free_port()));
    let options = AccessReviewOptions {
        patience: Patience {
            deadline: Duration::from_secs(2),
            ..Patience::default()
        },
        ..AccessReviewOptions::default()
    };
    let reviews = AccessReviews::new(Arc::new(HubReviewer::new(nobody)), &options);
    let authorizer = DelegatedAuthorizer::new(AlwaysAllow::default(), reviews);
    let gate = Attributes::resource("get", "umbra.dev", "views/proxy", "", "all");
    let alice = UserInfo::new("alice", ["dev"]);
    asked
        .runtime
        .block_on(authorizer.authorize(&alice, &gate))
        .expect_err("nobody to ask");
    assert!(!asked.runtime.block_on(authorizer.decide(&alice, &gate)).is_allowed());
    let live = Attributes::path("get", "/livez");
    assert!(asked.runtime.block_on(authorizer.decide(&alice, &live)).is_allowed());
}

const PERMISSIONS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: tenants}
rules:
- {apiGroups: [umbra.dev], resources: [views/proxy], resourceNames: [shop], verbs: [get]}
- {apiGroups: [apps.view.umbra.dev], resources: [deployments], verbs: [list]}
- {apiGroups: [core.fleet.umbra.dev], resources: [configmaps], verbs: [create]}
- {nonResourceURLs: [/metrics], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: tenants}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tenants}
subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: tenants}]
";

#[test]
fn the_hubs_roles_decide_on_gates_and_on_groups_that_no_server_has() {
    let Some(asked) = &*ASKED else { return };
    let kubectl = asked.cluster.kubectl();
    kubectl.apply(PERMISSIONS);
    let reviews = AccessReviews::new(
        Arc::new(HubReviewer::new(asked.client.clone())),
        &AccessReviewOptions::default(),
    );
    let authorizer = DelegatedAuthorizer::new(AlwaysAllow::default(), reviews);
    let allowed = |user: &UserInfo, attributes: &Attributes<'_>| {
        let decided = asked.runtime.block_on(authorizer.authorize(user, attributes));
        decided.unwrap_or_else(|error| panic!("{error}")).is_allowed()
    };
    let tenant = UserInfo::new("alice", ["tenants"]);
    let enter = |verb, view| Attributes::resource(verb, "umbra.dev", "views/proxy", "", view);
    wait::until("the roles", wait::DEADLINE, || {
        let allowed = allowed(&tenant, &enter("get", "shop"));
        allowed.then_some(()).ok_or_else(|| "not allowed".to_owned())
    });
    let (apps, core) = (VirtualGroup::View.of("apps"), VirtualGroup::Fleet.of(""));
    let metrics = Attributes::path("get", "/metrics");
    let stranger = UserInfo::new("alice", ["visitors"]);
    for (attributes, expected) in [
        (enter("get", "shop"), true),
        (enter("get", "bank"), false),
        (enter("create", "shop"), false),
        (Attributes::resource("list", &apps, "deployments", "shop", ""), true),
        (Attributes::resource("list", "apps", "deployments", "shop", ""), false),
        (Attributes::resource("create", &core, "configmaps", "shop", ""), true),
        (Attributes::resource("create", "", "configmaps", "shop", ""), false),
        (metrics, true),
    ] {
        assert_eq!(allowed(&tenant, &attributes), expected, "{attributes:?}");
        assert!(!allowed(&stranger, &attributes), "{attributes:?}");
    }
    kubectl.ok(["delete", "clusterrolebinding", "tenants"]);
    wait::until("the refusal of what was withdrawn", wait::DEADLINE, || {
        let allowed = allowed(&tenant, &metrics);
        (!allowed).then_some(()).ok_or_else(|| "still allowed".to_owned())
    });
}

/// Whom a certificate of `authority` with this name, beside a header that names `mallory`, proves.
fn proves(trust: &ClientTrust, authority: &CertificateAuthority, name: &str) -> Result<Option<String>, String> {
    let issued = identity::certificate(authority, name, &[]);
    let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("a certificate");
    let headers = [(
        "x-remote-user".parse().expect("a name"),
        "mallory".parse().expect("a value"),
    )];
    let credentials = Credentials {
        peer_certificates: &[certificate],
        headers: &headers.into_iter().collect(),
    };
    let judged = trust.authenticators().authenticate(&credentials, UnixTime::now());
    judged
        .map(|user| user.map(|user| user.name))
        .map_err(|error| error.to_string())
}

#[test]
fn certificates_and_front_proxies_are_those_that_the_hub_publishes() {
    let Some(asked) = &*ASKED else { return };
    let read = |file: &str| {
        let path = asked.cluster.folder().join("pki").join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let proxies = CertificateAuthority::from_pem(&read("front-proxy-ca.crt"), &read("front-proxy-ca.key"))
        .expect("the authority of the cluster's front proxies");
    let clients = identity::authority(asked.cluster.folder());
    let keeper = TrustKeeper::new(TrustOptions::default(), Some(asked.client.clone()));
    let trust = keeper.trust();
    asked.runtime.block_on(keeper.load()).expect("what the hub publishes");

    let is = |name: &str| Ok(Some(name.to_owned()));
    assert_eq!(proves(&trust, &clients, "alice"), is("alice"));
    assert_eq!(proves(&trust, &proxies, "front-proxy-client"), is("mallory"));
    proves(&trust, &proxies, "somebody").expect_err("a wrong common name");
    let day = Duration::from_secs(24 * 60 * 60);
    let own = CertificateAuthority::create("front-proxy-ca", day).expect("an authority");
    proves(&trust, &own, "front-proxy-client").expect_err("another authority of the same name");

    let cancelled = CancellationToken::new();
    let following = asked.runtime.spawn(keeper.follow(cancelled.clone()));
    // As an operator does who renews the authority. The hub's own controller keeps what it finds.
    let both = format!("{}{}", proxies.certificate_pem(), own.certificate_pem());
    let patch = json!({"data": {"requestheader-client-ca-file": both}}).to_string();
    let map = "configmap/extension-apiserver-authentication";
    asked
        .cluster
        .kubectl()
        .ok(["patch", map, "-n", "kube-system", "--type=merge", "-p", &patch]);
    wait::until("trust in the new authority", wait::DEADLINE, || {
        let proved = proves(&trust, &own, "front-proxy-client");
        if proved == is("mallory") {
            Ok(())
        } else {
            Err(format!("{proved:?}"))
        }
    });
    assert_eq!(proves(&trust, &proxies, "front-proxy-client"), is("mallory"));
    cancelled.cancel();
    asked.runtime.block_on(following).expect("the task ended in order");
}
