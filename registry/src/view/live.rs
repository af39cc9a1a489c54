//! What is not copied: asked of the children, as the caller, when it is asked for.
//!
//! A child that refuses (403) shows nothing; one that cannot be reached is warned of. Objects carry the child's own
//! revision, lists carry none, and there are no watches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::table::ListMetadata;
use umbra_auth::rbac::Visibility;
use url::form_urlencoded;

use super::budget::Budget;
use super::exchange::{Asked, Bounds, Unanswered, object_path};
use super::fan_out::ask_all;
use super::received::TABLE;
pub(super) use super::received::{Received, malformed};
use super::resource::ViewResource;
use super::selection::ViewSelection;
use super::sight::{Authority, Sight, allows_collection};
use super::target::Target;
use crate::copies::translate::to_view;
use crate::request::{ListOptions, RequestContext, ResourceVersionMatch};
use crate::resource::{Object, ObjectList, Row};

/// How long one child may take; the others have answered long before, and the client waits for all.
const PATIENCE: Duration = Duration::from_secs(10);

impl ViewResource {
    /// The objects of a namespace, or of all, as the children have them now.
    pub(super) async fn list_live(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        self.refuse_the_past(options)?;
        let selection = ViewSelection::parse(options)?;
        let sight = self.sight_of_hub(context, namespace, &selection).await?;
        let questions = self.questions(context, namespace, &selection, sight.as_ref());
        if questions.is_empty() {
            return Ok(ObjectList::default());
        }
        let clusters: BTreeSet<&String> = questions.iter().map(|(cluster, _)| cluster).collect();
        let budget = Budget::of_list(clusters.len());
        // For all of them: whoever is asked later has no less time kept for what comes after.
        let until = context.deadline_of_children();
        let mut asked = Vec::with_capacity(questions.len());
        for (cluster, path) in questions {
            let bounds = Bounds { until, budget: &budget };
            let question = {
                let cluster = cluster.clone();
                async move { self.ask_for_list(context, &cluster, path, bounds).await }
            };
            asked.push((cluster, question));
        }
        let answers = ask_all(asked).await;
        // Who comes first is chance: what there was room for is no answer.
        if budget.has_run_out() {
            return Err(too_much(&self.group_resource(), &budget));
        }
        self.put_together(context, namespace, answers)
    }

    /// Lists of what is asked live have neither pages nor revisions.
    ///
    /// # Errors
    /// 410 for the rest of a list, which was one of copies when it began, and for a state of the past: clients begin anew.
    fn refuse_the_past(&self, options: &ListOptions) -> Result<(), Status> {
        let resource = self.group_resource();
        if !options.continue_token.is_empty() {
            return Err(Status::expired(format!(
                "The provided continue parameter is too old: {resource} are asked of the clusters now, which give no pages. \
                 Start a new list without the continue parameter."
            )));
        }
        // As in `generic::read`: with a limit, a revision without more is meant exactly.
        let is_exact = match options.resource_version_match {
            Some(wanted) => wanted == ResourceVersionMatch::Exact,
            None => options.limit > 0,
        };
        match options.resource_version.filter(|revision| is_exact && *revision > 0) {
            None => Ok(()),
            Some(revision) => Err(Status::expired(format!(
                "The provided resource version is too old: {revision}: {resource} are asked of the clusters, as they are now"
            ))),
        }
    }

    /// One list of all that was answered. Who fails is warned of, unless all do.
    fn put_together(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        answers: Vec<(String, Result<Vec<Object>, Status>)>,
    ) -> Result<ObjectList, Status> {
        let mut items = Vec::new();
        let mut answered = BTreeSet::new();
        let mut failures = BTreeMap::new();
        for (cluster, objects) in answers {
            match objects {
                Ok(objects) => {
                    items.extend(objects);
                    answered.insert(cluster);
                }
                Err(status) if status.code == Reason::Forbidden.code() => {}
                Err(status) => {
                    failures.entry(cluster).or_insert(status);
                }
            }
        }
        if answered.is_empty() {
            return Err(match failures.into_values().next() {
                Some(status) => status,
                None => self.forbidden_by_children(context, "list", "", namespace.unwrap_or_default(), ""),
            });
        }
        for (cluster, status) in failures {
            let part = if answered.contains(&cluster) { "some of " } else { "" };
            let warning = format!("{part}what cluster \"{cluster}\" has is left out: {status}");
            context.warnings.add(warning);
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

    async fn ask_for_list(
        &self,
        context: &RequestContext,
        cluster: &str,
        path: String,
        bounds: Bounds<'_>,
    ) -> Result<Vec<Object>, Unanswered> {
        let asked = Asked::get(path, TABLE);
        let answer = self
            .services
            .exchange_within(context, cluster, asked, bounds.and(PATIENCE))
            .await?;
        let kind = self.served.descriptor.group_version_kind();
        let received = Received::list(&answer.body, &kind).map_err(|error| malformed(cluster, &error))?;
        drop(answer);
        Ok(self.take(cluster, received)?)
    }

    /// The object as the child has it now.
    pub(super) async fn get_live(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
    ) -> Result<Object, Status> {
        let bounds = Bounds {
            until: context.deadline_of_children(),
            budget: &Budget::of_objects(),
        };
        Ok(self.get_live_within(context, namespace, target, bounds).await?)
    }

    async fn get_live_within(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
        bounds: Bounds<'_>,
    ) -> Result<Object, Unanswered> {
        let path = object_path(&self.served.descriptor.resource, namespace, &target.name, "");
        let asked = Asked::get(format!("{path}?includeObject=Object"), TABLE);
        let answer = self
            .services
            .exchange_within(context, &target.cluster, asked, bounds.and(PATIENCE));
        let answer = answer.await.map_err(|unanswered| Unanswered {
            status: self.qualified_status(unanswered.status, target),
            ..unanswered
        })?;
        let received = Received::object(&answer.body).map_err(|error| malformed(&target.cluster, &error))?;
        let objects = self.take(&target.cluster, received)?;
        let missing = || Status::not_found(&self.group_resource(), &target.qualified());
        Ok(objects.into_iter().next().ok_or_else(missing)?)
    }

    /// What each of these clusters says of the object of that name.
    pub(super) async fn find_live(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        clusters: Vec<&String>,
    ) -> Vec<(String, Result<Target, Status>)> {
        let budget = Budget::of_objects();
        let until = context.deadline_of_children();
        let mut asked = Vec::with_capacity(clusters.len());
        for cluster in clusters {
            let bounds = Bounds { until, budget: &budget };
            let target = async move {
                let target = self.target(cluster, name)?;
                let found = self.get_live_within(context, namespace, &target, bounds).await?;
                Ok(Target {
                    found: Some(found),
                    ..target
                })
            };
            asked.push((cluster.clone(), target));
        }
        ask_all(asked).await
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

/// 413 for a list that is too long to be put together.
fn too_much(resource: &GroupResource, budget: &Budget) -> Status {
    let message = format!("the {resource} of these clusters are too much for one list: {budget}");
    Status::failure(Reason::RequestEntityTooLarge, message)
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
