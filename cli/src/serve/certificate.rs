//! The serving certificate: from files that somebody else writes, or of an authority of the hub's own, of which the
//! APIService is told.
//!
//! With an authority of its own, a server looks once a minute whether the authority was renewed, whether the APIService
//! trusts it, and whether the certificate is for the Service that the APIService names. The APIService is told first, and a
//! new authority's certificate is shown [`PROPAGATION`] later, so that kube-apiserver knows it by then. Agents are told with every
//! certificate that they get ([`HubTrust`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_api::SYSTEM_NAMESPACE;
use umbra_auth::tls::ReloadableServingCertificate;
use umbra_auth::trust::{FollowedFiles, TrustError};
use umbra_registry::hub::agents::HubTrust;

use super::authority::{SERVING, SharedAuthority};
use super::plan::CertificatePlan;

/// The Service where no APIService says another one.
const SERVICE: (&str, &str) = (SYSTEM_NAMESPACE, "umbra");
/// How long a certificate lasts: a month, so that one that leaks is worth little.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// When another is issued: after two thirds, which leaves ten days for whatever keeps it from being issued.
const RENEWAL: Duration = Duration::from_secs(20 * 24 * 60 * 60);
/// How often it is looked whether everything is as it should be.
const PERIOD: Duration = Duration::from_secs(60);
/// The same while it is not.
const IMPATIENT: Duration = Duration::from_secs(5);
/// How long kube-apiserver may take to hear of a change of the APIService; its informers take less than a second.
const PROPAGATION: Duration = Duration::from_secs(10);
/// As whom the APIService is written.
const FIELD_MANAGER: &str = "umbra-serve";

/// Gives the certificate to show, and keeps it up to date in a task of `tracker` until `cancel`. What is to be trusted for it goes
/// into `trust`, where it is of the own authority.
///
/// # Errors
/// Where there is none to begin with.
pub(super) async fn serve(
    plan: CertificatePlan,
    hub: &kube::Client,
    address: IpAddr,
    trust: &HubTrust,
    tracker: &TaskTracker,
    cancel: CancellationToken,
) -> Result<ReloadableServingCertificate> {
    match plan {
        CertificatePlan::Files {
            certificate,
            key,
            serving,
        } => {
            let files = FollowedFiles::new(vec![certificate.clone(), key]);
            let shown = serving.clone();
            tracker.spawn(files.follow(cancel, move |contents| {
                let [chain, key] = contents else { return Ok(()) };
                shown.replace(chain, key).map_err(|source| TrustError::Bundle {
                    origin: certificate.display().to_string(),
                    source,
                })
            }));
            Ok(serving)
        }
        CertificatePlan::Own { api_service } => {
            let mut keeper = Keeper::new(hub.clone(), api_service, address, trust.clone());
            let (names, authority) = keeper.ask().await?;
            let serving = keeper.issue(&authority, names)?;
            tracker.spawn(async move { cancel.run_until_cancelled(keeper.run()).await });
            Ok(serving)
        }
    }
}

/// Keeps a certificate of the hub's own authority up to date.
struct Keeper {
    hub: kube::Client,
    services: Api<APIService>,
    api_service: String,
    address: IpAddr,
    trust: HubTrust,
    shown: Option<Shown>,
    /// Whether somebody was told that there is no APIService.
    missing: bool,
}

/// The certificate that is shown now.
struct Shown {
    serving: ReloadableServingCertificate,
    authority: Arc<str>,
    names: Vec<String>,
    issued: Instant,
}

impl Keeper {
    fn new(hub: kube::Client, api_service: String, address: IpAddr, trust: HubTrust) -> Self {
        Self {
            services: Api::all(hub.clone()),
            hub,
            api_service,
            address,
            trust,
            shown: None,
            missing: false,
        }
    }

    async fn run(mut self) {
        let mut said = String::new();
        loop {
            let pause = match self.step().await {
                Ok(()) if self.missing => IMPATIENT,
                Ok(()) => {
                    said.clear();
                    PERIOD
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    if text != said {
                        tracing::warn!(error = text, "the serving certificate is not kept up to date");
                        said = text;
                    }
                    IMPATIENT
                }
            };
            // Not all replicas at once.
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
    }

    async fn step(&mut self) -> Result<()> {
        let (names, authority) = self.ask().await?;
        let same_authority = self
            .shown
            .as_ref()
            .is_some_and(|shown| *shown.authority == *authority.authority.certificate_pem());
        let is_current = self
            .shown
            .as_ref()
            .is_some_and(|shown| same_authority && shown.names == names && shown.issued.elapsed() < RENEWAL);
        if is_current {
            return Ok(());
        }
        if !same_authority {
            tokio::time::sleep(PROPAGATION).await;
        }
        self.issue(&authority, names)?;
        tracing::info!("another serving certificate is shown");
        Ok(())
    }

    /// The names that the certificate needs, and the authority, of which the APIService has been told.
    async fn ask(&mut self) -> Result<(Vec<String>, SharedAuthority)> {
        let authority = SharedAuthority::load(&self.hub, &SERVING).await?;
        self.trust.replace(&String::from_utf8_lossy(&authority.trusted));
        let name = &self.api_service;
        let present = self.services.get_opt(name).await;
        let present = present.with_context(|| format!("the APIService {name} of the hub cluster cannot be read"))?;
        let spec = present.and_then(|service| service.spec);
        if spec.is_none() && !self.missing {
            tracing::warn!(
                name,
                "the hub cluster has no such APIService, so it sends no requests here; apply the manifests"
            );
        }
        self.missing = spec.is_none();
        let mut service = None;
        if let Some(spec) = spec {
            if spec.ca_bundle.as_ref().map(|bundle| &bundle.0) != Some(&authority.trusted) {
                self.tell(&authority.trusted).await?;
            }
            service = spec.service;
        }
        let service = service.map(|service| {
            let part = |part: Option<String>, default: &str| part.unwrap_or_else(|| default.to_owned());
            (part(service.namespace, SERVICE.0), part(service.name, SERVICE.1))
        });
        let (namespace, name) = service.unwrap_or_else(|| (SERVICE.0.to_owned(), SERVICE.1.to_owned()));
        Ok((names(&namespace, &name, self.address), authority))
    }

    async fn tell(&self, trusted: &[u8]) -> Result<()> {
        let name = &self.api_service;
        let bundle = ByteString(trusted.to_vec());
        // A caBundle and to verify nothing exclude each other.
        let patch = json!({"spec": {"caBundle": bundle, "insecureSkipTLSVerify": null}});
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.services
            .patch(name, &parameters, &Patch::Merge(patch))
            .await
            .with_context(|| format!("the caBundle of the APIService {name} cannot be written"))?;
        tracing::info!(name, "the APIService trusts the serving certificate");
        Ok(())
    }

    /// Shows a new certificate.
    fn issue(&mut self, authority: &SharedAuthority, names: Vec<String>) -> Result<ReloadableServingCertificate> {
        let issued = authority.authority.issue_serving(&names, LIFETIME)?;
        let (chain, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        let serving = match self.shown.take() {
            Some(shown) => {
                shown.serving.replace(chain, key)?;
                shown.serving
            }
            None => ReloadableServingCertificate::from_pem(chain, key)?,
        };
        self.shown = Some(Shown {
            serving: serving.clone(),
            authority: authority.authority.certificate_pem().into(),
            names,
            issued: Instant::now(),
        });
        Ok(serving)
    }
}

/// What a client may call this server: kube-apiserver by the Service's DNS name, others by what they have.
fn names(namespace: &str, service: &str, address: IpAddr) -> Vec<String> {
    let mut names = vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    names
}
