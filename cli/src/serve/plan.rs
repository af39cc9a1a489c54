//! What the flags come down to. Whatever is wrong or contradicts itself is found here, all of it at once, before anything is
//! asked of the hub or opened.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use umbra_api::cluster::Sync;
use umbra_apimachinery::user::MASTERS;
use umbra_apiserver::Limits;
use umbra_apiserver::server::ServerOptions;
use umbra_auth::delegation::{AccessReviewOptions, AlwaysAllow, TokenReviewOptions};
use umbra_auth::request_header::RequestHeaderOptions;
use umbra_auth::tls::{CaBundle, ReloadableServingCertificate, TlsOptions};
use umbra_auth::trust::TrustOptions;
use umbra_controllers::cluster::LocalCredentials;

use super::clients::Clients;
use super::flags::{AuthenticationArguments, AuthorizationArguments, ServeArguments, ServingArguments};
use super::limits;
use crate::hub::{AuditArguments, StorageArguments, TunnelArguments};
use crate::up::data_dir::DataDir;

/// What to do.
pub(super) struct Plan {
    pub(super) clients: Clients,
    pub(super) listen: SocketAddr,
    pub(super) server: ServerOptions,
    pub(super) tls: TlsOptions,
    pub(super) limits: Limits,
    pub(super) in_flight: (usize, usize),
    pub(super) sync: Sync,
    pub(super) local_credentials: LocalCredentials,
    pub(super) serve_only: bool,
    pub(super) certificate: CertificatePlan,
    pub(super) trust: TrustOptions,
    pub(super) tolerate_lookup_failure: bool,
    pub(super) tokens: TokenReviewOptions,
    pub(super) always_allow: AlwaysAllow,
    pub(super) access: AccessReviewOptions,
    pub(super) replica_name: Option<String>,
    /// Where other replicas reach this one; `None` where nobody says.
    pub(super) advertised: Option<SocketAddr>,
    pub(super) data: Arc<DataDir>,
    pub(super) tunnels: TunnelArguments,
    pub(super) audit: AuditArguments,
    pub(super) storage: StorageArguments,
}

/// Where the serving certificate comes from.
#[derive(Debug)]
pub(super) enum CertificatePlan {
    /// Somebody else writes these.
    Files {
        certificate: PathBuf,
        key: PathBuf,
        /// What is in them now.
        serving: ReloadableServingCertificate,
    },
    /// An authority of the hub's own, which this APIService is told.
    Own { api_service: String },
}

impl Plan {
    /// What `arguments` say.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub(super) async fn new(arguments: ServeArguments) -> Result<Self> {
        let mut faults = Vec::new();
        let certificate = certificate(&arguments.serving, arguments.api_service, &mut faults);
        let server = limits::server(&arguments.serving, &arguments.limits, &mut faults);
        let tls = limits::tls(&arguments.serving, &mut faults);
        let limits = limits::requests(&arguments.limits, &mut faults);
        let sync = limits::sync(&arguments.controllers, &mut faults);
        if arguments.controllers.serve_only && !arguments.storage.is_shared() {
            faults.push(
                "--serve-only needs --etcd-servers: without, there are no other replicas that could do the work"
                    .to_owned(),
            );
        }
        let trust = trust(&arguments.authentication, &mut faults);
        let always_allow = always_allow(&arguments.authorization, &mut faults);
        let clients = Clients::new(
            arguments.kubeconfig.as_deref(),
            arguments.authentication.authentication_kubeconfig.as_deref(),
            arguments.authorization.authorization_kubeconfig.as_deref(),
            &mut faults,
        )
        .await;
        let data = match DataDir::open(&arguments.data_dir) {
            Ok(data) => Some(data),
            Err(error) => {
                faults.push(format!("{error:#}"));
                None
            }
        };
        if let Some(data) = &data
            && let Err(error) = arguments.storage.check(data)
        {
            faults.push(format!("{error:#}"));
        }
        let (Some(certificate), Some(always_allow), Some(clients), Some(data), []) =
            (certificate, always_allow, clients, data, &faults[..])
        else {
            bail!("umbra cannot serve as the flags say:\n- {}", faults.join("\n- "));
        };
        let serving = &arguments.serving;
        Ok(Self {
            clients,
            listen: SocketAddr::new(serving.bind_address, serving.secure_port),
            server,
            tls,
            limits,
            in_flight: (
                arguments.limits.max_requests_inflight,
                arguments.limits.max_mutating_requests_inflight,
            ),
            sync,
            local_credentials: match arguments.allow_exec_credentials {
                true => LocalCredentials::Allowed,
                false => LocalCredentials::Refused,
            },
            serve_only: arguments.controllers.serve_only,
            certificate,
            trust,
            tolerate_lookup_failure: arguments.authentication.authentication_tolerate_lookup_failure,
            tokens: TokenReviewOptions {
                accepted_lifetime: arguments.authentication.authentication_token_webhook_cache_ttl,
                ..TokenReviewOptions::default()
            },
            always_allow,
            access: AccessReviewOptions {
                allowed_lifetime: arguments.authorization.authorization_webhook_cache_authorized_ttl,
                denied_lifetime: arguments.authorization.authorization_webhook_cache_unauthorized_ttl,
                ..AccessReviewOptions::default()
            },
            replica_name: arguments.replica_name,
            advertised: advertised(arguments.advertise_address, serving),
            data: Arc::new(data),
            tunnels: arguments.tunnels,
            audit: arguments.audit,
            storage: arguments.storage,
        })
    }
}

