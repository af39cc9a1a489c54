//! The user's kubeconfig, entry by entry as it is written.
//!
//! Several files are read as one as `ClientConfigLoadingRules.Load` of client-go does: files that do not exist are skipped, and
//! of several entries of one name the first wins. Entries stay values, so that what is written anew keeps what this program does
//! not know, such as the extensions that exec plugins read.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use kube::Client;
use kube::config::{Config, KubeConfigOptions};
use serde_json::{Map, Value, json};
use umbra_apimachinery::request::{RootName, RootPath};
use umbra_child::kubeconfig::default_paths;

/// The fields of an entry.
pub(crate) type Fields = Map<String, Value>;

/// A list of a kubeconfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum List {
    Clusters,
    Users,
    Contexts,
}

impl List {
    /// The key of the list.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::Users => "users",
            Self::Contexts => "contexts",
        }
    }

    /// The key of an entry's fields, beside its `name`.
    pub(crate) fn entry(self) -> &'static str {
        match self {
            Self::Clusters => "cluster",
            Self::Users => "user",
            Self::Contexts => "context",
        }
    }

    /// The fields that are paths of files (`GetClusterFileReferences` and `GetAuthInfoFileReferences` of client-go).
    fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Clusters => &["certificate-authority"],
            Self::Users => &["client-certificate", "client-key", "tokenFile"],
            Self::Contexts => &[],
        }
    }
}

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) content: Fields,
}

/// An entry of a list, and the file it is in.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) list: List,
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) fields: Fields,
}

impl Entry {
    /// The fields as they have to be written into a file of `folder`, or somewhere else. As in client-go, paths are relative to
    /// the file that names them, and absolute where that would lead out of its folder.
    pub(crate) fn moved_to(&self, folder: Option<&Path>) -> Fields {
        let from = self.file.parent().unwrap_or(Path::new("/"));
        let mut fields = self.fields.clone();
        if folder == Some(from) {
            return fields;
        }
        let moved = |path: &str| {
            let path = normal(&from.join(path));
            let relative = folder.and_then(|folder| path.strip_prefix(folder).ok());
            relative.unwrap_or(&path).display().to_string()
        };
        for key in self.list.paths() {
            if let Some(Value::String(path)) = fields.get_mut(*key).filter(|path| *path != "") {
                *path = moved(path);
            }
        }
        // A command without a slash is looked up in PATH.
        if let Some(Value::String(command)) = fields.get_mut("exec").and_then(|exec| exec.get_mut("command"))
            && command.contains('/')
        {
            *command = normal(&from.join(&command)).display().to_string();
        }
        fields
    }
}

/// A path without `.` and, where that is the same, without `..`: only its text, as `filepath.Join` of Go.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// The files of a kubeconfig.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    files: Vec<File>,
}

/// A context with what it names.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) context: Entry,
    pub(crate) cluster: Entry,
    pub(crate) user: Entry,
    /// The URL of the hub's API server, without a slash at its end: the cluster's, without the root where it is one of a root.
    pub(crate) hub: String,
}

