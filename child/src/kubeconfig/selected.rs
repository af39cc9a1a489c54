//! One context with what it names, and its fields as values.

use std::fs;

use base64::Engine as _;
use url::Url;

use super::{Cluster, Context, Exec, KubeconfigError, User};
use crate::{
    credentials::{Authorization, ClientCertificate, CredentialsConfig, Secret},
    exec::ExecConfig,
};

/// A context, and the cluster and the user it names.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    /// The name of the context.
    pub name: &'a str,
    /// The context.
    pub context: &'a Context,
    /// The name of its cluster.
    pub cluster_name: &'a str,
    /// Its cluster.
    pub cluster: &'a Cluster,
    /// The name of its user.
    pub user_name: &'a str,
    /// Its user.
    pub user: &'a User,
}

impl Selected<'_> {
    fn cluster_field(&self, field: &'static str, message: impl Into<String>) -> KubeconfigError {
        KubeconfigError::Field {
            what: "cluster",
            name: self.cluster_name.to_owned(),
            field,
            message: message.into(),
        }
    }

    fn user_field(&self, field: &'static str, message: impl Into<String>) -> KubeconfigError {
        KubeconfigError::Field {
            what: "user",
            name: self.user_name.to_owned(),
            field,
            message: message.into(),
        }
    }

    /// The address of the API server.
    ///
    /// # Errors
    ///
    /// When it is no `http` or `https` URL.
    pub fn server(&self) -> Result<Url, KubeconfigError> {
        let url = Url::parse(&self.cluster.server)
            .map_err(|error| self.cluster_field("server", format!("{:?}: {error}", self.cluster.server)))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(self.cluster_field("server", format!("{url} is not an http or https URL")));
        }
        Ok(url)
    }

    /// The proxy to go through.
    ///
    /// # Errors
    ///
    /// When it is no URL.
    pub fn proxy_url(&self) -> Result<Option<Url>, KubeconfigError> {
        let Some(proxy) = self.cluster.proxy_url.as_deref().filter(|proxy| !proxy.is_empty()) else {
            return Ok(None);
        };
        let url = Url::parse(proxy).map_err(|error| self.cluster_field("proxy-url", error.to_string()))?;
        Ok(Some(url))
    }

    /// The PEM certificates that the server's must chain to. Data wins over a file, as in clientcmd.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the data is not base64 or not PEM.
    pub fn certificate_authority(&self) -> Result<Option<Vec<u8>>, KubeconfigError> {
        let (data, file) = (
            &self.cluster.certificate_authority_data,
            &self.cluster.certificate_authority,
        );
        pem(data, file, "CERTIFICATE").map_err(|(from_data, message)| {
            self.cluster_field(
                if from_data {
                    "certificate-authority-data"
                } else {
                    "certificate-authority"
                },
                message,
            )
        })
    }

    pub(super) fn client_certificate_pem(&self) -> Result<Option<Vec<u8>>, KubeconfigError> {
        let (data, file) = (&self.user.client_certificate_data, &self.user.client_certificate);
        pem(data, file, "CERTIFICATE").map_err(|(from_data, message)| {
            self.user_field(
                if from_data {
                    "client-certificate-data"
                } else {
                    "client-certificate"
                },
                message,
            )
        })
    }

    pub(super) fn client_key_pem(&self) -> Result<Option<Vec<u8>>, KubeconfigError> {
        pem(&self.user.client_key_data, &self.user.client_key, "PRIVATE KEY").map_err(|(from_data, message)| {
            self.user_field(if from_data { "client-key-data" } else { "client-key" }, message)
        })
    }

    pub(super) fn token_from_file(&self) -> Result<Option<String>, KubeconfigError> {
        let Some(path) = self.user.token_file.as_deref().filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let token =
            fs::read_to_string(path).map_err(|error| self.user_field("tokenFile", format!("{path}: {error}")))?;
        Ok(Some(token.trim().to_owned()))
    }

    /// What the user authenticates with.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, a certificate is incomplete, or the user has what is not supported.
    pub fn credentials(&self) -> Result<CredentialsConfig, KubeconfigError> {
        let user = self.user;
        if let Some(provider) = &user.auth_provider {
            return Err(self.user_field(
                "auth-provider",
                format!(
                    "{:?} is no longer supported by Kubernetes clients; use an exec plugin, a token or a client certificate",
                    provider.name
                ),
            ));
        }
        if user.impersonate.as_deref().is_some_and(|name| !name.is_empty()) {
            return Err(self.user_field("as", "the hub impersonates its own users; use a user without \"as\""));
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let certificate = match (self.client_certificate_pem()?, self.client_key_pem()?) {
            (Some(certificate), Some(key)) => Some(ClientCertificate {
                certificate: text(certificate),
                key: Secret::new(text(key)),
            }),
            (None, None) => None,
            (Some(_), None) => return Err(self.user_field("client-key", "missing, but there is a client certificate")),
            (None, Some(_)) => return Err(self.user_field("client-certificate", "missing, but there is a client key")),
        };
        Ok(CredentialsConfig {
            certificate,
            authorization: self.authorization(),
        })
    }

    /// Files win over text, as in clientcmd: a file is what somebody renews.
    fn authorization(&self) -> Authorization {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let user = self.user;
        if let Some(path) = given(&user.token_file) {
            Authorization::TokenFile(path.into())
        } else if let Some(token) = given(&user.token) {
            Authorization::Token(Secret::new(token))
        } else if let Some(username) = given(&user.username) {
            Authorization::Basic {
                username,
                password: Secret::new(user.password.clone().unwrap_or_default()),
            }
        } else if let Some(exec) = &user.exec {
            Authorization::Exec(Box::new(self.exec(exec)))
        } else {
            Authorization::None
        }
    }

    fn exec(&self, exec: &Exec) -> ExecConfig {
        ExecConfig {
            command: exec.command.clone(),
            args: exec.args.clone(),
            env: exec
                .env
                .iter()
                .map(|one| (one.name.clone(), one.value.clone()))
                .collect(),
            api_version: exec.api_version.clone(),
            install_hint: exec.install_hint.clone().unwrap_or_default(),
            cluster: exec.provide_cluster_info.then(|| {
                let mut cluster = serde_json::json!({ "server": self.cluster.server });
                if let Ok(Some(ca)) = self.certificate_authority() {
                    cluster["certificate-authority-data"] = base64::engine::general_purpose::STANDARD.encode(ca).into();
                }
                if let Some(name) = &self.cluster.tls_server_name {
                    cluster["tls-server-name"] = name.clone().into();
                }
                cluster
            }),
            always_interactive: exec.interactive_mode.as_deref() == Some("Always"),
            directory: None,
        }
    }
}

/// The PEM text of a field that is data or a file; data wins. On error, whether it was the data.
fn pem(data: &Option<String>, file: &Option<String>, block: &str) -> Result<Option<Vec<u8>>, (bool, String)> {
    let from_data = data.as_deref().is_some_and(|data| !data.is_empty());
    let bytes = match (data.as_deref(), file.as_deref()) {
        (Some(data), _) if from_data => base64::engine::general_purpose::STANDARD
            .decode(data.split_whitespace().collect::<String>())
            .map_err(|error| (true, format!("not base64: {error}")))?,
        (_, Some(path)) if !path.is_empty() => fs::read(path).map_err(|error| (false, format!("{path}: {error}")))?,
        _ => return Ok(None),
    };
    let text = String::from_utf8_lossy(&bytes);
    if !text
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{block}-----")))
    {
        return Err((from_data, format!("not PEM: there is no {block} block in it")));
    }
    Ok(Some(bytes))
}
