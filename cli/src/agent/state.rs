//! Where an agent keeps who it is: in a Secret of its own cluster, which all its agents share, or in a directory, or nowhere.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Method;
use serde_json::{Value, json};
use umbra_auth::certificates::write_private;
use umbra_child::{Child, ChildError};

use super::AgentArguments;
use super::identity::Kept;

const FILE: &str = "agent.json";
const JSON: &str = "application/json";

/// Where it is kept.
#[derive(Debug)]
pub(super) enum State {
    Memory(Option<Kept>),
    Directory(PathBuf),
    Secret {
        child: Child,
        namespace: String,
        name: String,
        /// What was read last; empty where there was none.
        version: String,
    },
}

/// What came of keeping something.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Yes,
    /// Another agent was faster; what it kept counts.
    Overtaken,
}

impl State {
    /// Where the flags say.
    ///
    /// # Errors
    /// Where they make no sense.
    pub(super) fn new(arguments: &AgentArguments, child: &Child) -> Result<Self> {
        if let Some(path) = &arguments.state_dir {
            std::fs::create_dir_all(path).with_context(|| format!("--state-dir {} cannot be used", path.display()))?;
            return Ok(Self::Directory(path.clone()));
        }
        let Some(secret) = &arguments.state_secret else {
            return Ok(Self::Memory(None));
        };
        match secret.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Secret {
                    child: child.clone(),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    version: String::new(),
                })
            }
            _ => bail!("--state-secret has to be NAMESPACE/NAME"),
        }
    }

    /// What is kept; `None` for nothing.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) async fn load(&mut self) -> Result<Option<Kept>> {
        match self {
            Self::Memory(kept) => Ok(kept.clone()),
            Self::Directory(path) => {
                let file = path.join(FILE);
                match std::fs::read(&file) {
                    Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
                }
            }
            Self::Secret {
                child,
                namespace,
                name,
                version,
            } => {
                let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
                let secret: Value = match child.get_json(&path).await {
                    Ok(secret) => secret,
                    Err(ChildError::Status { code, .. }) if code.as_u16() == 404 => {
                        version.clear();
                        return Ok(None);
                    }
                    Err(error) => return Err(error).with_context(|| format!("the Secret {namespace}/{name}")),
                };
                secret["metadata"]["resourceVersion"]
                    .as_str()
                    .unwrap_or_default()
                    .clone_into(version);
                let data = secret["data"][FILE].as_str().unwrap_or_default();
                let bytes = BASE64.decode(data).unwrap_or_default();
                Ok(serde_json::from_slice(&bytes).ok())
            }
        }
    }

    /// Keeps `kept` instead of what was loaded last.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) async fn save(&mut self, kept: &Kept) -> Result<Saved> {
        let text = serde_json::to_vec(kept)?;
        match self {
            Self::Memory(present) => *present = Some(kept.clone()),
            Self::Directory(path) => {
                let file = path.join(FILE);
                write_private(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
            }
            Self::Secret {
                child,
                namespace,
                name,
                version,
            } => {
                let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                    "metadata": {"name": name, "namespace": namespace,
                        "labels": {"app.kubernetes.io/managed-by": "umbra"}},
                    "data": {FILE: BASE64.encode(text)}});
                let path = format!("/api/v1/namespaces/{namespace}/secrets");
                let written = if version.is_empty() {
                    child.request_json(Method::POST, &path, JSON, secret.to_string()).await
                } else {
                    secret["metadata"]["resourceVersion"] = version.as_str().into();
                    let path = format!("{path}/{name}");
                    child.request_json(Method::PUT, &path, JSON, secret.to_string()).await
                };
                match written {
                    Ok(answer) => {
                        let answer: Value = serde_json::from_slice(&answer)?;
                        answer["metadata"]["resourceVersion"]
                            .as_str()
                            .unwrap_or_default()
                            .clone_into(version);
                    }
                    Err(ChildError::Status { code, .. }) if matches!(code.as_u16(), 404 | 409) => {
                        return Ok(Saved::Overtaken);
                    }
                    Err(error) => return Err(error).with_context(|| format!("the Secret {namespace}/{name}")),
                }
            }
        }
        Ok(Saved::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_keeps_who_the_agent_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::Directory(folder.path().to_owned());
        assert_eq!(state.load().await.unwrap(), None);
        let kept = Kept::new("east").unwrap();
        assert_eq!(state.save(&kept).await.unwrap(), Saved::Yes);
        assert_eq!(state.load().await.unwrap(), Some(kept.clone()));
        let renewed = kept.with_new_key("east").unwrap();
        assert!(renewed.name == kept.name && renewed.request != kept.request && !renewed.is_good());
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(
            state.load().await.unwrap(),
            None,
            "what is damaged is as good as nothing"
        );
    }
}
