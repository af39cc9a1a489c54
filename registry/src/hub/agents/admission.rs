//! What machines may write into ClusterJoinRequests.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use umbra_api::join_request::{BOOTSTRAP_TOKEN, agent_user, bootstrap_token_used, condition};
use umbra_apimachinery::gvk::{GroupResource, GroupVersionResource};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::{Reason, Status};
use umbra_auth::certificates::requested_name;

use super::Machine;
use crate::directory::Directory;
use crate::generic::admission::{Admission, Operation};
use crate::mirror::Mirror;
use crate::request::RequestContext;

/// Requests of one cluster at a time that are not denied: an agent needs one, and whoever has a token is not to fill the store. Of those
/// that are denied there is one for each token at most.
const REQUESTS: usize = 16;
/// Bytes of a certificate request; one with an EC key has 500, with an RSA key of 4,096 bits 1,800.
const REQUEST_BYTES: usize = 8 << 10;
/// Bytes of what an agent says of its cluster: a UID has 36, the longest versions of vendors some 40.
const FACT_BYTES: usize = 128;
/// Beyond so many entries of `metadata.managedFields` the writes of an agent add none: the agent, the hub, a person or two.
const MANAGERS: usize = 8;
/// What of an object's metadata is not for machines to set.
const DECORATIONS: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

/// Sets who asks, and lets nobody ask for another cluster.
#[derive(Debug, Clone)]
pub struct AdmitJoinRequests {
    directory: Arc<Mirror<Directory>>,
}

impl AdmitJoinRequests {
    /// Looks for the other requests of a cluster in `directory`.
    #[must_use]
    pub fn new(directory: Arc<Mirror<Directory>>) -> Self {
        Self { directory }
    }

    fn admit_create(&self, context: &RequestContext, object: &mut Value) -> Result<(), Status> {
        let cluster = object["spec"]["clusterName"].as_str().unwrap_or_default().to_owned();
        let token = match Machine::of(&context.user)? {
            None => None,
            Some(Machine::Bootstrapper { cluster: own, token }) if own == cluster => {
                has_nothing_else(object)?;
                self.has_room(object.name(), &cluster, &token)?;
                Some(token)
            }
            Some(_) => {
                let message = format!("the credential is not for cluster {cluster}, which spec.clusterName asks for");
                return Err(refused(object.name(), &message));
            }
        };
        check_request(object, &cluster)?;
        check_facts(object)?;
        object["spec"]["username"] = context.user.name.as_str().into();
        object["spec"]["uid"] = context.user.uid.as_str().into();
        note_token(object, token);
        Ok(())
    }

    /// Refuses what a token would only fill the store with. A request that is there already goes on to be told so.
    fn has_room(&self, name: &str, cluster: &str, token: &str) -> Result<(), Status> {
        let directory = self.directory.state();
        let is_there = directory
            .join_requests
            .get(name)
            .is_some_and(|one| one.spec.cluster_name == cluster);
        let of_cluster = || {
            let all = directory.join_requests.values();
            all.filter(|one| one.spec.cluster_name == cluster)
        };
        let used = directory
            .clusters
            .get(cluster)
            .and_then(|cluster| bootstrap_token_used(cluster));
        // It is decided about a moment before the cluster says so.
        let is_used =
            used.is_some() || of_cluster().any(|one| one.is_decided() && one.bootstrap_token() == Some(token));
        if is_used && !is_there {
            let message = format!(
                "the bootstrap token of {cluster} has been used; an agent that shares what the first one keeps needs none, and \
                 `umbra join {cluster} --tunnel` makes another"
            );
            return Err(refused(name, &message));
        }
        let open = of_cluster().filter(|one| !one.has(condition::DENIED)).count();
        if open >= REQUESTS && !is_there {
            let message = format!(
                "cluster {cluster} has {REQUESTS} ClusterJoinRequests already; delete those that are not needed"
            );
            return Err(refused(name, &message));
        }
        Ok(())
    }
}

/// Machines name their request and nothing more.
fn has_nothing_else(object: &Value) -> Result<(), Status> {
    let metadata = &object["metadata"];
    let is_empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        other => other.is_null(),
    };
    match DECORATIONS.into_iter().find(|key| !is_empty(&metadata[key])) {
        Some(key) => Err(refused(object.name(), &format!("an agent may not set metadata.{key}"))),
        None => Ok(()),
    }
}

