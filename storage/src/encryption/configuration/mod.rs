//! The file that says what is encrypted: Kubernetes' `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`), with the same
//! meaning, so that who knows the one knows the other. Deviations:
//!
//! * Of the providers there are `aesgcm` and `identity`. `aesgcm` derives a key per value (see [`super::key`]) and takes
//!   secrets of 32 bytes only; its values are not those of kube-apiserver.
//! * A key of one name has one secret in the whole file, because a value names its key and nothing else.
//! * Every key decrypts every resource. A resource that was taken off the file is read as long as its key is there.
//! * Umbra's own kinds that hold parts of other objects are treated as Secrets are, unless the file says otherwise.
//! * All faults are told at once, with their places.

mod node;
#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::key::{EncryptionKey, random_secret};
use super::policy::{EncryptionPolicy, Rule};
use super::resource::Pattern;
use node::{Content, Node, Position};

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
/// Providers of Kubernetes that are not here.
const UNSUPPORTED: [&str; 3] = ["aescbc", "secretbox", "kms"];

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigurationFault {
    /// The line, from 1 on.
    pub line: u64,
    /// The column, from 1 on.
    pub column: u64,
    /// What is wrong. It never has a secret in it.
    pub message: String,
}

impl fmt::Display for ConfigurationFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )
    }
}

/// A file that cannot be used, with everything that is wrong with it, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationError(pub Vec<ConfigurationFault>);

impl fmt::Display for ConfigurationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n  " };
            write!(formatter, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigurationError {}

impl EncryptionPolicy {
    /// Reads an `EncryptionConfiguration` in YAML or JSON.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        let root: Node = serde_saphyr::from_str(text).map_err(|error| {
            let at = error.location();
            // The long form of the message shows lines of the file, where secrets are.
            let message = error.without_snippet().to_string();
            ConfigurationError(vec![ConfigurationFault {
                line: at.map_or(1, |at| at.line()),
                column: at.map_or(1, |at| at.column()),
                message,
            }])
        })?;
        let mut reader = Reader::default();
        reader.configuration(&root);
        if reader.faults.is_empty() {
            return Ok(Self::new(reader.keys, reader.rules));
        }
        reader.faults.sort();
        Err(ConfigurationError(reader.faults))
    }
}

/// A file for a hub that has none: a new key for Secrets, and plain ones are read.
///
/// # Errors
/// Where there are no random bytes.
pub fn generate(name: &str) -> Result<Zeroizing<String>, aws_lc_rs::error::Unspecified> {
    let secret = Zeroizing::new(BASE64.encode(random_secret()?.as_slice()));
    Ok(Zeroizing::new(format!(
        "# The key with which this hub encrypts Secrets in its store. Without this file they cannot be read again; with it
# and the store, anybody can read them. To change the key, add another one above it, start the hub again, and take
# the old one out when the hub says so.
apiVersion: {API_VERSION}
kind: {KIND}
resources:
- resources: [secrets]
  providers:
  - aesgcm:
      keys:
      - name: {name}
        secret: {}
  - identity: {{}}
",
        secret.as_str()
    )))
}

/// Reads the file and gathers what is wrong.
#[derive(Default)]
struct Reader {
    faults: Vec<ConfigurationFault>,
    keys: Vec<EncryptionKey>,
    /// The secret of each key, to see whether a name has two.
    secrets: Vec<Zeroizing<Vec<u8>>>,
    rules: Vec<Rule>,
}

/// One provider of a list.
enum Provider {
    /// Indexes of keys.
    Keys(Vec<usize>),
    Identity,
}

impl Reader {
    fn fault(&mut self, at: Position, message: impl Into<String>) {
        self.faults.push(ConfigurationFault {
            line: at.line,
            column: at.column,
            message: message.into(),
        });
    }

