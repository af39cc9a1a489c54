//! The entries that lead to roots, and how they get into files.
//!
//! A context gets a cluster of its own, which is the hub's with the URL of the root, and the user of the hub's context by name.
//! Nothing that is there is changed but an entry that this command wrote before, which is recognised by its server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::root::Root;
use super::source::{Chosen, Entry, Fields, List, Source};

/// A context that leads to a root. The cluster has the same name.
#[derive(Debug, Clone)]
pub(crate) struct Addition {
    pub(crate) name: String,
    pub(crate) root: Root,
}

/// What the contexts are called: `name` for a single root, and for several what their names begin with; without it they begin
/// with the hub's context.
pub(crate) fn additions(roots: Vec<Root>, name: Option<&str>, hub_context: &str) -> Vec<Addition> {
    let single = roots.len() == 1;
    let named = |root: Root| {
        let name = match name {
            Some(name) if single => name.to_owned(),
            beginning => {
                let beginning = beginning.unwrap_or(hub_context);
                format!("{beginning}-{}-{}", root.kind.word(), root.name)
            }
        };
        Addition { name, root }
    };
    roots.into_iter().map(named).collect()
}

/// The fields of the cluster of a root, for a file in `folder` or anywhere else.
fn cluster(chosen: &Chosen, root: &Root, folder: Option<&Path>) -> Fields {
    let mut fields = chosen.cluster.moved_to(folder);
    fields.insert("server".to_owned(), server(chosen, root).into());
    fields
}

/// The URL of a root.
fn server(chosen: &Chosen, root: &Root) -> String {
    format!("{}{}", chosen.hub, root.prefix())
}

/// The fields of a context: what it had before, and what it is for. It has the namespace of the hub's context unless another
/// one is named.
fn context(before: Option<Fields>, chosen: &Chosen, name: &str, namespace: Option<&str>) -> Fields {
    let mut fields = before.unwrap_or_default();
    fields.insert("cluster".to_owned(), name.into());
    fields.insert("user".to_owned(), chosen.user.name.as_str().into());
    let inherited = chosen.context.fields.get("namespace").cloned();
    match (namespace, inherited) {
        (Some(namespace), _) => {
            fields.insert("namespace".to_owned(), namespace.into());
        }
        (None, Some(inherited)) => {
            fields.entry("namespace").or_insert(inherited);
        }
        (None, None) => {}
    }
    fields
}

fn named(list: List, name: &str, fields: &Fields) -> Value {
    json!({"name": name, list.entry(): fields})
}

/// A kubeconfig of its own, whose current context is the first. Only what has to be in it is: the credentials of this user,
/// where files and programs stay what they are, under paths that hold everywhere on this machine.
pub(crate) fn document(chosen: &Chosen, additions: &[Addition], namespace: Option<&str>) -> Fields {
    let clusters = additions
        .iter()
        .map(|one| named(List::Clusters, &one.name, &cluster(chosen, &one.root, None)));
    let contexts = additions
        .iter()
        .map(|one| named(List::Contexts, &one.name, &context(None, chosen, &one.name, namespace)));
    let mut document = Map::new();
    document.insert("apiVersion".to_owned(), "v1".into());
    document.insert("kind".to_owned(), "Config".into());
    document.insert("clusters".to_owned(), clusters.collect());
    document.insert("contexts".to_owned(), contexts.collect());
    let user = named(List::Users, &chosen.user.name, &chosen.user.moved_to(None));
    document.insert("users".to_owned(), Value::Array(vec![user]));
    let first = additions.first().map_or("", |one| one.name.as_str());
    document.insert("current-context".to_owned(), first.into());
    document
}

/// An entry to write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Edit {
    list: List,
    name: String,
    /// What was there when it was decided.
    before: Option<Fields>,
    after: Fields,
}

/// What to write into which file.
pub(crate) type Edits = BTreeMap<PathBuf, Vec<Edit>>;

