//! Questions about the caller: may I, what may I, who am I. What the view cannot know by itself (reviews of other people,
//! of tokens) is a create like any other and goes to the cluster that it names.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use umbra_apimachinery::names::QualifiedName;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_auth::rbac::{Attributes, RbacIndex};

use super::api::ViewApi;
use super::sight::identity_in;
use crate::directory::identity_of;
use crate::generic::authorization::{AllowAll, Authorizer, Rules, Verdict};
use crate::generic::reviews::Reviews;
use crate::request::RequestContext;

impl ViewApi {
    pub(super) async fn answer_review(&self, context: &RequestContext, body: &Bytes) -> Option<Result<Bytes, Status>> {
        let about_the_caller = matches!(
            context.info.resource.as_str(),
            "selfsubjectaccessreviews" | "selfsubjectrulesreviews" | "selfsubjectreviews"
        );
        if !about_the_caller {
            return None;
        }
        let authorizer = Arc::new(ViewAuthorizer(self.clone()));
        Reviews::new(authorizer, None).answer(context, body).await
    }
}

/// Asks the RBAC of every cluster of a view.
struct ViewAuthorizer(ViewApi);

/// What is known of a caller in a cluster.
enum Standing {
    /// Above RBAC.
    Master,
    /// Judged by these.
    Judged(UserInfo, Arc<RbacIndex>),
}

impl ViewAuthorizer {
    fn standing(&self, user: &UserInfo, cluster: &str) -> Option<Standing> {
        let services = &self.0.services;
        let identity = identity_of(&*services.cluster(cluster)?);
        let user = identity_in(user, &identity).ok()?;
        if identity.forward_system_groups && user.in_group(MASTERS) {
            return Some(Standing::Master);
        }
        let policy = services.policies.state().clusters.get(cluster).cloned()?;
        Some(Standing::Judged(user, policy))
    }
}

#[async_trait]
impl Authorizer for ViewAuthorizer {
    /// Allowed where some cluster allows it; a qualified name asks about one cluster.
    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Verdict {
        let named = QualifiedName::parse(attributes.name);
        let named = named.filter(|named| self.0.shape.clusters.contains_key(named.cluster));
        let asked = Attributes {
            name: named.map_or(attributes.name, |named| named.name),
            ..*attributes
        };
        let allows = |cluster: &&String| match self.standing(user, cluster) {
            Some(Standing::Master) => true,
            Some(Standing::Judged(user, policy)) => policy.authorize(&user, &asked).is_allowed(),
            None => false,
        };
        let clusters = self.0.shape.clusters.keys();
        let clusters = clusters.filter(|cluster| named.is_none_or(|named| named.cluster == cluster.as_str()));
        let allowing: Vec<&str> = clusters.filter(allows).map(String::as_str).collect();
        let reason = if allowing.is_empty() {
            format!("no cluster of the view \"{}\" allows it", self.0.name)
        } else {
            format!("allowed in: {}", allowing.join(", "))
        };
        Verdict {
            allowed: !allowing.is_empty(),
            reason,
        }
    }

    /// The rules of all clusters together.
    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for cluster in self.0.shape.clusters.keys() {
            match self.standing(user, cluster) {
                Some(Standing::Master) => return AllowAll.rules(user, namespace).await,
                Some(Standing::Judged(user, policy)) => {
                    let effective = policy.rules_for(&user, namespace);
                    for rule in effective.rules {
                        if !all.rules.contains(rule) {
                            all.rules.push(rule.clone());
                        }
                    }
                    let unresolved = effective.unresolved.into_iter();
                    all.unresolved.extend(unresolved.map(|one| format!("{cluster}: {one}")));
                }
                None => all.unresolved.push(format!("{cluster}: its RBAC is not known")),
            }
        }
        all
    }
}
