//! The fields of a kubeconfig (`tools/clientcmd/api/v1/types.go` of client-go).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// `null` and nothing are both the default: `clusters: null` is what some tools write for none.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A kubeconfig.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kubeconfig {
    /// `v1`.
    #[serde(rename = "apiVersion", deserialize_with = "nullable")]
    pub api_version: String,
    /// `Config`.
    #[serde(deserialize_with = "nullable")]
    pub kind: String,
    /// Where API servers are.
    #[serde(deserialize_with = "nullable")]
    pub clusters: Vec<NamedCluster>,
    /// What to authenticate with.
    #[serde(deserialize_with = "nullable")]
    pub users: Vec<NamedUser>,
    /// Pairs of both.
    #[serde(deserialize_with = "nullable")]
    pub contexts: Vec<NamedContext>,
    /// The context that is used when none is named.
    #[serde(rename = "current-context", deserialize_with = "nullable")]
    pub current_context: String,
}

/// An entry of `clusters`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedCluster {
    /// Its name.
    pub name: String,
    /// The cluster.
    #[serde(default, deserialize_with = "nullable")]
    pub cluster: Cluster,
}

/// An entry of `users`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedUser {
    /// Its name.
    pub name: String,
    /// The user.
    #[serde(default, deserialize_with = "nullable")]
    pub user: User,
}

/// An entry of `contexts`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedContext {
    /// Its name.
    pub name: String,
    /// The context.
    #[serde(default, deserialize_with = "nullable")]
    pub context: Context,
}

/// How to reach a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    /// The URL of the API server.
    pub server: String,
    /// The name its certificate must carry, when that is not the host of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// Do not verify the certificate.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "nullable")]
    pub insecure_skip_tls_verify: bool,
    /// A file of PEM certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// The same, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<String>,
    /// A proxy to go through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
    /// Whether to ask for uncompressed responses.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "nullable")]
    pub disable_compression: bool,
}

/// What to authenticate with.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct User {
    /// A file with a PEM certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// The same, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<String>,
    /// A file with a PEM key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// The same, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<String>,
    /// A bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A file with a bearer token.
    #[serde(rename = "tokenFile", skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// Whom to impersonate. Not supported here.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub impersonate: Option<String>,
    /// A user name for basic authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// What Kubernetes removed in 1.26.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_provider: Option<AuthProvider>,
    /// A program that prints credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
}

impl fmt::Debug for User {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("client_certificate", &self.client_certificate)
            .field("token_file", &self.token_file)
            .field("username", &self.username)
            .field("exec", &self.exec)
            .finish_non_exhaustive()
    }
}

/// An `auth-provider`: only its name, to say that it is not supported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthProvider {
    /// Its name, such as `gcp`.
    pub name: String,
}

/// An exec plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exec {
    /// What it speaks.
    #[serde(deserialize_with = "nullable")]
    pub api_version: String,
    /// The program.
    pub command: String,
    /// Its arguments.
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// What to add to its environment.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<ExecEnv>,
    /// What to say when it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install_hint: Option<String>,
    /// Whether it is told about the cluster.
    #[serde(deserialize_with = "nullable")]
    pub provide_cluster_info: bool,
    /// `Never`, `IfAvailable` or `Always`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interactive_mode: Option<String>,
}

/// A variable of the environment of a plugin.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecEnv {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for ExecEnv {
    /// Without the value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecEnv")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A cluster, a user, and a namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// The name of the cluster.
    #[serde(deserialize_with = "nullable")]
    pub cluster: String,
    /// The name of the user.
    #[serde(deserialize_with = "nullable")]
    pub user: String,
    /// The namespace that is used when none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
