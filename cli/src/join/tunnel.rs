//! `umbra join NAME --tunnel`: registers a cluster that the hub cannot dial, and prints what is to be applied in it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use umbra_api::cluster::{Approval, ConnectionMode, ManagedCluster};
use umbra_api::join_request::BOOTSTRAP_TOKEN_PREFIX;
use umbra_auth::tokens::BootstrapToken;
use url::Url;

use super::{hub, rehearsal};
use crate::duration::duration;
use crate::registration::{administrators_binding, binding_name};
use crate::up::data_dir::HUB_CONTEXT;

/// The field manager of what is written, as of `umbra join` without `--tunnel`.
const FIELD_MANAGER: &str = "umbra-join";
/// What the agent is made of.
const MANIFEST: &str = include_str!("../../../manifests/agent/agent.yaml");
/// The APIService of a hub behind a kube-apiserver.
const API_SERVICE: &str = "v1alpha1.umbra.dev";

/// What `--tunnel` takes beside.
#[derive(Args)]
pub(crate) struct TunnelArguments {
    /// The hub does not dial the cluster: print the manifest of an agent that opens a tunnel to the hub. Run it again for
    /// another bootstrap token; the one before counts no more.
    #[arg(long, help_heading = "Tunnel")]
    pub(super) tunnel: bool,
    /// The hub's own address, as agents reach it [default: the server of the hub's kubeconfig, where that is of `umbra up`].
    #[arg(long, value_name = "URL", requires = "tunnel", help_heading = "Tunnel")]
    agent_hub: Option<Url>,
    /// The authorities that agents verify the hub by at first, as PEM; later the hub tells them what else to trust [default: that of
    /// the hub's kubeconfig, or of its APIService].
    #[arg(long, value_name = "FILE", requires = "tunnel", help_heading = "Tunnel")]
    agent_hub_ca_file: Option<PathBuf>,
    /// How long the bootstrap token counts.
    #[arg(long, default_value = "24h", value_name = "DURATION", requires = "tunnel", help_heading = "Tunnel",
        value_parser = lifetime)]
    token_lifetime: Duration,
    /// Let nobody join who has the token: a person approves with `umbra approve`.
    #[arg(long, requires = "tunnel", help_heading = "Tunnel")]
    manual_approval: bool,
    /// The image of the agent.
    #[arg(
        long,
        default_value = "umbra:dev",
        value_name = "IMAGE",
        requires = "tunnel",
        help_heading = "Tunnel"
    )]
    agent_image: String,
    /// Print the bootstrap token alone.
    #[arg(long, requires = "tunnel", help_heading = "Tunnel")]
    token_only: bool,
}

/// What of `umbra join` concerns both ways to join.
pub(super) struct Registered<'a> {
    pub(super) name: &'a str,
    pub(super) labels: &'a [(String, String)],
    pub(super) hub_kubeconfig: Option<&'a Path>,
    pub(super) admin_binding: bool,
}

/// Where agents reach the hub, and what they trust there.
struct Reached {
    url: Url,
    authority_pem: Vec<u8>,
    server_name: String,
}

