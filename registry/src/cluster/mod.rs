//! The cluster root: one child's whole API, live, as the calling user.
//!
//! Requests and answers are streamed and not understood, with these exceptions:
//! * a cluster whose `spec.access` is `ReadOnly` gets reads alone, reviews among them, and nothing is run there;
//! * absolute URLs in what the child serves about itself ([`documents`]) carry the root's prefix, because clients follow
//!   them: without it `kubectl explain` silently asks the hub.

mod documents;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ACCEPT_ENCODING, HOST};
use http::{HeaderMap, Method, Request, Response};
use tokio::time::Instant;
use umbra_api::cluster::Access;
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::Status;
use umbra_child::proxy::{self, ProxyOptions};
use umbra_child::upgrade;
use umbra_child::{Children, RequestDeadline, ending_by};

use self::documents::Document;
use crate::child_errors::{child_status, no_such_cluster, not_connected, read_only, unreachable};
use crate::directory::{Directory, unreachable_since};
use crate::mirror::Mirror;
use crate::request::RequestContext;
use crate::resource::Body;
use crate::root::Forward;

/// Subresources that run or reach programs in the cluster, whatever the method.
const RUNNING: [&str; 4] = ["attach", "exec", "portforward", "proxy"];

/// Creates that ask and change nothing.
const QUESTIONS: [&str; 6] = [
    "localsubjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "selfsubjectrulesreviews",
    "subjectaccessreviews",
    "tokenreviews",
];

/// One child's whole API.
#[derive(Debug, Clone)]
pub struct ClusterRoot {
    name: String,
    directory: Arc<Mirror<Directory>>,
    children: Children,
}

impl ClusterRoot {
    /// The root of the cluster of that name.
    ///
    /// # Errors
    /// 404 where there is no such `ManagedCluster`.
    pub fn new(name: &str, directory: Arc<Mirror<Directory>>, children: Children) -> Result<Self, Status> {
        if !directory.state().clusters.contains_key(name) {
            return Err(no_such_cluster(name));
        }
        Ok(Self {
            name: name.to_owned(),
            directory,
            children,
        })
    }
}

#[async_trait]
impl Forward for ClusterRoot {
    async fn forward(&self, context: &RequestContext, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let directory = self.directory.state();
        let cluster = directory.clusters.get(&self.name);
        let cluster = cluster.ok_or_else(|| no_such_cluster(&self.name))?;
        let is_read = only_reads(request.method(), &context.info) && !may_run(request.headers(), &context.info);
        if cluster.spec.access == Access::ReadOnly && !is_read {
            return Err(read_only(&self.name));
        }
        let Some(child) = self.children.get(&self.name) else {
            let status = match unreachable_since(cluster) {
                Some((since, reason)) => unreachable(&self.name, &since, &reason),
                None => not_connected(&self.name),
            };
            return Err(said_to_discovery(context, status));
        };
        let document = Document::of(request.method(), request.uri().path());
        let host = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let server = format!("{host}{}", context.prefix);
        if document.is_some() {
            // It is going to be read.
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        let options = ProxyOptions {
            prefix: context.prefix.to_string(),
        };
        let lasts = lasts(&context.info);
        let deadline = context.deadline_of_children();
        if !lasts {
            let left = deadline.saturating_duration_since(Instant::now());
            request.extensions_mut().insert(RequestDeadline(left));
        }
        let response = proxy::forward(&child, request, &context.user, &options)
            .await
            .map_err(|error| said_to_discovery(context, child_status(&error)))?;
        // Neither does a child that has begun to answer keep anybody beyond the deadline.
        let response = response.map(|body| if lasts { body } else { ending_by(body, deadline) });
        match document {
            Some(document) => {
                let rewritten = document.rewrite(response, &context.prefix, &server, &self.name);
                rewritten.await.map_err(|status| said_to_discovery(context, status))
            }
            None => Ok(response),
        }
    }
}

/// What is wrong, as a warning too where the answer is to discovery: clients of Kubernetes read no message of a failure
/// there (`client-go/discovery`, `Raw()`), and kubectl, which always begins with discovery, would say nothing of the cause.
fn said_to_discovery(context: &RequestContext, status: Status) -> Status {
    if !context.info.is_resource_request {
        context.warnings.add(status.message.clone());
    }
    status
}

/// Whether a request may take as long as it likes before it is answered (`BasicLongRunningRequestCheck`): the log of a
/// container that says nothing has no answer yet.
fn lasts(info: &RequestInfo) -> bool {
    info.is_resource_request
        && (matches!(info.verb.as_str(), "watch" | "proxy")
            || info.subresource == "log"
            || RUNNING.contains(&info.subresource.as_str()))
}

fn only_reads(method: &Method, info: &RequestInfo) -> bool {
    // `/api/v1/proxy/…` is how proxies were reached before they were subresources.
    if RUNNING.contains(&info.subresource.as_str()) || info.verb == "proxy" {
        return false;
    }
    let asks = *method == Method::POST && info.subresource.is_empty() && is_question(info);
    asks || matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a request changes to another protocol for something else than to watch or to follow a log. Aggregated APIs run
/// things under names of their own, as `virtualmachineinstances/console` of KubeVirt, by GET.
fn may_run(headers: &HeaderMap, info: &RequestInfo) -> bool {
    // A subresource of a watch by its path is whatever the server there takes it for.
    let watches = info.verb == "watch" && info.subresource.is_empty();
    upgrade::is_requested(headers) && !watches && info.subresource != "log"
}

fn is_question(info: &RequestInfo) -> bool {
    matches!(info.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io")
        && QUESTIONS.contains(&info.resource.as_str())
}
