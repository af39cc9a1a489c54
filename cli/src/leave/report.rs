//! What `umbra leave` says at its end: what was deleted in the cluster, and what may still be there.

use std::io::{self, Write};

use anyhow::Error;
use umbra_api::cluster::{ConnectionMode, ManagedCluster};
use umbra_registry::fleet::names::FLEET_LABEL;

use super::placed::Placed;
use super::{agent, objects};
use crate::registration::binding_name;
use crate::terminal::{lines, one_line};

/// What was done in the child, also where it was not completed.
#[derive(Debug, Default)]
pub(super) struct Cleaned {
    /// What fleets had placed and is deleted.
    pub(super) placed: Vec<String>,
    /// What fleets had placed, and stays.
    pub(super) kept: Vec<Kept>,
    /// What deletes the rest of it, as kubectl takes it.
    pub(super) remaining: Vec<String>,
    /// Not all fleets could be asked what they had placed.
    pub(super) unknown: bool,
    /// The binding of the administrators is deleted.
    pub(super) binding: bool,
    /// It may still be there.
    pub(super) binding_left: bool,
    /// What became of the agent's namespace and what belongs to it.
    pub(super) agent: Removal,
    /// An agent may still be there.
    pub(super) agent_left: bool,
    /// There is one that does not say which registration it is of.
    pub(super) agent_unnamed: bool,
    /// Why something may still be there.
    pub(super) failed: Vec<Error>,
}

/// An object that stays.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) shown: String,
    pub(super) why: &'static str,
}

impl Cleaned {
    /// Nothing could be done in the cluster, because of this.
    pub(super) fn unreached(&mut self, error: Error, placed: &Placed) {
        self.failed.push(error);
        (self.binding_left, self.agent_left) = (true, true);
        objects::remain(&placed.renderings, self);
    }
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
) -> io::Result<()> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let tunnelled = cluster.spec.connection.mode == ConnectionMode::Tunnel;
    let what = if tunnelled {
        "its copies are"
    } else {
        "its copies and its credential are"
    };
    writeln!(out, "{name} has left: {what} no longer on the hub")?;
    write_cleaned(out, cluster, cleaned)?;
    write_left(out, cluster, cleaned, context)
}