/// Registers the cluster and prints the manifest.
///
/// # Errors
/// What the hub says, and where it is not known how agents reach it.
pub(super) async fn run(registered: Registered<'_>, arguments: &TunnelArguments) -> Result<()> {
    let name = registered.name;
    let (hub, path) = hub::connect(registered.hub_kubeconfig).await?;
    let before = registered_before(&hub, name).await?;
    let reached = reached(&hub, &path, arguments).await?;
    let administrators = match registered.admin_binding && !arguments.token_only {
        true => Some(hub::administrators(&hub).await?),
        false => None,
    };
    let token = BootstrapToken::generate(BOOTSTRAP_TOKEN_PREFIX, name)
        .context("the operating system gives no random bytes to make a token of")?;
    let manual = arguments.manual_approval || before.as_ref().is_some_and(is_manual);
    let wanted = managed_cluster(&registered, before.as_ref(), arguments.token_lifetime, manual, &token)?;
    let cluster = write_cluster(&hub, name, &wanted, before.is_some()).await?;
    let text = match arguments.token_only {
        true => format!("{}\n", token.expose()),
        false => {
            let binding = administrators.map(|who| administrators_binding(&binding_name(&cluster), &who));
            let registration = cluster.uid().unwrap_or_default();
            let agent = manifest(name, &registration, &reached, &token, &arguments.agent_image);
            // JSON is YAML.
            let binding = binding.map_or(String::new(), |binding| {
                format!("---\n# To make the hub's administrators administrators of this cluster.\n{binding:#}\n")
            });
            agent + &binding
        }
    };
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Nobody has the token, so nothing could ever join as this cluster.
        if before.is_none() {
            hub::unregister(&hub, name, |_| {}).await?;
        }
        return Err(error).context("what the cluster needs cannot be printed, so it was not registered");
    }
    if before.is_some() {
        eprintln!("{name} was registered already: its token from before counts no more, agents that have joined stay.");
    }
    if manual && !arguments.manual_approval {
        eprintln!("A person still has to approve its agents, as it was registered with --manual-approval.");
    }
    if arguments.token_only {
        return Ok(());
    }
    eprintln!("{name} is registered. Apply what was printed in the cluster, with `kubectl apply -f -`.");
    if manual {
        eprintln!("When its agent asks to join: umbra approve {name}");
    }
    Ok(())
}

/// The cluster of this name, where it is one that has or will have a tunnel. Refuses a name that a cluster has which the hub dials.
async fn registered_before(hub: &Client, name: &str) -> Result<Option<ManagedCluster>> {
    let clusters = hub::clusters(hub).await?;
    let before = clusters
        .into_iter()
        .find(|one| one.metadata.name.as_deref() == Some(name));
    if let Some(before) = &before
        && before.spec.connection.mode != ConnectionMode::Tunnel
    {
        bail!(
            "the name {name} is taken by a cluster that the hub dials; choose another one, or run `umbra leave {name}` first"
        );
    }
    Ok(before)
}

fn is_manual(cluster: &ManagedCluster) -> bool {
    let settings = cluster.spec.connection.tunnel.as_ref();
    settings.is_some_and(|settings| settings.approval == Approval::Manual)
}

/// What is applied. Labels that were given before stay where none are given now.
fn managed_cluster(
    registered: &Registered<'_>,
    before: Option<&ManagedCluster>,
    token_lifetime: Duration,
    manual: bool,
    token: &BootstrapToken,
) -> Result<Value> {
    let expires = Timestamp::now() + jiff::SignedDuration::try_from(token_lifetime)?;
    let approval = if manual { "Manual" } else { "Token" };
    let mut labels: BTreeMap<String, String> = registered.labels.iter().cloned().collect();
    if let Some(before) = before.filter(|_| labels.is_empty()) {
        labels.clone_from(before.labels());
    }
    Ok(json!({
        "apiVersion": umbra_api::API_VERSION,
        "kind": "ManagedCluster",
        "metadata": {"name": registered.name, "labels": labels},
        "spec": {"connection": {
            "mode": "Tunnel",
            "tunnel": {"bootstrapTokenHash": token.hash(), "approval": approval,
                "bootstrapTokenExpires": umbra_apimachinery::age::rfc3339(expires)},
        }},
    }))
}

/// Writes it: a new one only where nobody else has made one of the name meanwhile.
async fn write_cluster(hub: &Client, name: &str, wanted: &Value, there: bool) -> Result<ManagedCluster> {
    let clusters: Api<ManagedCluster> = Api::all(hub.clone());
    let written = if there {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        clusters.patch(name, &parameters, &Patch::Apply(wanted)).await
    } else {
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        clusters
            .create(&parameters, &serde_json::from_value(wanted.clone())?)
            .await
    };
    written.map_err(|error| rehearsal::explained(error.into(), name))
}