fn advertised(address: Option<IpAddr>, serving: &ServingArguments) -> Option<SocketAddr> {
    let bound = Some(serving.bind_address).filter(|address| !address.is_unspecified());
    Some(SocketAddr::new(address.or(bound)?, serving.secure_port))
}

fn certificate(serving: &ServingArguments, api_service: String, faults: &mut Vec<String>) -> Option<CertificatePlan> {
    let (certificate, key) = match (&serving.tls_cert_file, &serving.tls_private_key_file) {
        (None, None) => return Some(CertificatePlan::Own { api_service }),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => {
            faults.push("--tls-private-key-file is missing: --tls-cert-file is of no use without".to_owned());
            return None;
        }
        (None, Some(_)) => {
            faults.push("--tls-cert-file is missing: --tls-private-key-file is of no use without".to_owned());
            return None;
        }
    };
    let chain = read("--tls-cert-file", certificate, faults);
    let private = read("--tls-private-key-file", key, faults);
    match ReloadableServingCertificate::from_pem(&chain?, &private?) {
        Ok(serving) => Some(CertificatePlan::Files {
            certificate: certificate.clone(),
            key: key.clone(),
            serving,
        }),
        Err(error) => {
            let error = anyhow::Error::new(error);
            faults.push(format!("--tls-cert-file and --tls-private-key-file: {error:#}"));
            None
        }
    }
}

fn trust(arguments: &AuthenticationArguments, faults: &mut Vec<String>) -> TrustOptions {
    let proxies = &arguments.requestheader_client_ca_file;
    let defaults = RequestHeaderOptions::default();
    let mut taken = |flag: &str, value: &Option<Vec<String>>, default: Vec<String>| match value {
        Some(_) if proxies.is_none() => {
            faults.push(format!(
                "{flag} is of no use without --requestheader-client-ca-file: the hub cluster says it together with its \
                 authorities"
            ));
            default
        }
        Some(value) => value.clone(),
        None => default,
    };
    let request_header = RequestHeaderOptions {
        allowed_names: taken(
            "--requestheader-allowed-names",
            &arguments.requestheader_allowed_names,
            defaults.allowed_names,
        ),
        username_headers: taken(
            "--requestheader-username-headers",
            &arguments.requestheader_username_headers,
            defaults.username_headers,
        ),
        uid_headers: taken(
            "--requestheader-uid-headers",
            &arguments.requestheader_uid_headers,
            defaults.uid_headers,
        ),
        group_headers: taken(
            "--requestheader-group-headers",
            &arguments.requestheader_group_headers,
            defaults.group_headers,
        ),
        extra_header_prefixes: taken(
            "--requestheader-extra-headers-prefix",
            &arguments.requestheader_extra_headers_prefix,
            defaults.extra_header_prefixes,
        ),
    };
    for (flag, path) in [
        ("--client-ca-file", &arguments.client_ca_file),
        ("--requestheader-client-ca-file", proxies),
    ] {
        let Some(path) = path else { continue };
        let Some(pem) = read(flag, path, faults) else { continue };
        match CaBundle::from_pem(&pem) {
            Ok(bundle) if bundle.is_empty() => faults.push(format!("{flag} {} has no certificate", path.display())),
            Ok(_) => {}
            Err(error) => faults.push(format!("{flag} {}: {:#}", path.display(), anyhow::Error::new(error))),
        }
    }
    if arguments.authentication_skip_lookup {
        if proxies.is_none() {
            faults.push(
                "--authentication-skip-lookup needs --requestheader-client-ca-file: without it nobody is known whom the hub \
                 cluster passes on"
                    .to_owned(),
            );
        }
        if arguments.authentication_tolerate_lookup_failure {
            faults.push(
                "--authentication-tolerate-lookup-failure is of no use with --authentication-skip-lookup".to_owned(),
            );
        }
    }
    let options = TrustOptions {
        client_ca_file: arguments.client_ca_file.clone(),
        request_header_client_ca_file: proxies.clone(),
        request_header,
        skip_lookup: arguments.authentication_skip_lookup,
    };
    faults.extend(options.faults().iter().map(ToString::to_string));
    options
}

