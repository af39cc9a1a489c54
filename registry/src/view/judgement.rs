//! How requests for a resource are judged, and what they are told where they are refused.

use umbra_apimachinery::names::QualifiedName;
use umbra_apimachinery::status::Status;
use umbra_auth::delegation::VirtualGroup;
use umbra_auth::rbac::Attributes;

use super::resource::ViewResource;
use super::selection::ViewSelection;
use super::sight::{Act, Authority, Extent, Question, Sight};
use crate::generic::authorization::forbidden;
use crate::request::RequestContext;

impl ViewResource {
    /// What a request for a collection is about.
    pub(super) fn extent<'a>(&self, namespace: Option<&'a str>, selection: &'a ViewSelection) -> Extent<'a> {
        Extent {
            namespaced: self.served.descriptor.namespaced,
            namespace,
            name: selection.name(),
        }
    }

    /// What the caller may do in these clusters.
    ///
    /// # Errors
    /// 500 where the hub decides and cannot be asked.
    pub(super) async fn sight(
        &self,
        context: &RequestContext,
        clusters: &[&String],
        verb: &str,
        extent: Extent<'_>,
    ) -> Result<Sight, Status> {
        let question = Question {
            user: &context.user,
            act: self.act(verb, &self.served.descriptor.resource.resource),
            extent,
        };
        let judged = self
            .services
            .judge(&self.authority, question, clusters, context.deadline);
        judged.await
    }

    /// Whether the caller may get an object, in each of these clusters. `place` is the namespace that RBAC judges by.
    ///
    /// # Errors
    /// 500 where the hub decides and cannot be asked.
    pub(super) async fn sight_of_object<'a>(
        &self,
        context: &RequestContext,
        clusters: impl IntoIterator<Item = &'a String>,
        place: &str,
        name: &str,
    ) -> Result<Sight, Status> {
        let clusters: Vec<&String> = clusters.into_iter().collect();
        self.sight(context, &clusters, "get", one_object(place, name)).await
    }

    /// Where the hub decides, makes sure that it allows what is to be done by a child: the child is not asked else. An empty
    /// `name` is a collection, or an object that has none yet.
    ///
    /// # Errors
    /// 403 where the hub does not allow it, 500 where it cannot be asked.
    pub(super) async fn demand(
        &self,
        context: &RequestContext,
        verb: &str,
        subresource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(), Status> {
        let Authority::Hub(hub) = &self.authority else {
            return Ok(());
        };
        let mut resource = self.served.descriptor.resource.resource.clone();
        if !subresource.is_empty() {
            resource = format!("{resource}/{subresource}");
        }
        let place = self.rbac_namespace(namespace, name);
        let question = Question {
            user: &context.user,
            act: self.act(verb, &resource),
            extent: one_object(place, name),
        };
        if question.decide(&**hub, place).await?.is_allowed() {
            Ok(())
        } else {
            Err(self.forbidden(context, verb, subresource, place, name))
        }
    }

    /// A verb on this resource, which may come with a subresource.
    pub(super) fn act<'a>(&'a self, verb: &'a str, resource: &'a str) -> Act<'a> {
        let group = &self.served.descriptor.resource.group;
        Act { verb, group, resource }
    }

    /// The namespace that RBAC judges by: a Namespace is in itself.
    pub(super) fn rbac_namespace<'a>(&self, namespace: Option<&'a str>, name: &'a str) -> &'a str {
        let resource = &self.served.descriptor.resource;
        if resource.group.is_empty() && resource.resource == "namespaces" {
            return name;
        }
        namespace.unwrap_or_default()
    }

    /// 403 as Kubernetes words it, with what the view adds.
    pub(super) fn forbidden(
        &self,
        context: &RequestContext,
        verb: &str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Status {
        if matches!(self.authority, Authority::Children) {
            return self.forbidden_by_children(context, verb, subresource, namespace, name);
        }
        let group = VirtualGroup::View.of(&self.served.descriptor.resource.group);
        let hint = format!(
            "by the hub, which decides in the view \"{}\": it takes a permission there for the API group \"{group}\"",
            self.view
        );
        forbidden(
            &context.user,
            &self.attributes(verb, subresource, namespace, name),
            &hint,
        )
    }

    /// The same where the hub allows it, or has not been asked.
    pub(super) fn forbidden_by_children(
        &self,
        context: &RequestContext,
        verb: &str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Status {
        let mut hint = match QualifiedName::parse(name) {
            Some(named) => format!("by the RBAC of the cluster \"{}\"", named.cluster),
            None => format!("in no cluster of the view \"{}\"", self.view),
        };
        let unknown = self.services.without_policy(self.served.clusters.keys());
        if !unknown.is_empty() {
            hint.push_str("; not known yet is the RBAC of: ");
            hint.push_str(&unknown.join(", "));
        }
        forbidden(
            &context.user,
            &self.attributes(verb, subresource, namespace, name),
            &hint,
        )
    }

    fn attributes<'a>(
        &'a self,
        verb: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        let resource = &self.served.descriptor.resource;
        Attributes {
            verb,
            group: &resource.group,
            resource: &resource.resource,
            subresource,
            namespace,
            name,
            path: "",
            is_resource_request: true,
        }
    }
}

fn one_object<'a>(place: &'a str, name: &'a str) -> Extent<'a> {
    Extent {
        namespaced: !place.is_empty(),
        namespace: (!place.is_empty()).then_some(place),
        name: (!name.is_empty()).then_some(name),
    }
}