/// How agents reach the hub. A hub of `umbra up` is reached as its kubeconfig says; behind a kube-apiserver it has an address
/// of its own, which only whoever runs it knows.
async fn reached(hub: &Client, path: &Path, arguments: &TunnelArguments) -> Result<Reached> {
    let file = Kubeconfig::read_from(path)?;
    let own = file.contexts.iter().find(|context| context.name == HUB_CONTEXT);
    let own = own.and_then(|context| {
        let name = &context.context.as_ref()?.cluster;
        file.clusters.iter().find(|one| one.name == *name)?.cluster.as_ref()
    });
    let url = match (&arguments.agent_hub, own) {
        (Some(url), _) => url.clone(),
        (None, Some(own)) => own.server.as_deref().unwrap_or_default().parse()?,
        (None, None) => bail!(
            "say how agents reach the hub itself, not the kube-apiserver in front of it: --agent-hub https://ADDRESS of its Service"
        ),
    };
    let (authority_pem, server_name) = match (&arguments.agent_hub_ca_file, own) {
        (Some(file), _) => {
            let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            (pem, String::new())
        }
        (None, Some(own)) => {
            let data = own.certificate_authority_data.as_deref().unwrap_or_default();
            (BASE64.decode(data)?, String::new())
        }
        (None, None) => {
            let services: Api<APIService> = Api::all(hub.clone());
            let service = services.get(API_SERVICE).await;
            let spec = service
                .with_context(|| format!("the APIService {API_SERVICE} cannot be read; give --agent-hub-ca-file"))?
                .spec
                .unwrap_or_default();
            let bundle = spec
                .ca_bundle
                .context("the APIService has no caBundle; give --agent-hub-ca-file")?;
            let service = spec.service.unwrap_or_default();
            // The certificate is for the Service, whatever stands in front of it.
            let name = service.name.unwrap_or_default();
            (
                bundle.0,
                format!("{name}.{}.svc", service.namespace.unwrap_or_default()),
            )
        }
    };
    let server_name = match (server_name.is_empty(), url.host_str()) {
        (false, _) => server_name,
        (true, host) => host.unwrap_or_default().trim_matches(['[', ']']).to_owned(),
    };
    Ok(Reached {
        url,
        authority_pem,
        server_name,
    })
}

fn manifest(cluster: &str, registration: &str, reached: &Reached, token: &BootstrapToken, image: &str) -> String {
    let values = [
        ("${CLUSTER}", cluster),
        ("${REGISTRATION}", registration),
        ("${HUB}", reached.url.as_str().trim_end_matches('/')),
        ("${HUB_TLS_SERVER_NAME}", &reached.server_name),
        ("${HUB_CA}", &BASE64.encode(&reached.authority_pem)),
        ("${TOKEN}", &BASE64.encode(token.expose())),
        ("${IMAGE}", image),
    ];
    let text = MANIFEST.replace("# `umbra join ${CLUSTER} --tunnel` fills in what is in ${…}.\n", "");
    values
        .iter()
        .fold(text, |text, (name, value)| text.replace(name, value))
}

/// Not nothing.
fn lifetime(text: &str) -> Result<Duration, String> {
    Some(duration(text)?)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a token that has expired is of no use".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_filled_in() {
        let reached = Reached {
            url: "https://hub.test:7443".parse().unwrap(),
            authority_pem: b"pem".to_vec(),
            server_name: "hub.test".to_owned(),
        };
        let token = BootstrapToken::generate(BOOTSTRAP_TOKEN_PREFIX, "east").unwrap();
        let text = manifest("east", "u1", &reached, &token, "registry.test/umbra:1");
        assert!(!text.contains("${"), "{text}");
        for expected in [
            "--hub=https://hub.test:7443\n",
            "--cluster=east",
            "umbra.dev/registration: u1",
            "image: registry.test/umbra:1",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
        assert!(!text.contains(token.expose()), "Secrets hold base64");
        assert!(lifetime("24h").is_ok() && lifetime("0s").is_err() && lifetime("soon").is_err());
    }
}
