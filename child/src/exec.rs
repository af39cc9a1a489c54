//! Exec credential plugins: `client.authentication.k8s.io` v1 and v1beta1.
//!
//! Source: `plugin/pkg/client/auth/exec/exec.go` of client-go. Deviations: the program never gets a terminal, because a
//! server has none to give (`interactiveMode: Always` is refused); it has a deadline; what it prints is limited.

use std::{
    io,
    path::PathBuf,
    process::Stdio,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{
    credentials::{ClientCertificate, Secret},
    error::CredentialsError,
};

/// How long a plugin may take. Those of clouds make a few requests over the Internet.
const DEADLINE: Duration = Duration::from_secs(60);
/// More than a token and a certificate chain ever are.
const OUTPUT_LIMIT: u64 = 1 << 20;

const API_VERSIONS: [&str; 2] = [
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
];

/// `exec` of a user in a kubeconfig.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExecConfig {
    /// The program: a name to look up in `PATH`, or an absolute path.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// What the program speaks: `client.authentication.k8s.io/v1` or `…/v1beta1`.
    pub api_version: String,
    /// What to tell a person when the program is missing.
    pub install_hint: String,
    /// `spec.cluster` of what the program is told, when it wants that (`provideClusterInfo`).
    pub cluster: Option<serde_json::Value>,
    /// Whether the program insists on a terminal (`interactiveMode: Always`).
    pub always_interactive: bool,
    /// The folder to run it in; the process's own when `None`.
    pub directory: Option<PathBuf>,
}

/// What a plugin returned.
pub(crate) struct Answer {
    pub(crate) token: Option<Secret>,
    pub(crate) certificate: Option<ClientCertificate>,
    pub(crate) expires: Option<SystemTime>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    api_version: String,
    kind: String,
    status: Option<ExecCredentialStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ExecCredentialStatus {
    expiration_timestamp: Option<jiff::Timestamp>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Runs the plugin once. Cancel safe: the program is killed when the future is dropped.
pub(crate) async fn run(plugin: &ExecConfig) -> Result<Answer, CredentialsError> {
    let failed = |message: String| CredentialsError::Exec {
        command: plugin.command.clone(),
        message,
    };
    if plugin.always_interactive {
        return Err(failed(
            "it wants a terminal (interactiveMode: Always), and a server has none".into(),
        ));
    }
    if !API_VERSIONS.contains(&plugin.api_version.as_str()) {
        return Err(failed(format!(
            "apiVersion {:?} is not supported; use {} or {}",
            plugin.api_version, API_VERSIONS[0], API_VERSIONS[1]
        )));
    }
    let mut child = command(plugin).spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CredentialsError::ExecNotFound {
            command: plugin.command.clone(),
            hint: plugin.install_hint.trim().to_owned(),
        },
        _ => failed(error.to_string()),
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let finished = async { tokio::join!(child.wait(), read(stdout), read(stderr)) };
    let (status, stdout, stderr) = tokio::time::timeout(DEADLINE, finished)
        .await
        .map_err(|_| failed(format!("no answer within {} s", DEADLINE.as_secs())))?;
    let status = status.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let said: String = String::from_utf8_lossy(&stderr).trim().chars().take(500).collect();
        return Err(failed(format!("{status}: {said}")));
    }
    parse(plugin, &stdout).map_err(failed)
}

fn command(plugin: &ExecConfig) -> tokio::process::Command {
    let info = serde_json::json!({
        "apiVersion": plugin.api_version,
        "kind": "ExecCredential",
        "spec": match &plugin.cluster {
            Some(cluster) => serde_json::json!({"cluster": cluster, "interactive": false}),
            None => serde_json::json!({"interactive": false}),
        },
    });
    let mut command = tokio::process::Command::new(&plugin.command);
    command
        .args(&plugin.args)
        .envs(plugin.env.iter().map(|(name, value)| (name, value)))
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(directory) = &plugin.directory {
        command.current_dir(directory);
    }
    command
}

/// What a pipe delivers, up to [`OUTPUT_LIMIT`].
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // A pipe that breaks has delivered what it could; the parser says what is missing.
        let _ = pipe.take(OUTPUT_LIMIT).read_to_end(&mut bytes).await;
    }
    bytes
}

fn parse(plugin: &ExecConfig, stdout: &[u8]) -> Result<Answer, String> {
    let answer: ExecCredential =
        serde_json::from_slice(stdout).map_err(|error| format!("it printed no ExecCredential: {error}"))?;
    if answer.kind != "ExecCredential" || answer.api_version != plugin.api_version {
        return Err(format!(
            "it returned {} {}, but {} ExecCredential is configured",
            answer.api_version, answer.kind, plugin.api_version
        ));
    }
    let status = answer.status.ok_or("it returned no status")?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let token = given(status.token).map(Secret::new);
    let certificate = match (given(status.client_certificate_data), given(status.client_key_data)) {
        (Some(certificate), Some(key)) => Some(ClientCertificate {
            certificate,
            key: Secret::new(key),
        }),
        (None, None) => None,
        _ => return Err("it returned only one of certificate and key".into()),
    };
    if token.is_none() && certificate.is_none() {
        return Err("it returned neither a token nor a certificate and key".into());
    }
    Ok(Answer {
        token,
        certificate,
        expires: status.expiration_timestamp.map(SystemTime::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> ExecConfig {
        ExecConfig {
            command: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("WHO".into(), "jane".into())],
            api_version: API_VERSIONS[0].into(),
            ..ExecConfig::default()
        }
    }

    async fn error(plugin: &ExecConfig) -> String {
        run(plugin).await.err().expect("a failure").to_string()
    }

    #[tokio::test]
    async fn a_plugin_answers_with_token_and_expiry() {
        let plugin = shell(
            r#"case "$KUBERNETES_EXEC_INFO" in *'"interactive":false'*) ;; *) exit 9;; esac
            printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
            "status":{"token":"for-%s","expirationTimestamp":"2030-01-02T03:04:05Z"}}' "$WHO""#,
        );
        let answer = run(&plugin).await.expect("an answer");
        assert_eq!(answer.token.expect("a token").expose(), "for-jane");
        let expires: jiff::Timestamp = "2030-01-02T03:04:05Z".parse().expect("a timestamp");
        assert_eq!(answer.expires, Some(SystemTime::from(expires)));
    }

    #[tokio::test]
    async fn failures_say_what_to_do() {
        let mut missing = shell("");
        missing.command = "umbra-no-such-plugin".into();
        missing.install_hint = "get it from example.com".into();
        let said = error(&missing).await;
        assert!(
            said.contains("umbra-no-such-plugin not found: get it from example.com"),
            "{said}"
        );
        let said = error(&shell("echo denied >&2; exit 3")).await;
        assert!(said.contains("denied") && said.contains('3'), "{said}");
        let said = error(&shell("echo hello")).await;
        assert!(said.contains("no ExecCredential"), "{said}");
        let said = error(&shell(
            r#"echo '{"apiVersion":"client.authentication.k8s.io/v1beta1","kind":"ExecCredential"}'"#,
        ))
        .await;
        assert!(said.contains("v1beta1"), "{said}");
        let mut interactive = shell("");
        interactive.always_interactive = true;
        assert!(error(&interactive).await.contains("terminal"));
        let mut old = shell("");
        old.api_version = "client.authentication.k8s.io/v1alpha1".into();
        assert!(error(&old).await.contains("not supported"));
    }
}
