//! Kubeconfig files: reading, choosing a context, flattening.
//!
//! Source: `tools/clientcmd` of client-go. As there, relative paths are relative to the file that names them, several
//! files are merged with the first winning, and files that do not exist are skipped when several are named. Deviation:
//! flattening also reads `tokenFile`, because what is flattened is read on another machine.
//!
//! [`edit`] and [`merge_into`] change somebody's kubeconfig and are in their own file: they edit values, not these types, so
//! that they keep what they do not know.

mod merge;
mod selected;
#[cfg(test)]
mod tests;
mod types;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use base64::Engine as _;

pub use self::{
    merge::{edit, merge_into},
    selected::Selected,
    types::{AuthProvider, Cluster, Context, Exec, ExecEnv, Kubeconfig, NamedCluster, NamedContext, NamedUser, User},
};

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeconfigError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// None of the files that were named exists.
    #[error("no kubeconfig found; looked for {}", .0.join(", "))]
    NotFound(Vec<String>),
    /// The file is not a kubeconfig.
    #[error("{origin}: not a kubeconfig: {message}")]
    Malformed {
        /// The file, or what stands for it.
        origin: String,
        /// What is wrong, and where.
        message: String,
    },
    /// A file is not changed.
    #[error("{origin}: {message}")]
    Refused {
        /// The file.
        origin: String,
        /// Why.
        message: String,
    },
    /// No context was named, and the file has no current one.
    #[error("no context is chosen and the kubeconfig has no current-context; {}", contexts(.0))]
    NoContext(Vec<String>),
    /// There is no such context.
    #[error("there is no context {name:?}; {}", contexts(.known))]
    UnknownContext {
        /// The context.
        name: String,
        /// Those that exist.
        known: Vec<String>,
    },
    /// The context refers to something that is not in the file.
    #[error("context {context:?} names the {what} {name:?}, which the kubeconfig does not have")]
    Dangling {
        /// The context.
        context: String,
        /// cluster or user.
        what: &'static str,
        /// The name of what is missing.
        name: String,
    },
    /// A field has an unusable value.
    #[error("{what} {name:?}: {field}: {message}")]
    Field {
        /// cluster or user.
        what: &'static str,
        /// Its name.
        name: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

fn contexts(known: &[String]) -> String {
    if known.is_empty() {
        "it has no contexts".to_owned()
    } else {
        format!("it has {}", known.join(", "))
    }
}

/// The files that make up the kubeconfig, as kubectl decides it: those of `$KUBECONFIG`, else `~/.kube/config`.
#[must_use]
pub fn default_paths(kubeconfig_variable: Option<&OsStr>, home: Option<&Path>) -> Vec<PathBuf> {
    let named: Vec<PathBuf> = kubeconfig_variable
        .map(|list| {
            std::env::split_paths(list)
                .filter(|path| !path.as_os_str().is_empty())
                .collect()
        })
        .unwrap_or_default();
    if named.is_empty() {
        home.map(|home| home.join(".kube/config")).into_iter().collect()
    } else {
        named
    }
}

impl Kubeconfig {
    /// Reads YAML or JSON. `origin` says in errors where it comes from. Paths stay as they are.
    ///
    /// # Errors
    ///
    /// When the text is not a kubeconfig.
    pub fn parse(text: &str, origin: &str) -> Result<Self, KubeconfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| KubeconfigError::Malformed {
            origin: origin.to_owned(),
            message: error.to_string(),
        })
    }

    /// Reads one file and makes the paths in it absolute.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is no kubeconfig.
    pub fn load(path: &Path) -> Result<Self, KubeconfigError> {
        let text = fs::read_to_string(path).map_err(|source| file_error(path, source))?;
        let mut config = Self::parse(&text, &path.display().to_string())?;
        let absolute = std::path::absolute(path).map_err(|source| file_error(path, source))?;
        config.resolve_paths(absolute.parent().unwrap_or(Path::new("/")));
        Ok(config)
    }

    /// Reads several files as one: of several entries of one name, the first wins. Files that do not exist are skipped.
    ///
    /// # Errors
    ///
    /// When no file exists, or one cannot be read or is no kubeconfig.
    pub fn load_all(paths: &[PathBuf]) -> Result<Self, KubeconfigError> {
        let mut merged: Option<Self> = None;
        for path in paths {
            match Self::load(path) {
                Ok(config) => match &mut merged {
                    Some(merged) => merged.absorb(config),
                    None => merged = Some(config),
                },
                Err(KubeconfigError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        merged.ok_or_else(|| KubeconfigError::NotFound(paths.iter().map(|path| path.display().to_string()).collect()))
    }

    /// Adds what `other` has and `self` has not.
    fn absorb(&mut self, other: Self) {
        fn add<T>(into: &mut Vec<T>, from: Vec<T>, name: impl Fn(&T) -> &str) {
            let known: BTreeSet<String> = into.iter().map(|one| name(one).to_owned()).collect();
            into.extend(from.into_iter().filter(|one| !known.contains(name(one))));
        }
        add(&mut self.clusters, other.clusters, |one| &one.name);
        add(&mut self.users, other.users, |one| &one.name);
        add(&mut self.contexts, other.contexts, |one| &one.name);
        if self.current_context.is_empty() {
            self.current_context = other.current_context;
        }
    }

    /// Makes relative paths absolute, as seen from `folder`. A command without a slash is looked up in `PATH`.
    fn resolve_paths(&mut self, folder: &Path) {
        let resolve = |path: &mut Option<String>| {
            if let Some(path) = path.as_mut().filter(|path| !path.is_empty()) {
                *path = folder.join(&path).display().to_string();
            }
        };
        for cluster in &mut self.clusters {
            resolve(&mut cluster.cluster.certificate_authority);
        }
        for user in &mut self.users {
            resolve(&mut user.user.client_certificate);
            resolve(&mut user.user.client_key);
            resolve(&mut user.user.token_file);
            if let Some(exec) = user.user.exec.as_mut().filter(|exec| exec.command.contains('/')) {
                exec.command = folder.join(&exec.command).display().to_string();
            }
        }
    }

    /// A context and what it refers to; the current one when `context` is `None`.
    ///
    /// # Errors
    ///
    /// When there is no such context, or what it names is missing.
    pub fn select(&self, context: Option<&str>) -> Result<Selected<'_>, KubeconfigError> {
        let known = || self.contexts.iter().map(|one| one.name.clone()).collect();
        let name = context.unwrap_or(&self.current_context);
        if name.is_empty() {
            return Err(KubeconfigError::NoContext(known()));
        }
        let context =
            self.contexts
                .iter()
                .find(|one| one.name == name)
                .ok_or_else(|| KubeconfigError::UnknownContext {
                    name: name.to_owned(),
                    known: known(),
                })?;
        let dangling = |what, missing: &str| KubeconfigError::Dangling {
            context: name.to_owned(),
            what,
            name: missing.to_owned(),
        };
        let (cluster, user) = (&context.context.cluster, &context.context.user);
        Ok(Selected {
            name: &context.name,
            context: &context.context,
            cluster_name: cluster,
            cluster: self
                .clusters
                .iter()
                .find(|one| one.name == *cluster)
                .map(|one| &one.cluster)
                .ok_or_else(|| dangling("cluster", cluster))?,
            user_name: user,
            user: self
                .users
                .iter()
                .find(|one| one.name == *user)
                .map(|one| &one.user)
                .ok_or_else(|| dangling("user", user))?,
        })
    }

    /// A kubeconfig of that context alone, with the content of all files in it, so that it works on another machine.
    /// Exec plugins stay what they are: programs that must be installed where it is used.
    ///
    /// # Errors
    ///
    /// When the context is incomplete or a file cannot be read or is not PEM.
    pub fn flatten(&self, context: Option<&str>) -> Result<Self, KubeconfigError> {
        let selected = self.select(context)?;
        let encode = |bytes: Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
        let mut cluster = selected.cluster.clone();
        cluster.certificate_authority_data = selected.certificate_authority()?.map(encode);
        cluster.certificate_authority = None;
        let mut user = selected.user.clone();
        user.client_certificate_data = selected.client_certificate_pem()?.map(encode);
        user.client_key_data = selected.client_key_pem()?.map(encode);
        (user.client_certificate, user.client_key) = (None, None);
        if let Some(token) = selected.token_from_file()? {
            user.token = Some(token);
        }
        user.token_file = None;
        Ok(Self {
            api_version: "v1".into(),
            kind: "Config".into(),
            clusters: vec![NamedCluster {
                name: selected.cluster_name.to_owned(),
                cluster,
            }],
            users: vec![NamedUser {
                name: selected.user_name.to_owned(),
                user,
            }],
            contexts: vec![NamedContext {
                name: selected.name.to_owned(),
                context: selected.context.clone(),
            }],
            current_context: selected.name.to_owned(),
        })
    }

    /// The file's text.
    ///
    /// # Panics
    ///
    /// Never: a kubeconfig is made of texts, lists and maps.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a kubeconfig can be written as YAML")
    }
}

fn file_error(path: &Path, source: io::Error) -> KubeconfigError {
    KubeconfigError::File {
        path: path.display().to_string(),
        source,
    }
}
