//! Questions about the caller: may I, what may I, who am I. What the view cannot know by itself (reviews of other people,
//! of tokens) is a create like any other and goes to the cluster that it names.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use umbra_apimachinery::names::QualifiedName;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_auth::rbac::{Attributes, RbacIndex};

use super::api::{ViewApi, discovers};
use super::permissions::HubPermissions;
use super::sight::{Act, Authority, Extent, Question, identity_in};
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
        let authorizer: Arc<dyn Authorizer> = match &self.authority {
            Authority::Children => Arc::new(ViewAuthorizer(self.clone())),
            Authority::Hub(hub) => Arc::new(HubAuthorizer(Arc::clone(hub))),
        };
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

/// Asks the hub, for all clusters together.
struct HubAuthorizer(Arc<dyn HubPermissions>);

#[async_trait]
impl Authorizer for HubAuthorizer {
    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Verdict {
        if !attributes.is_resource_request {
            return Verdict {
                allowed: discovers(attributes.verb, attributes.path),
                reason: String::new(),
            };
        }
        let resource = match attributes.subresource {
            "" => attributes.resource.to_owned(),
            subresource => format!("{}/{subresource}", attributes.resource),
        };
        let name = QualifiedName::parse(attributes.name).map_or(attributes.name, |named| named.name);
        let question = Question {
            user,
            act: Act {
                verb: attributes.verb,
                group: attributes.group,
                resource: &resource,
            },
            extent: Extent {
                namespaced: !attributes.namespace.is_empty(),
                namespace: Some(attributes.namespace),
                name: (!name.is_empty()).then_some(name),
            },
        };
        match question.decide(&*self.0, attributes.namespace).await {
            Ok(decision) => Verdict {
                allowed: decision.is_allowed(),
                reason: decision.reason().to_owned(),
            },
            // Not allowed, as long as nobody can say.
            Err(status) => Verdict {
                allowed: false,
                reason: status.message,
            },
        }
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        self.0.rules(user, namespace).await
    }
}