/// What the agent says of its cluster is shown to people; nothing in it is long.
fn check_facts(object: &Value) -> Result<(), Status> {
    for field in ["clusterUID", "version"] {
        let text = object["spec"][field].as_str().unwrap_or_default();
        if text.len() > FACT_BYTES || text.chars().any(char::is_control) {
            let message = format!("spec.{field} has more than {FACT_BYTES} bytes, or control characters");
            return Err(refused(object.name(), &message));
        }
    }
    Ok(())
}

/// Keeps in the request by which token it was made. What somebody else says of that counts for nothing.
fn note_token(object: &mut Value, token: Option<String>) {
    let annotations = &mut object["metadata"]["annotations"];
    match (token, annotations.as_object_mut()) {
        (None, None) => {}
        (None, Some(annotations)) => drop(annotations.remove(BOOTSTRAP_TOKEN)),
        (Some(token), Some(annotations)) => drop(annotations.insert(BOOTSTRAP_TOKEN.to_owned(), token.into())),
        (Some(token), None) => *annotations = json!({BOOTSTRAP_TOKEN: token}),
    }
}

/// Nothing but the certificate request may change, and for machines nothing else of the object either.
fn admit_update(context: &RequestContext, object: &mut Value, old: &Value) -> Result<(), Status> {
    let mut expected = old["spec"].clone();
    expected["request"] = object["spec"]["request"].clone();
    if expected != object["spec"] {
        return Err(refused(
            object.name(),
            "nothing of spec but request can be changed; delete it, and the agent asks again",
        ));
    }
    if object["spec"]["request"] != old["spec"]["request"] {
        check_request(object, old["spec"]["clusterName"].as_str().unwrap_or_default())?;
    }
    if Machine::of(&context.user)?.is_some() {
        let managers = |object: &Value| object["metadata"]["managedFields"].as_array().map_or(0, Vec::len);
        // What others have added does not keep the agent from renewing.
        if managers(object) > managers(old).max(MANAGERS) {
            let message =
                format!("an agent may not write under more names of field managers where there are {MANAGERS}");
            return Err(refused(object.name(), &message));
        }
        let kept = |object: &Value| {
            let metadata = &object["metadata"];
            let decorations = DECORATIONS.map(|key| &metadata[key]);
            json!([object["status"], decorations])
        };
        if kept(object) != kept(old) {
            return Err(refused(object.name(), "an agent may change spec.request alone"));
        }
    }
    Ok(())
}

/// The request has to be in the name of the cluster's agents. What it says is not used, only its key; who forges it is
/// refused all the same, before anybody approves it.
fn check_request(object: &Value, cluster: &str) -> Result<(), Status> {
    let request = object["spec"]["request"].as_str().unwrap_or_default();
    let wanted = agent_user(cluster);
    let fault = if request.len() > REQUEST_BYTES {
        format!("it has more than {REQUEST_BYTES} bytes")
    } else {
        match requested_name(request) {
            Ok(Some(name)) if name == wanted => return Ok(()),
            Ok(Some(name)) => format!("it is in the name of {name:?}, not of {wanted:?}"),
            Ok(None) => "it has not one common name".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    Err(refused(
        object.name(),
        &format!("spec.request cannot be signed: {fault}"),
    ))
}

fn refused(name: &str, message: &str) -> Status {
    let resource = GroupResource::new(umbra_api::GROUP, "clusterjoinrequests");
    let message = format!("{resource} \"{name}\" is forbidden: {message}");
    Status::failure(Reason::Forbidden, message)
}

#[async_trait]
impl Admission for AdmitJoinRequests {
    async fn admit(
        &self,
        context: &RequestContext,
        operation: Operation,
        resource: &GroupVersionResource,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if resource.group != umbra_api::GROUP || resource.resource != "clusterjoinrequests" {
            return Ok(());
        }
        match (operation, old) {
            (Operation::Create, _) => self.admit_create(context, object),
            (Operation::Update, Some(old)) => admit_update(context, object, old),
            _ => Ok(()),
        }
    }
}
