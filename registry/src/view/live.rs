//! What is not copied: asked of the children, as the caller, when it is asked for.
//!
//! A child that refuses (403) shows nothing; one that cannot be reached is warned of. Objects carry the child's own
//! revision, lists carry none, and there are no watches.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::raw::RawMap;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::table::{ColumnDefinition, ListMetadata, ReceivedTable};
use umbra_auth::rbac::Visibility;
use url::form_urlencoded;

use super::exchange::{Asked, object_path};
use super::resource::ViewResource;
use super::selection::ViewSelection;
use super::sight::{Authority, Sight, allows_collection};
use super::target::Target;
use crate::child_errors::unusable;
use crate::copies::translate::to_view;
use crate::request::{ListOptions, RequestContext};
use crate::resource::{Object, ObjectList, Row};

/// Asks for Tables, and takes plain objects and lists.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// How long one child may take; the others have answered long before, and the client waits for all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests for one list under way at once. Children that do not answer hold theirs until the deadline, or until their circuit
/// opens; so many of them, at the same time, keep others from being asked.
const AT_ONCE: usize = 64;

impl ViewResource {
    /// The objects of a namespace, or of all, as the children have them now.
    pub(super) async fn list_live(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        let selection = ViewSelection::parse(options)?;
        let sight = self.sight_of_hub(context, namespace, &selection).await?;
        let questions = self.questions(context, namespace, &selection, sight.as_ref());
        if questions.is_empty() {
            return Ok(ObjectList::default());
        }
        let mut asked = Vec::with_capacity(questions.len());
        for (cluster, path) in questions {
            asked.push(async move {
                let objects = self.ask_for_list(context, &cluster, path).await;
                (cluster, objects)
            });
        }
        let answers = all(asked).await;
        let mut items = Vec::new();
        let mut answered = false;
        let mut failures = Vec::new();
        for (cluster, objects) in answers {
            match objects {
                Ok(objects) => {
                    answered = true;
                    items.extend(objects);
                }
                Err(status) => failures.push((cluster, status)),
            }
        }
        failures.retain(|(_, status)| status.code != Reason::Forbidden.code());
        if !answered {
            return Err(match failures.into_iter().next() {
                Some((_, status)) => status,
                None => self.forbidden_by_children(context, "list", "", namespace.unwrap_or_default(), ""),
            });
        }
        for (cluster, status) in failures {
            context
                .warnings
                .add(format!("what cluster \"{cluster}\" has is left out: {status}"));
        }
        Ok(ObjectList {
            metadata: ListMetadata::default(),
            items,
        })
    }

    /// What the hub lets the caller list; `None` where it does not decide.
    ///
    /// # Errors
    /// 403 where that is nothing, 500 where the hub cannot be asked.
    async fn sight_of_hub(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        selection: &ViewSelection,
    ) -> Result<Option<Sight>, Status> {
        if matches!(self.authority, Authority::Children) {
            return Ok(None);
        }
        let clusters: Vec<&String> = self.served.clusters.keys().collect();
        let extent = self.extent(namespace, selection);
        let sight = self.sight(context, &clusters, "list", extent).await?;
        if sight.0.values().any(|visible| allows_collection(visible, extent)) {
            Ok(Some(sight))
        } else {
            Err(self.forbidden(context, "list", "", namespace.unwrap_or_default(), ""))
        }
    }

