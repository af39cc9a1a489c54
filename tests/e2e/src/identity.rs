//! Users, and kubeconfigs for them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use umbra_auth::certificates::{CertificateAuthority, ClientSubject, IssuedCertificate};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the authority that a cluster or a hub keeps as `ca.crt` and `ca.key` in a folder.
///
/// # Panics
/// Where there is none.
#[must_use]
#[track_caller]
pub fn authority(folder: &Path) -> CertificateAuthority {
    CertificateAuthority::load(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

/// A client certificate for a user.
///
/// # Panics
/// Where it cannot be issued.
#[must_use]
#[track_caller]
pub fn certificate(authority: &CertificateAuthority, user: &str, groups: &[&str]) -> IssuedCertificate {
    let subject = ClientSubject {
        user: user.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        uid: String::new(),
    };
    authority
        .issue_client(&subject, DAY)
        .unwrap_or_else(|error| panic!("{user}: {error}"))
}

/// How a user of a kubeconfig proves who it is.
#[derive(Debug)]
pub enum Credential {
    /// With a client certificate.
    Certificate(IssuedCertificate),
    /// With a bearer token.
    Token(String),
    /// With what a program prints.
    Exec {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
    },
}

impl Credential {
    fn user(&self) -> Value {
        match self {
            Self::Certificate(issued) => json!({
                "client-certificate-data": BASE64.encode(&issued.certificate_pem),
                "client-key-data": BASE64.encode(&issued.key_pem),
            }),
            Self::Token(token) => json!({"token": token}),
            Self::Exec { command, args } => json!({"exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": command,
                "args": args,
                "interactiveMode": "Never",
            }}),
        }
    }
}

/// One context of a kubeconfig: its name, the server's URL, the server's authority as PEM, and the credential.
#[derive(Debug)]
pub struct Context<'a> {
    /// Also the name of its cluster and its user.
    pub name: &'a str,
    /// The server's URL, with the root's prefix.
    pub server: String,
    /// The server's authority, as PEM.
    pub authority_pem: &'a str,
    /// The user's credential.
    pub credential: &'a Credential,
}

/// Writes a kubeconfig (JSON is YAML); the first context is the current one.
///
/// # Panics
/// Where it cannot be written.
#[track_caller]
pub fn write_kubeconfig(path: &Path, contexts: &[Context<'_>]) -> PathBuf {
    let list = |entry: &dyn Fn(&Context<'_>) -> Value| contexts.iter().map(entry).collect::<Vec<_>>();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": contexts.first().map_or("", |context| context.name),
        "clusters": list(&|context| json!({"name": context.name, "cluster": {
            "server": context.server,
            "certificate-authority-data": BASE64.encode(context.authority_pem),
        }})),
        "users": list(&|context| json!({"name": context.name, "user": context.credential.user()})),
        "contexts": list(&|context| json!({"name": context.name, "context": {
            "cluster": context.name,
            "user": context.name,
        }})),
    });
    std::fs::write(path, config.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path.to_owned()
}