    /// The members of a mapping by these names; anything else is a fault.
    fn members<'n, const N: usize>(&mut self, node: &'n Node, what: &str, names: [&str; N]) -> [Option<&'n Node>; N] {
        let mut found = [None; N];
        let Content::Map(members) = &node.content else {
            self.fault(node.at, format!("{what} is a mapping, not {}", node.content.describe()));
            return found;
        };
        for (at, name, member) in members {
            match names.iter().position(|known| known == name) {
                Some(index) => found[index] = Some(member),
                None => self.fault(
                    *at,
                    format!("{what} has no field {name:?}; there are {}", names.join(", ")),
                ),
            }
        }
        found
    }

    fn list<'n>(&mut self, at: Position, node: Option<&'n Node>, what: &str) -> &'n [Node] {
        match node.map(|node| &node.content) {
            Some(Content::List(nodes)) if !nodes.is_empty() => return nodes,
            Some(Content::List(_)) | None => self.fault(at, format!("{what} needs at least one item")),
            Some(other) => {
                let message = format!("{what} is a list, not {}", other.describe());
                self.fault(node.map_or(at, |node| node.at), message);
            }
        }
        &[]
    }

    fn text<'n>(&mut self, at: Position, node: Option<&'n Node>, what: &str) -> Option<(&'n str, Position)> {
        let Some(node) = node else {
            self.fault(at, format!("{what} is missing"));
            return None;
        };
        match &node.content {
            Content::Text(text) => Some((text.as_str(), node.at)),
            other => {
                self.fault(node.at, format!("{what} is a string, not {}", other.describe()));
                None
            }
        }
    }

    fn configuration(&mut self, root: &Node) {
        if !matches!(root.content, Content::Map(_)) {
            self.fault(root.at, format!("this is no {KIND}"));
            return;
        }
        let [version, kind, resources] = self.members(root, "the file", ["apiVersion", "kind", "resources"]);
        for (node, what, expected) in [(version, "apiVersion", API_VERSION), (kind, "kind", KIND)] {
            if let Some((found, at)) = self.text(root.at, node, what)
                && found != expected
            {
                self.fault(at, format!("{what} is {expected:?}, not {found:?}"));
            }
        }
        for entry in self.list(root.at, resources, "resources") {
            self.entry(entry);
        }
    }

    fn entry(&mut self, entry: &Node) {
        let [resources, providers] = self.members(entry, "an entry of resources", ["resources", "providers"]);
        if !matches!(entry.content, Content::Map(_)) {
            return;
        }
        let resources = self.patterns(entry, resources);
        let mut order = Vec::new();
        for provider in self.list(entry.at, providers, "providers") {
            order.extend(self.provider(provider));
        }
        let write = match order.first() {
            Some(Provider::Keys(keys)) => keys.first().copied(),
            _ => None,
        };
        self.rules.push(Rule {
            resources,
            write,
            read_plain: order.iter().any(|provider| matches!(provider, Provider::Identity)),
        });
    }

    fn patterns(&mut self, entry: &Node, resources: Option<&Node>) -> Vec<Pattern> {
        let mut patterns: Vec<Pattern> = Vec::new();
        for node in self.list(entry.at, resources, "resources") {
            let Some((text, at)) = self.text(node.at, Some(node), "a resource") else {
                continue;
            };
            let pattern = match Pattern::parse(text) {
                Ok(pattern) => pattern,
                Err(message) => {
                    self.fault(at, message);
                    continue;
                }
            };
            if let Some(other) = patterns.iter().find(|other| other.overlaps(&pattern)) {
                let message = format!("{text:?} is also meant by {:?} of the same list", other.to_string());
                self.fault(at, message);
            }
            // An entry wins over later ones, so whatever it means as a whole is never asked of those.
            let masks = |other: &&Pattern| *other == &pattern || **other == Pattern::All;
            if let Some(other) = self.rules.iter().flat_map(|rule| &rule.resources).find(masks) {
                let message = format!(
                    "{text:?} has no effect, because an earlier entry means {:?}",
                    other.to_string()
                );
                self.fault(at, message);
            }
            patterns.push(pattern);
        }
        patterns
    }

    fn provider(&mut self, node: &Node) -> Option<Provider> {
        let Content::Map(members) = &node.content else {
            self.fault(
                node.at,
                format!("a provider is a mapping, not {}", node.content.describe()),
            );
            return None;
        };
        let [(at, name, settings)] = members.as_slice() else {
            self.fault(
                node.at,
                "a provider is one of `aesgcm` and `identity`; several are items of the list",
            );
            return None;
        };
        match name.as_str() {
            "identity" => {
                if !matches!(&settings.content, Content::Map(members) if members.is_empty()) {
                    self.fault(settings.at, "identity has no settings: `identity: {}`");
                }
                Some(Provider::Identity)
            }
            "aesgcm" => {
                let [keys] = self.members(settings, "aesgcm", ["keys"]);
                let nodes = self.list(settings.at, keys, "keys");
                let keys: Vec<usize> = nodes.iter().filter_map(|key| self.key(key)).collect();
                Some(Provider::Keys(keys))
            }
            other => {
                let hint = if UNSUPPORTED.contains(&other) {
                    "is not supported here"
                } else {
                    "does not exist"
                };
                self.fault(
                    *at,
                    format!("the provider {other:?} {hint}; there are aesgcm and identity"),
                );
                None
            }
        }
    }

    /// The index of a key, which may have been in the file before.
    fn key(&mut self, node: &Node) -> Option<usize> {
        let [name, secret] = self.members(node, "a key", ["name", "secret"]);
        if !matches!(node.content, Content::Map(_)) {
            return None;
        }
        let name = self.text(node.at, name, "name");
        let secret = self.text(node.at, secret, "secret");
        let ((name, name_at), (secret, secret_at)) = (name?, secret?);
        let Ok(secret) = BASE64.decode(secret).map(Zeroizing::new) else {
            self.fault(secret_at, format!("the secret of {name:?} is not in base64"));
            return None;
        };
        let key = match EncryptionKey::new(name, &secret) {
            Ok(key) => key,
            Err(error) => {
                let at = if error == super::key::KeyError::Name {
                    name_at
                } else {
                    secret_at
                };
                self.fault(at, format!("{name:?}: {error}"));
                return None;
            }
        };
        if let Some(index) = self.keys.iter().position(|known| known.name() == key.name()) {
            if *self.secrets[index] != *secret {
                self.fault(name_at, format!("there are two keys {name:?} with different secrets"));
            }
            return Some(index);
        }
        self.keys.push(key);
        self.secrets.push(secret);
        Some(self.keys.len() - 1)
    }
}
