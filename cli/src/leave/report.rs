//! What `umbra leave` says at its end: what was deleted in the cluster, and what may still be there.

use std::io::{self, Write};

use anyhow::Error;
use umbra_api::cluster::{ConnectionMode, ManagedCluster};
use umbra_registry::fleet::names::FLEET_LABEL;

use super::agent;
use crate::registration::binding_name;
use crate::terminal::{lines, one_line};

/// What was done in the child, also where it was not completed.
#[derive(Debug, Default)]
pub(super) struct Cleaned {
    /// What fleets had placed.
    pub(super) placed: Vec<String>,
    /// The namespaces that fleets made, which stay.
    pub(super) namespaces: Vec<String>,
    /// The binding of the administrators is deleted.
    pub(super) binding: bool,
    /// What became of the agent's namespace and what belongs to it.
    pub(super) agent: Removal,
    /// Why something may still be there.
    pub(super) failed: Option<Error>,
}

/// What became of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Removal {
    /// It was not there, or is as it was.
    #[default]
    None,
    /// The cluster has begun to delete it, and goes on by itself.
    Begun,
    /// It is gone.
    Done,
}

/// Says it.
///
/// # Errors
/// Where standard output is closed.
pub(super) fn write(
    out: &mut impl Write,
    cluster: &ManagedCluster,
    cleaned: &Cleaned,
    context: &str,
    keep_objects: bool,
) -> io::Result<()> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let binding = binding_name(cluster);
    let tunnelled = cluster.spec.connection.mode == ConnectionMode::Tunnel;
    let what = if tunnelled {
        "its copies are"
    } else {
        "its copies and its credential are"
    };
    writeln!(out, "{name} has left: {what} no longer on the hub")?;
    if cleaned.binding {
        writeln!(out, "deleted from the cluster: ClusterRoleBinding {binding}")?;
    }
    for placed in &cleaned.placed {
        writeln!(out, "deleted from the cluster: {}", one_line(placed))?;
    }
    for namespace in &cleaned.namespaces {
        writeln!(
            out,
            "kept in the cluster: Namespace {}, which a fleet made; delete it if nothing in it is needed",
            one_line(namespace)
        )?;
    }
    if cleaned.agent != Removal::None {
        let begun = match cleaned.agent {
            Removal::Begun => "; the cluster needs a minute for that",
            _ => "",
        };
        writeln!(
            out,
            "deleted from the cluster: Namespace {} with the agent, its ClusterRoles and ClusterRoleBindings{begun}",
            agent::NAMESPACE
        )?;
    }
    let Some(error) = &cleaned.failed else {
        if tunnelled && cleaned.agent == Removal::None {
            writeln!(
                out,
                "the agent does not run in the cluster as `umbra join --tunnel` printed it; stop it where it runs"
            )?;
        }
        return Ok(());
    };
    writeln!(
        out,
        "warning: what Umbra made in the cluster may still be there: {}",
        lines(&format!("{error:#}"))
    )?;
    writeln!(out, "to remove it:")?;
    if !cleaned.binding {
        writeln!(
            out,
            "  kubectl --context {context} delete --ignore-not-found clusterrolebinding {binding}"
        )?;
    }
    if tunnelled && cleaned.agent == Removal::None {
        let roles = agent::ROLES.join(" ");
        writeln!(
            out,
            "  kubectl --context {context} delete --ignore-not-found namespace {}",
            agent::NAMESPACE
        )?;
        writeln!(
            out,
            "  kubectl --context {context} delete --ignore-not-found clusterrole,clusterrolebinding {roles}"
        )?;
    }
    if !keep_objects {
        writeln!(
            out,
            "and what `kubectl --context {context} get all -A -l {FLEET_LABEL}` shows"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use serde_json::json;

    use super::*;

    fn said(mode: &str, cleaned: &Cleaned) -> String {
        let cluster = json!({"apiVersion": umbra_api::API_VERSION, "kind": "ManagedCluster",
            "metadata": {"name": "edge", "uid": "u1"}, "spec": {"connection": {"mode": mode}}});
        let cluster = serde_json::from_value(cluster).unwrap();
        let mut out = Vec::new();
        write(&mut out, &cluster, cleaned, "CONTEXT", false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_left_behind_is_said_with_the_way_to_remove_it() {
        let failed = || Cleaned {
            failed: Some(anyhow!("no agent is connected")),
            ..Cleaned::default()
        };
        let text = said("Tunnel", &failed());
        for expected in [
            "no agent is connected",
            "clusterrolebinding umbra:admins:u1",
            "namespace umbra-agent",
            "clusterrole,clusterrolebinding umbra:agent:read umbra:agent:impersonate umbra:agent:place",
            "-l umbra.dev/fleet",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let direct = said("Direct", &failed());
        assert!(
            direct.contains("umbra:admins:u1") && !direct.contains("umbra-agent"),
            "{direct}"
        );
        // What is done already is not asked for.
        let half = Cleaned {
            binding: true,
            ..failed()
        };
        assert!(!said("Direct", &half).contains("delete --ignore-not-found clusterrolebinding"));
        let elsewhere = said("Tunnel", &Cleaned::default());
        assert!(elsewhere.contains("stop it where it runs"), "{elsewhere}");
        let done = Cleaned {
            agent: Removal::Done,
            binding: true,
            ..Cleaned::default()
        };
        assert!(!said("Tunnel", &done).contains("warning"));
    }
}