/// Says what was deleted in the cluster and what was kept.
///
/// # Errors
/// Where standard output is closed.
pub(super) fn write_cleaned(out: &mut impl Write, cluster: &ManagedCluster, cleaned: &Cleaned) -> io::Result<()> {
    if cleaned.binding {
        let binding = binding_name(cluster);
        writeln!(out, "deleted from the cluster: ClusterRoleBinding {binding}")?;
    }
    for placed in &cleaned.placed {
        writeln!(out, "deleted from the cluster: {}", one_line(placed))?;
    }
    for kept in &cleaned.kept {
        writeln!(out, "kept in the cluster: {}, {}", one_line(&kept.shown), kept.why)?;
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
    Ok(())
}

/// Says what may still be there, and what removes it.
fn write_left(out: &mut impl Write, cluster: &ManagedCluster, cleaned: &Cleaned, context: &str) -> io::Result<()> {
    let tunnelled = cluster.spec.connection.mode == ConnectionMode::Tunnel;
    for error in &cleaned.failed {
        writeln!(
            out,
            "warning: what Umbra made in the cluster may still be there: {}",
            lines(&format!("{error:#}"))
        )?;
    }
    let agent_left = tunnelled && cleaned.agent_left;
    if !cleaned.remaining.is_empty() || cleaned.binding_left || agent_left {
        writeln!(out, "to remove it:")?;
    }
    for command in &cleaned.remaining {
        writeln!(out, "  kubectl --context {context} {}", one_line(command))?;
    }
    if cleaned.binding_left {
        let binding = binding_name(cluster);
        writeln!(
            out,
            "  kubectl --context {context} delete --ignore-not-found clusterrolebinding {binding}"
        )?;
    }
    if agent_left {
        write_agent_commands(out, context)?;
    }
    if cleaned.unknown {
        writeln!(out, "what those fleets placed carries the label {FLEET_LABEL}")?;
    }
    if !tunnelled || agent_left || cleaned.agent != Removal::None {
        return Ok(());
    }
    if cleaned.agent_unnamed {
        writeln!(
            out,
            "there is an agent in the Namespace {}, which does not say of which registration; where it is this one's, remove it:",
            agent::NAMESPACE
        )?;
        return write_agent_commands(out, context);
    }
    writeln!(
        out,
        "the agent does not run in the cluster as `umbra join --tunnel` printed it; stop it where it runs"
    )
}

fn write_agent_commands(out: &mut impl Write, context: &str) -> io::Result<()> {
    let roles = agent::ROLES.join(" ");
    let namespace = agent::NAMESPACE;
    writeln!(
        out,
        "  kubectl --context {context} delete --ignore-not-found namespace {namespace}"
    )?;
    writeln!(
        out,
        "  kubectl --context {context} delete --ignore-not-found clusterrole,clusterrolebinding {roles}"
    )
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
        write(&mut out, &cluster, cleaned, "CONTEXT").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_left_behind_is_said_with_the_way_to_remove_it() {
        let unreached = || {
            let placed = json!({"apiVersion": umbra_api::API_VERSION, "kind": "Rendering", "metadata": {},
                "spec": {"cluster": "edge", "object": {}, "template":
                    {"apiVersion": "v1", "kind": "ConfigMap", "resource": "configmaps", "namespace": "shop", "name": "a"}},
                "status": {"uid": "o1"}});
            let placed = Placed {
                renderings: vec![serde_json::from_value(placed).unwrap()],
                unread: Vec::new(),
            };
            let mut cleaned = Cleaned::default();
            cleaned.unreached(anyhow!("no agent is connected"), &placed);
            cleaned
        };
        let text = said("Tunnel", &unreached());
        for expected in [
            "no agent is connected",
            "kubectl --context CONTEXT delete --ignore-not-found -n shop configmaps a\n",
            "clusterrolebinding umbra:admins:u1",
            "namespace umbra-agent",
            "clusterrole,clusterrolebinding umbra:agent:read umbra:agent:impersonate umbra:agent:place",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let direct = said("Direct", &unreached());
        assert!(
            direct.contains("umbra:admins:u1") && !direct.contains("umbra-agent"),
            "{direct}"
        );
        // What is done already is not asked for, and what was done is said beside what was not.
        let half = Cleaned {
            placed: vec!["ConfigMap shop/b".to_owned()],
            binding: true,
            agent: Removal::Begun,
            remaining: vec!["delete configmaps a".to_owned()],
            failed: vec![anyhow!("one"), anyhow!("two")],
            ..Cleaned::default()
        };
        let text = said("Tunnel", &half);
        for expected in [
            "has left",
            "ConfigMap shop/b",
            "ClusterRoleBinding umbra",
            "with the agent",
            "one",
            "two",
            "delete configmaps a",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(
            !text.contains("clusterrolebinding umbra:admins") && !text.contains("delete --ignore-not-found namespace")
        );
        let elsewhere = said("Tunnel", &Cleaned::default());
        assert!(elsewhere.contains("stop it where it runs"), "{elsewhere}");
        let unnamed = Cleaned {
            agent_unnamed: true,
            ..Cleaned::default()
        };
        let unnamed = said("Tunnel", &unnamed);
        assert!(
            unnamed.contains("delete --ignore-not-found namespace umbra-agent") && !unnamed.contains("stop it"),
            "{unnamed}"
        );
        let done = Cleaned {
            agent: Removal::Done,
            binding: true,
            ..Cleaned::default()
        };
        assert!(!said("Tunnel", &done).contains("warning"));
    }
}
