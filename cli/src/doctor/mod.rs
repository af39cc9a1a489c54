//! `umbra doctor`: looks at an installation, and says what is wrong and how to mend it.
//!
//! Every check is one function that reads what it needs and one that judges it, without asking anybody: objects in, findings out.
//! All of them run at once, each with a deadline. What may not be read is said to be not checked; what does not apply to a
//! standalone hub is left out there.

mod api_service;
mod asking;
mod certificates;
mod children;
mod clock;
mod credentials;
mod deployment;
mod encryption;
mod finding;
mod front_proxy;
mod hub;
mod rbac;
mod report;
mod store;
mod x509;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;

use crate::kubeconfig::source::Source;
use asking::{ANSWER, Hub, Read};
use finding::{Finding, Level};
use hub::Mode;

/// How long all questions of one kind may take: three answers one after another, and a little more.
const DEADLINE: Duration = Duration::from_secs(35);

/// What `umbra doctor` takes.
#[derive(Args)]
pub(crate) struct DoctorArguments {
    /// The kubeconfig with the context of the hub [default: $KUBECONFIG or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the hub, preferably of an administrator [default: the current one].
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
    /// The namespace of the hub cluster that umbra runs in.
    #[arg(long, default_value = umbra_api::SYSTEM_NAMESPACE, value_name = "NAMESPACE")]
    namespace: String,
    /// How to show what was found.
    #[arg(short, long, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    output: Output,
}

/// How findings are shown.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// A line for each, and what to do below.
    Text,
    /// As JSON.
    Json,
}

/// Looks, and shows what was found.
///
/// # Errors
/// Where something is wrong, and where nothing can be looked at.
pub(crate) async fn run(arguments: DoctorArguments) -> Result<()> {
    let source = Source::load(arguments.kubeconfig.as_deref())?;
    let chosen = source.choose(arguments.context.as_deref())?;
    let hub = Hub {
        client: chosen.client(ANSWER).await?,
        server: chosen.hub.clone(),
        namespace: arguments.namespace,
        now: Timestamp::now(),
    };
    let findings = look(&hub).await;
    let mut out = std::io::stdout().lock();
    match arguments.output {
        Output::Text => {
            let colour =
                std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            report::text(&mut out, &findings, colour)?;
        }
        Output::Json => report::machine(&mut out, &findings)?,
    }
    match report::count(&findings, Level::Wrong) {
        0 => Ok(()),
        1 => bail!("something is wrong with the hub"),
        wrong => bail!("{wrong} things are wrong with the hub"),
    }
}

/// All checks.
async fn look(hub: &Hub) -> Vec<Finding> {
    let (mut findings, mode) = hub::check(hub).await;
    match mode {
        None => {}
        Some(Mode::Standalone) => {
            let (certificates, store, children) = tokio::join!(
                within("certificates", certificates::standalone(&hub.server, hub.now)),
                within("store", store::standalone(hub)),
                within("children", children::check(hub)),
            );
            findings.extend([certificates, store, children].concat());
        }
        Some(Mode::Aggregated) => findings.extend(aggregated(hub).await),
    }
    findings
}

/// The checks of a hub behind a kube-apiserver.
async fn aggregated(hub: &Hub) -> Vec<Finding> {
    let (client, namespace) = (&hub.client, &hub.namespace);
    let api_services: Api<APIService> = Api::all(client.clone());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let found = async {
        tokio::join!(
            hub.get(api_services, api_service::NAME),
            hub.own(Api::namespaced(client.clone(), namespace)),
            hub.pods(),
            hub.get(secrets.clone(), certificates::SECRET),
            hub.get(secrets.clone(), encryption::SECRET),
            hub.get(config_maps, front_proxy::NAME),
        )
    };
    let Ok((api_service, deployments, pods, authority, keys, front_proxy)) =
        tokio::time::timeout(DEADLINE, found).await
    else {
        return vec![too_slow("hub")];
    };
    let front_proxy = front_proxy::judge(&front_proxy, hub.now);
    // Of what is not installed nothing else can be right.
    let nothing_runs = matches!(&deployments, Read::There(deployments) if deployments.is_empty());
    if matches!(api_service, Read::Missing) && nothing_runs {
        return [api_service::judge(&api_service, None), front_proxy].concat();
    }
    let available = api_service::is_available(&api_service);
    let (reached, rbac, store, children) = tokio::join!(
        within("api-service", reached(hub, &api_service, &authority)),
        within("rbac", rbac::check(hub, &deployments)),
        within("store", store::aggregated(hub, &pods, available)),
        within("children", children::check(hub)),
    );
    [
        reached,
        front_proxy,
        rbac,
        deployment::judge(namespace, &deployments, &pods),
        store,
        vec![encryption::judge(namespace, &keys, &deployments, available)],
        children,
    ]
    .concat()
}

/// Whether kube-apiserver reaches umbra and trusts it.
async fn reached(hub: &Hub, api_service: &Read<APIService>, authority: &Read<Secret>) -> Vec<Finding> {
    let found = api_service::find(hub, api_service).await;
    let mut findings = api_service::judge(api_service, found.as_ref());
    if let (Read::There(api_service), Some(found)) = (api_service, &found) {
        let served = certificates::served(api_service, &found.service).await;
        findings.extend(certificates::judge(api_service, authority, served.as_ref(), hub.now));
    }
    findings
}

/// What a check finds before the deadline.
async fn within(check: &'static str, found: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    let found = tokio::time::timeout(DEADLINE, found).await;
    found.unwrap_or_else(|_| vec![too_slow(check)])
}

fn too_slow(check: &'static str) -> Finding {
    let message = format!("no answer within {} s", DEADLINE.as_secs());
    Finding::wrong(
        check,
        message,
        "look at the log of the hub's API server: it answers other questions",
    )
}
