//! What machines may write into ClusterJoinRequests.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use umbra_api::join_request::agent_user;
use umbra_apimachinery::gvk::{GroupResource, GroupVersionResource};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::{Reason, Status};
use umbra_auth::certificates::requested_name;

use super::Machine;
use crate::directory::Directory;
use crate::generic::admission::{Admission, Operation};
use crate::mirror::Mirror;
use crate::request::RequestContext;

/// Requests of one cluster at a time: an agent needs one, and whoever has a token is not to fill the store.
const REQUESTS: usize = 16;
/// Bytes of a certificate request; one with an EC key has 500, with an RSA key of 4,096 bits 1,800.
const REQUEST_BYTES: usize = 8 << 10;

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
        match Machine::of(&context.user)? {
            None => {}
            Some(Machine::Bootstrapper { cluster: own }) if own == cluster => {
                let directory = self.directory.state();
                let of_cluster = directory
                    .join_requests
                    .values()
                    .filter(|one| one.spec.cluster_name == cluster);
                if of_cluster.count() >= REQUESTS {
                    let message = format!(
                        "cluster {cluster} has {REQUESTS} ClusterJoinRequests already; delete those that are not needed"
                    );
                    return Err(refused(object.name(), &message));
                }
            }
            Some(_) => {
                let message = format!("the credential is not for cluster {cluster}, which spec.clusterName asks for");
                return Err(refused(object.name(), &message));
            }
        }
        check_request(object, &cluster)?;
        object["spec"]["username"] = context.user.name.as_str().into();
        object["spec"]["uid"] = context.user.uid.as_str().into();
        Ok(())
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
        let kept = |object: &Value| {
            let metadata = &object["metadata"];
            json!([
                object["status"],
                metadata["labels"],
                metadata["annotations"],
                metadata["finalizers"],
                metadata["ownerReferences"]
            ])
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