impl Source {
    /// Reads one file, or those of `$KUBECONFIG`, or `~/.kube/config`.
    ///
    /// # Errors
    /// Where there is none, and where one cannot be read.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self> {
        let paths = match file {
            Some(path) => vec![path.to_owned()],
            None => {
                let home = std::env::var_os("HOME").map(PathBuf::from);
                default_paths(std::env::var_os("KUBECONFIG").as_deref(), home.as_deref())
            }
        };
        let mut files = Vec::new();
        for path in &paths {
            match std::fs::read_to_string(path) {
                Ok(text) => files.push(File {
                    path: std::path::absolute(path)?,
                    content: parse(&text).with_context(|| format!("{} is not a kubeconfig", path.display()))?,
                }),
                Err(error) if error.kind() == ErrorKind::NotFound && file.is_none() => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "the kubeconfig {} cannot be read; name another one with --kubeconfig",
                            path.display()
                        )
                    });
                }
            }
        }
        if files.is_empty() {
            let looked: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            bail!(
                "there is no kubeconfig: looked for {}; name one with --kubeconfig",
                looked.join(", ")
            );
        }
        Ok(Self { files })
    }

    /// Files that were read.
    #[cfg(test)]
    pub(crate) fn of(files: Vec<File>) -> Self {
        Self { files }
    }

    /// Where the current context is written: the first file, whose current context wins (`writeCurrentContext` of client-go).
    pub(crate) fn default_file(&self) -> &Path {
        &self.files[0].path
    }

    /// The entry of that name.
    pub(crate) fn entry(&self, list: List, name: &str) -> Option<Entry> {
        self.files.iter().find_map(|file| {
            let entries = file.content.get(list.key())?.as_array()?;
            let entry = entries.iter().find(|entry| entry["name"] == name)?;
            Some(Entry {
                list,
                name: name.to_owned(),
                file: file.path.clone(),
                fields: entry[list.entry()].as_object().cloned().unwrap_or_default(),
            })
        })
    }

    fn contexts(&self) -> Vec<&str> {
        let entries = self
            .files
            .iter()
            .filter_map(|file| file.content.get("contexts")?.as_array());
        entries.flatten().filter_map(|entry| entry["name"].as_str()).collect()
    }

    /// A context and what it names; the current one where none is named.
    ///
    /// # Errors
    /// Where there is none of that name, or something it names is not there.
    pub(crate) fn choose(&self, context: Option<&str>) -> Result<Chosen> {
        let mut current = self
            .files
            .iter()
            .filter_map(|file| file.content.get("current-context")?.as_str());
        let current = current.find(|name| !name.is_empty());
        let known = self.contexts().join(", ");
        let name = context
            .or(current)
            .ok_or_else(|| anyhow!("the kubeconfig has no current context; name one with --context: {known}"))?;
        let context = self
            .entry(List::Contexts, name)
            .ok_or_else(|| anyhow!("the kubeconfig has no context {name:?}; it has {known}"))?;
        let named = |list: List| {
            let what = list.entry();
            let named = context.fields.get(what).and_then(Value::as_str).unwrap_or_default();
            self.entry(list, named).ok_or_else(|| {
                anyhow!("context {name:?} names the {what} {named:?}, which the kubeconfig does not have")
            })
        };
        let (cluster, user) = (named(List::Clusters)?, named(List::Users)?);
        let server = cluster.fields.get("server").and_then(Value::as_str).unwrap_or_default();
        if !server.starts_with("https://") && !server.starts_with("http://") {
            bail!(
                "cluster {:?} of the kubeconfig has the server {server:?}, which is no URL",
                cluster.name
            );
        }
        let hub = hub_url(server).to_owned();
        Ok(Chosen {
            context,
            cluster,
            user,
            hub,
        })
    }
}

impl Chosen {
    /// What names of contexts for this hub begin with: the name of the context, without what it is called after the root that it
    /// leads to, if it leads to one.
    pub(crate) fn beginning(&self) -> &str {
        let name = self.context.name.as_str();
        let server = self
            .cluster
            .fields
            .get("server")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (word, root) =
            match RootPath::split(server.strip_prefix(&self.hub).unwrap_or_default().trim_end_matches('/')).root {
                RootName::Hub => return name,
                RootName::View(root) => ("view", root),
                RootName::Fleet(root) => ("fleet", root),
                RootName::Cluster(root) => ("cluster", root),
            };
        let ends = [format!("-{word}-{root}"), format!("-{word}")];
        ends.iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|left| !left.is_empty())
            .unwrap_or(name)
    }

    /// How to reach the hub with these credentials.
    ///
    /// # Errors
    /// Where the credentials cannot be used.
    pub(crate) async fn config(&self) -> Result<Config> {
        let mut cluster = self.cluster.moved_to(None);
        cluster.insert("server".to_owned(), self.hub.clone().into());
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "hub",
            "clusters": [{"name": "hub", "cluster": cluster}],
            "users": [{"name": "user", "user": self.user.moved_to(None)}],
            "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "user"}}],
        });
        let unusable = || format!("context {:?} of the kubeconfig cannot be used", self.context.name);
        let kubeconfig = serde_json::from_value(document).with_context(unusable)?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(unusable)
    }

    /// A client of the hub. Every request is answered within `answer`, or fails.
    ///
    /// # Errors
    /// Where the credentials cannot be used.
    pub(crate) async fn client(&self, answer: std::time::Duration) -> Result<Client> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(answer);
        config.read_timeout = Some(answer);
        // Whoever waits wants to hear what is wrong, not that it was tried three times.
        config.default_retry = false;
        let unusable = || format!("context {:?} of the kubeconfig cannot be used", self.context.name);
        Client::try_from(config).with_context(unusable)
    }
}

fn parse(text: &str) -> Result<Fields> {
    if text.trim().is_empty() {
        return Ok(Fields::new());
    }
    Ok(serde_saphyr::from_str(text)?)
}

/// The URL of a hub, given that of the hub or of one of its roots. An API server may itself be below a path.
fn hub_url(server: &str) -> &str {
    let server = server.trim_end_matches('/');
    let group = format!("/apis/{}/", umbra_api::API_VERSION);
    let Some(at) = server.rfind(&group) else {
        return server;
    };
    let path = RootPath::split(&server[at..]);
    if path.root != RootName::Hub && path.path == "/" {
        &server[..at]
    } else {
        server
    }
}

#[cfg(test)]
pub(crate) mod tests;