fn always_allow(arguments: &AuthorizationArguments, faults: &mut Vec<String>) -> Option<AlwaysAllow> {
    match AlwaysAllow::new(vec![MASTERS.to_owned()], &arguments.authorization_always_allow_paths) {
        Ok(always) => Some(always),
        Err(error) => {
            faults.push(format!("--authorization-always-allow-paths: {error}"));
            None
        }
    }
}

fn read(flag: &str, path: &Path, faults: &mut Vec<String>) -> Option<Vec<u8>> {
    match std::fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            faults.push(format!("{flag} {} cannot be read: {error}", path.display()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        serve: ServeArguments,
    }

    async fn faults(flags: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let kubeconfig = folder.path().join("kubeconfig");
        let text =
            "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],
            users: [{name: a, user: {token: t}}], clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]}";
        std::fs::write(&kubeconfig, text).unwrap();
        let common = [
            "umbra",
            "--data-dir",
            data.to_str().unwrap(),
            "--kubeconfig",
            kubeconfig.to_str().unwrap(),
        ];
        let arguments = Command::parse_from(common.iter().chain(flags)).serve;
        match Plan::new(arguments).await {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[tokio::test]
    async fn flags_that_go_together_are_a_plan() {
        let _other_tests_may_have = rustls::crypto::aws_lc_rs::default_provider().install_default();
        assert_eq!(faults(&[]).await, "");
    }

    #[tokio::test]
    async fn all_contradictions_are_told_at_once() {
        let _other_tests_may_have = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let text = faults(&[
            "--tls-cert-file",
            "/nowhere/tls.crt",
            "--client-ca-file",
            "/nowhere/ca.crt",
            "--authentication-kubeconfig",
            "/nowhere/kubeconfig",
            "--requestheader-allowed-names",
            "front-proxy-client,",
            "--authentication-skip-lookup",
            "--authorization-always-allow-paths",
            "/a*b",
            "--max-requests-inflight",
            "0",
            "--encryption-provider-config",
            "/nowhere/encryption.yaml",
            "--request-timeout",
            "0s",
            "--goaway-chance",
            "0.5",
            "--disable-http2-serving",
            "--tls-min-version",
            "VersionTLS13",
            "--tls-cipher-suites",
            "TLS_RSA_WITH_RC4_128_SHA,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "--sync-include",
            "pods,Pods",
            "--sync-exclude",
            "pods",
            "--serve-only",
        ])
        .await;
        for part in [
            "--tls-private-key-file is missing",
            "--client-ca-file /nowhere/ca.crt cannot be read",
            "--authentication-kubeconfig /nowhere/kubeconfig",
            "--requestheader-allowed-names is of no use without --requestheader-client-ca-file",
            "--authentication-skip-lookup needs",
            "--authorization-always-allow-paths",
            "--max-requests-inflight 0",
            "/nowhere/encryption.yaml",
            "--request-timeout 0",
            "--goaway-chance 0.5 is not between",
            "--goaway-chance is of no use with --disable-http2-serving",
            "there is no TLS_RSA_WITH_RC4_128_SHA, but TLS_",
            "names suites of TLS 1.2",
            "--sync-include: \"Pods\" is no pattern",
            "both name pods",
            "--serve-only needs --etcd-servers",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