/// What puts the additions into the file that the hub's context is in; entries that were written before are renewed where they
/// are.
///
/// # Errors
/// Where a name is taken by something else.
pub(crate) fn edits(
    source: &Source,
    chosen: &Chosen,
    additions: &[Addition],
    namespace: Option<&str>,
) -> Result<Edits> {
    let mut edits = Edits::new();
    let mut write = |list: List, name: &str, before: Option<Entry>, after: &dyn Fn(&Path) -> Fields| {
        let file = before
            .as_ref()
            .map_or(&chosen.context.file, |entry| &entry.file)
            .clone();
        let after = after(file.parent().unwrap_or(Path::new("/")));
        edits.entry(file).or_default().push(Edit {
            list,
            name: name.to_owned(),
            before: before.map(|entry| entry.fields),
            after,
        });
    };
    for Addition { name, root } in additions {
        let present = source.entry(List::Clusters, name);
        let wanted = server(chosen, root);
        let text = |entry: &Entry, key: &str| {
            entry
                .fields
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        if let Some(present) = &present
            && text(present, "server").trim_end_matches('/') != wanted
        {
            bail!(
                "{} has a cluster {name:?} already, at {}; choose another name with --name",
                present.file.display(),
                text(present, "server")
            );
        }
        write(List::Clusters, name, present, &|folder| {
            cluster(chosen, root, Some(folder))
        });
        let present = source.entry(List::Contexts, name);
        if let Some(present) = &present
            && text(present, "cluster") != *name
        {
            bail!(
                "{} has a context {name:?} already, for the cluster {:?}; choose another name with --name",
                present.file.display(),
                text(present, "cluster")
            );
        }
        let before = present.as_ref().map(|entry| entry.fields.clone());
        let after = context(before, chosen, name, namespace);
        write(List::Contexts, name, present, &|_| after.clone());
    }
    Ok(edits)
}

impl Edit {
    /// Writes the entry into a file.
    ///
    /// # Errors
    /// Where the entry is no longer as it was when it was decided what to write.
    pub(crate) fn apply(&self, file: &mut Fields) -> Result<(), String> {
        let (list, name) = (self.list, &self.name);
        let entries = file.get_mut(list.key()).and_then(Value::as_array_mut);
        let entries = entries.ok_or_else(|| format!("{} is not a list", list.key()))?;
        let after = named(list, name, &self.after);
        match entries.iter_mut().find(|entry| entry["name"] == name.as_str()) {
            Some(entry) => {
                if entry[list.entry()].as_object() != self.before.as_ref() {
                    let what = list.entry();
                    return Err(format!(
                        "somebody has changed the {what} {name:?} at the same time; try again"
                    ));
                }
                entry[list.entry()] = after[list.entry()].clone();
            }
            None => entries.push(after),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Kind;
    use super::super::source::tests::file;
    use super::*;

    const CONFIG: &str = "
current-context: prod
contexts: [{name: prod, context: {cluster: prod, user: me, namespace: shop, extensions: [{name: x}]}}]
clusters: [{name: prod, cluster: {server: 'https://hub/', certificate-authority: ca.crt, extensions: [{name: plugin}]}}]
users: [{name: me, user: {client-certificate: me.crt, client-key: me.key}}]";

    fn roots() -> Vec<Root> {
        let root = |kind, name: &str| Root {
            kind,
            name: name.to_owned(),
        };
        vec![root(Kind::View, "all"), root(Kind::Cluster, "east")]
    }

    fn source(text: &str) -> (Source, Chosen) {
        let source = Source::of(vec![file("/a/config", text)]);
        let chosen = source.choose(None).unwrap();
        (source, chosen)
    }

    /// The file after the edits.
    fn applied(edits: &Edits, text: &str) -> Fields {
        let mut content = file("/a/config", text).content;
        for edit in &edits[Path::new("/a/config")] {
            edit.apply(&mut content).unwrap();
        }
        content
    }

    #[test]
    fn names_begin_with_the_hubs_or_are_the_one_that_is_given() {
        let names = |roots: Vec<Root>, name| {
            let additions = additions(roots, name, "prod");
            additions.into_iter().map(|one| one.name).collect::<Vec<_>>()
        };
        assert_eq!(names(roots(), None), ["prod-view-all", "prod-cluster-east"]);
        assert_eq!(names(roots(), Some("x")), ["x-view-all", "x-cluster-east"]);
        assert_eq!(names(roots()[..1].to_vec(), Some("x")), ["x"]);
    }

    #[test]
    fn a_document_has_the_users_own_credential() {
        let (_, chosen) = source(CONFIG);
        let document = Value::Object(document(&chosen, &additions(roots(), None, "prod"), None));
        let view = &document["clusters"][0]["cluster"];
        assert_eq!(view["server"], "https://hub/apis/umbra.dev/v1alpha1/views/all/proxy");
        assert_eq!(view["certificate-authority"], "/a/ca.crt");
        assert_eq!(view["extensions"], json!([{"name": "plugin"}]));
        assert_eq!(document["users"][0]["user"]["client-key"], "/a/me.key");
        assert_eq!(
            document["contexts"][1],
            json!({"name": "prod-cluster-east", "context": {"cluster": "prod-cluster-east", "user": "me", "namespace": "shop"}})
        );
        assert_eq!(document["current-context"], "prod-view-all");
    }

    #[test]
    fn what_was_written_before_is_renewed_and_nothing_else_is_touched() {
        let (loaded, chosen) = source(CONFIG);
        let additions = additions(roots(), None, "prod");
        let first = applied(&edits(&loaded, &chosen, &additions, None).unwrap(), CONFIG);
        assert_eq!(first["users"], file("/", CONFIG).content["users"]);
        assert_eq!(first["clusters"][1]["cluster"]["certificate-authority"], "ca.crt");
        let text = Value::Object(first.clone()).to_string();
        let (loaded, chosen) = source(&text);
        let again = edits(&loaded, &chosen, &additions, None).unwrap();
        assert_eq!(applied(&again, &text), first);
        let other = edits(&loaded, &chosen, &additions, Some("till")).unwrap();
        assert_eq!(applied(&other, &text)["contexts"][1]["context"]["namespace"], "till");
        // Somebody was faster.
        let changed = text.replace("views/all", "views/some");
        let mut content = file("/a/config", &changed).content;
        let cluster = again[Path::new("/a/config")].first().unwrap();
        assert!(cluster.apply(&mut content).unwrap_err().contains("at the same time"));
    }

    #[test]
    fn names_that_are_taken_are_refused() {
        let (source, chosen) = source(CONFIG);
        let taken = additions(roots()[..1].to_vec(), Some("prod"), "prod");
        let error = edits(&source, &chosen, &taken, None).unwrap_err().to_string();
        assert!(error.contains("https://hub/") && error.contains("--name"), "{error}");
    }
}