    /// What to ask of which cluster. Who may list some namespaces of a cluster, but not all, is asked for those; where the
    /// hub decides, for those that it allows, too.
    fn questions(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        selection: &ViewSelection,
        sight: Option<&Sight>,
    ) -> Vec<(String, String)> {
        let descriptor = &self.served.descriptor;
        let mut questions = Vec::new();
        for cluster in self.served.clusters.keys().filter(|cluster| selection.admits(cluster)) {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("includeObject", "Object")
                .append_pair("labelSelector", &selection.child_labels())
                .append_pair("fieldSelector", &selection.child_fields(cluster))
                .finish();
            let mut ask = |namespace: Option<&str>| {
                let path = object_path(&descriptor.resource, namespace, "", "");
                questions.push((cluster.clone(), format!("{path}?{query}")));
            };
            let act = self.act("list", &descriptor.resource.resource);
            let seen = self.services.visibility(&context.user, cluster, act);
            if namespace.is_some() || !descriptor.namespaced {
                ask(namespace);
                continue;
            }
            // Without any known to be allowed, the child is asked for all of them: it may know better.
            let there = (!seen.all_namespaces && !seen.namespaces.is_empty()).then(|| seen.namespaces.clone());
            let allowed = sight.and_then(|sight| sight.0.get(cluster));
            let here = allowed.and_then(|allowed| namespaces_of(allowed, selection.name()));
            match (here, there) {
                (None, None) => ask(None),
                (Some(namespaces), None) | (None, Some(namespaces)) => {
                    namespaces.iter().for_each(|namespace| ask(Some(namespace)));
                }
                (Some(here), Some(there)) => here.intersection(&there).for_each(|namespace| ask(Some(namespace))),
            }
        }
        questions
    }

    async fn ask_for_list(&self, context: &RequestContext, cluster: &str, path: String) -> Result<Vec<Object>, Status> {
        let asked = Asked::get(path, TABLE);
        let answer = self.services.exchange(context, cluster, asked, PATIENCE).await?;
        let kind = self.served.descriptor.group_version_kind();
        let received = Received::list(&answer.body, &kind).map_err(|error| malformed(cluster, &error))?;
        self.take(cluster, received)
    }

    /// The object as the child has it now.
    pub(super) async fn get_live(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
    ) -> Result<Object, Status> {
        let path = object_path(&self.served.descriptor.resource, namespace, &target.name, "");
        let asked = Asked::get(format!("{path}?includeObject=Object"), TABLE);
        let answer = self.services.exchange(context, &target.cluster, asked, PATIENCE).await;
        let answer = answer.map_err(|status| self.qualified_status(status, target))?;
        let received = Received::object(&answer.body).map_err(|error| malformed(&target.cluster, &error))?;
        let objects = self.take(&target.cluster, received)?;
        let missing = || Status::not_found(&self.group_resource(), &target.qualified());
        objects.into_iter().next().ok_or_else(missing)
    }

    /// What each of these clusters says of the object of that name.
    pub(super) async fn find_live(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        clusters: Vec<&String>,
    ) -> Vec<(String, Result<Target, Status>)> {
        let mut asked = Vec::with_capacity(clusters.len());
        for cluster in clusters {
            asked.push(async move {
                let target = async {
                    let target = self.target(cluster, name)?;
                    let found = Some(self.get_live(context, namespace, &target).await?);
                    Ok(Target { found, ..target })
                };
                (cluster.clone(), target.await)
            });
        }
        all(asked).await
    }

    /// Puts received objects into the form of the view and remembers how they are printed.
    fn take(&self, cluster: &str, received: Received) -> Result<Vec<Object>, Status> {
        let resource = self.group_resource();
        let columns = &received.columns[..];
        let objects = received.objects.into_iter().map(|(json, cells)| {
            let row = (!cells.is_empty()).then_some((columns, cells));
            let translated = to_view(json.get().as_bytes(), cluster, &resource, row);
            let envelope = translated.map_err(|error| malformed(cluster, &error))?.envelope;
            let revision = envelope.header.child_revision.parse().unwrap_or_default();
            let row = Row::new(cluster, &envelope.header.created, envelope.header.cells.json());
            Ok(Object {
                json: envelope.object(revision),
                row: Some(row.into()),
            })
        });
        let objects = objects.collect::<Result<Vec<_>, Status>>()?;
        if !received.columns.is_empty() {
            self.printed.lock().insert(cluster.to_owned(), received.columns.into());
        }
        Ok(objects)
    }
}

