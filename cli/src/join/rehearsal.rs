//! What joining would write on the hub, tried without a trace: permissions, names that are taken, and what admission refuses show
//! before anything is changed.

use anyhow::{Result, anyhow, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, Error};
use umbra_api::SYSTEM_NAMESPACE;
use umbra_child::kubeconfig::Kubeconfig;
use umbra_child::{Authorization, CredentialsConfig};

use super::hub;
use crate::registration::{Registration, create, is_credential_of, secret_name};

/// Tries to register.
///
/// # Errors
/// What would fail, and what to do.
pub(super) async fn register(hub: &Client, registration: &Registration) -> Result<()> {
    let name = &registration.name;
    if let Err(error) = create(hub, registration, true).await {
        return Err(explained(error, name));
    }
    let secret = secret_name(name);
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
    match secrets.get_opt(&secret).await {
        Ok(None) => {}
        // Of a registration before, which goes with that.
        Ok(Some(present)) if is_credential_of(&present, name) => {}
        Ok(Some(_)) => bail!(
            "the hub has a Secret {SYSTEM_NAMESPACE}/{secret} already, which is not of a cluster {name} that has joined; choose \
             another name, or delete the Secret if nobody needs it"
        ),
        Err(Error::Api(status)) if status.code == 403 => return Err(forbidden(&status.message)),
        Err(error) => return Err(hub::chain(&error)),
    }
    hub::may_write_secrets(hub)
        .await?
        .map_or(Ok(()), |reason| Err(forbidden(&reason)))
}

/// What a hub has said to a new ManagedCluster.
pub(super) fn explained(error: anyhow::Error, name: &str) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(Error::Api(status)) if status.code == 409 => {
            anyhow!("the name {name} is taken; choose another name, or take that cluster out with `umbra leave {name}`")
        }
        Ok(Error::Api(status)) if status.code == 403 => anyhow!(
            "you may not register clusters on the hub: {}. Whoever runs the hub can give you the ClusterRole umbra-administrator",
            status.message
        ),
        Ok(Error::Api(status)) => anyhow!("the hub does not take the ManagedCluster {name}: {}", status.message),
        Ok(error) => hub::chain(&error).context(format!("the ManagedCluster {name} cannot be written")),
        Err(error) => error,
    }
}

fn forbidden(reason: &str) -> anyhow::Error {
    anyhow!(
        "you may not write the cluster's credential on the hub, a Secret in the namespace {SYSTEM_NAMESPACE}: {reason}. Whoever runs \
         the hub can give you the Role umbra-administrator there"
    )
}

/// The program that prints the credential of a kubeconfig of one context, where one does.
///
/// # Errors
/// Where the kubeconfig has no context, or its credential makes no sense.
pub(super) fn program(kubeconfig: &Kubeconfig) -> Result<Option<String>> {
    let CredentialsConfig { authorization, .. } = kubeconfig.select(None)?.credentials()?;
    match authorization {
        Authorization::Exec(exec) => Ok(Some(exec.command)),
        _ => Ok(None),
    }
}

/// Refuses a credential that a program prints where the hub is not known to run programs: one of `umbra up` runs them, because it
/// is its user's own, and one behind a kube-apiserver only where it is told to.
///
/// # Errors
/// With what to do instead.
pub(super) fn check_program(kubeconfig: &Kubeconfig, standalone: bool, allowed: bool) -> Result<()> {
    match program(kubeconfig)? {
        Some(program) if !standalone && !allowed => bail!(
            "the credential is printed by the program {program}, and a hub behind a kube-apiserver runs no programs. Join with a \
             kubeconfig that has a token or a client certificate; if the hub runs with --allow-exec-credentials and has that \
             program, repeat with the same flag here"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_are_refused_where_the_hub_runs_none() {
        let config = |user: serde_json::Value| {
            let text = json!({"clusters": [{"name": "c", "cluster": {"server": "https://c.test"}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"});
            Kubeconfig::parse(&text.to_string(), "test").unwrap()
        };
        let exec = config(json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "cloud-login"}}));
        let refused = check_program(&exec, false, false).unwrap_err().to_string();
        assert!(
            refused.contains("cloud-login") && refused.contains("--allow-exec-credentials"),
            "{refused}"
        );
        assert!(check_program(&exec, true, false).is_ok() && check_program(&exec, false, true).is_ok());
        assert!(check_program(&config(json!({"token": "t"})), false, false).is_ok());
    }
}
