//! What the conditions say, and in which words.

use jiff::{SignedDuration, Timestamp};
use umbra_child::{Expiry, Health};

use super::to_second;
use crate::cluster::connection::Problem;
use crate::copy::ClusterState;

/// How long before its end a credential is to be renewed.
const AHEAD: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Resources that a message names.
const NAMED: usize = 3;

/// The reason of `Reachable` while the credential before is used, because the one stored since does not work.
pub(in crate::cluster) const NEW_CREDENTIALS_FAIL: &str = "NewCredentialsFail";

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cluster) struct Finding {
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Finding {
    pub(super) fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: true,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            reason,
            message: message.into(),
        }
    }
}

/// The finding on a cluster that is not connected.
pub(in crate::cluster) fn not_connected(problem: &Problem) -> Finding {
    Finding::no(problem.reason, &*problem.message)
}

/// The finding on a cluster whose identity is known.
pub(in crate::cluster) fn connected(health: &Health) -> Finding {
    match health {
        Health::Unreachable { since, failure, reason } => {
            let message = format!("no answer since {}: {reason}", to_second(*since));
            Finding::no(failure.reason(), message)
        }
        Health::Unknown | Health::Reachable => Finding::yes("Answers", "the API server answers"),
    }
}

/// The finding on a cluster whose new credential does not work, while the one before does.
pub(in crate::cluster) fn keeping_credential(problem: &Problem) -> Finding {
    let message = format!(
        "the API server answers; the new credential does not work, and the one before is still used: {}",
        problem.message
    );
    Finding::yes(NEW_CREDENTIALS_FAIL, message)
}

/// The finding on a cluster that does not answer with the credential in use, nor with the one stored since.
pub(in crate::cluster) fn neither_credential(health: &Health, problem: &Problem) -> Finding {
    let mut finding = connected(health);
    finding.message.push_str("; the new credential does not work either: ");
    finding.message.push_str(&problem.message);
    finding
}

/// The finding on a credential that says when it ends.
pub(super) fn expiring(expiry: Expiry, now: Timestamp) -> Finding {
    let Ok(at) = Timestamp::try_from(expiry.at) else {
        return Finding::no("Valid", "the hub's credential ends in the far future");
    };
    let shown = to_second(at);
    let renew = "renew it in the Secret that the cluster is registered with";
    if expiry.renewed {
        Finding::no(
            "RenewedByItself",
            "the hub's credential ends soon and is renewed by itself",
        )
    } else if at <= now {
        Finding::yes("Expired", format!("the hub's credential has ended at {shown}; {renew}"))
    } else if at.duration_since(now) <= AHEAD {
        Finding::yes("ExpiresSoon", format!("the hub's credential ends at {shown}; {renew}"))
    } else {
        Finding::no("Valid", format!("the hub's credential is valid until {shown}"))
    }
}

/// The finding on a cluster that nothing is copied from.
pub(in crate::cluster) fn not_copying() -> Finding {
    Finding::no(
        "NotConnected",
        "nothing is copied while the cluster is not connected; copies are as last known",
    )
}

/// The finding on the copies of a cluster.
pub(in crate::cluster) fn copying(state: &ClusterState) -> Finding {
    if !state.discovered {
        return if state.message.is_empty() {
            Finding::no("Discovering", "asking the cluster what it serves")
        } else {
            Finding::no(
                "DiscoveryFailed",
                format!("the cluster does not say what it serves: {}", state.message),
            )
        };
    }
    let all = state.resources.len();
    let named = |names: &[String]| {
        let more = names.len().saturating_sub(NAMED);
        let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if more == 0 {
            shown
        } else {
            format!("{shown} and {more} more")
        }
    };
    if state.synced() {
        let refused: Vec<String> = state
            .resources
            .iter()
            .filter(|(_, one)| one.refused)
            .map(|(name, _)| name.to_string())
            .collect();
        let message = match refused.len() {
            0 => format!("{all} resources are up to date"),
            count => format!(
                "{} resources are up to date; the hub may not read {}",
                all - count,
                named(&refused)
            ),
        };
        return Finding::yes("Copied", message);
    }
    let behind = state
        .resources
        .values()
        .filter(|one| !one.synced && !one.refused)
        .count();
    let failing: Vec<String> = state
        .resources
        .iter()
        .filter(|(_, one)| !one.synced && !one.refused && !one.message.is_empty())
        .map(|(name, one)| format!("{name}: {}", one.message))
        .collect();
    let message = format!("{} of {all} resources are up to date", all - behind);
    match failing.is_empty() {
        true => Finding::no("Copying", message),
        false => Finding::no("CopyFailed", format!("{message}; {}", named(&failing))),
    }
}