/// What comes of all of them, in their order. Whoever is slow keeps nobody from being asked: `buffered` would wait for the first
/// before it goes on.
async fn all<F: Future>(asked: Vec<F>) -> Vec<F::Output> {
    let asked = asked.into_iter().enumerate();
    let asked = asked.map(async |(position, one)| (position, one.await));
    let mut answers: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    answers.sort_unstable_by_key(|(position, _)| *position);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The namespaces of which a list may show anything; `None` for all.
fn namespaces_of(visible: &Visibility, name: Option<&str>) -> Option<BTreeSet<String>> {
    if visible.all_namespaces || name.is_some_and(|name| visible.names.contains(name)) {
        return None;
    }
    let by_name = visible.namespaced_names.iter();
    let by_name = by_name.filter(|(_, names)| name.is_some_and(|name| names.contains(name)));
    let namespaces = visible.namespaces.iter().chain(by_name.map(|(namespace, _)| namespace));
    Some(namespaces.cloned().collect())
}

/// 502 for an answer that makes no sense.
pub(super) fn malformed(cluster: &str, error: &dyn std::fmt::Display) -> Status {
    unusable(cluster, format_args!("the answer cannot be read: {error}"))
}

/// Objects as a child sent them, and how it prints them.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) columns: Vec<ColumnDefinition>,
    /// Each with one value a column; without any where the child does not print.
    pub(super) objects: Vec<(Box<RawValue>, Vec<Value>)>,
}

#[derive(Deserialize)]
struct KindOnly {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
struct PlainList {
    #[serde(default)]
    items: Vec<Box<RawValue>>,
}

impl Received {
    /// Reads a Table or a list of objects of `kind`.
    ///
    /// # Errors
    /// Where it is neither.
    pub(super) fn list(body: &[u8], kind: &GroupVersionKind) -> Result<Self, serde_json::Error> {
        if let Some(table) = Self::table(body)? {
            return Ok(table);
        }
        let list: PlainList = serde_json::from_slice(body)?;
        let items = list.items.into_iter().map(|item| (with_type(item, kind), Vec::new()));
        Ok(Self {
            columns: Vec::new(),
            objects: items.collect(),
        })
    }

    /// Reads a Table or an object.
    fn object(body: &[u8]) -> Result<Self, serde_json::Error> {
        if let Some(table) = Self::table(body)? {
            return Ok(table);
        }
        Ok(Self {
            columns: Vec::new(),
            objects: vec![(serde_json::from_slice(body)?, Vec::new())],
        })
    }

    fn table(body: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        if serde_json::from_slice::<KindOnly>(body)?.kind != "Table" {
            return Ok(None);
        }
        let table: ReceivedTable = serde_json::from_slice(body)?;
        let rows = table.rows.into_iter().filter_map(|row| Some((row.object?, row.cells)));
        Ok(Some(Self {
            columns: table.column_definitions,
            objects: rows.collect(),
        }))
    }
}

/// Lists leave the type out of each item; it is put back, because the items of a view stand alone.
fn with_type(item: Box<RawValue>, kind: &GroupVersionKind) -> Box<RawValue> {
    match RawMap::parse(item.get().as_bytes()) {
        Ok(object) if object.get("kind").is_none() => {
            let rest = item.get().trim_start().strip_prefix('{').unwrap_or_default();
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            let text = format!(
                "{{\"apiVersion\":{:?},\"kind\":{:?}{comma}{rest}",
                kind.api_version(),
                kind.kind
            );
            RawValue::from_string(text).unwrap_or(item)
        }
        _ => item,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lists_and_tables_are_read() {
        let secret = GroupVersionKind::new("", "v1", "Secret");
        let list = br#"{"kind":"SecretList","apiVersion":"v1","items":[{"metadata":{"name":"a"}},{"kind":"X"},{}]}"#;
        let received = Received::list(list, &secret).unwrap();
        let texts: Vec<&str> = received.objects.iter().map(|(json, _)| json.get()).collect();
        assert_eq!(
            texts,
            [
                r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#,
                r#"{"kind":"X"}"#,
                r#"{"apiVersion":"v1","kind":"Secret"}"#
            ]
        );
        let table = br#"{"kind":"Table","columnDefinitions":[{"name":"Name","type":"string"}],
            "rows":[{"cells":["a"],"object":{"kind":"Secret"}}]}"#;
        let received = Received::list(table, &secret).unwrap();
        assert_eq!((received.columns.len(), received.objects.len()), (1, 1));
        assert_eq!(Received::object(br#"{"kind":"Secret"}"#).unwrap().objects.len(), 1);
    }
}
