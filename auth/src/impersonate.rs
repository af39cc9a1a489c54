//! Acting as somebody else: the `Impersonate-*` headers.
//!
//! Rules of `k8s.io/apiserver/pkg/endpoints/filters/impersonation` in its original mode (verb `impersonate`); the
//! constrained modes of KEP-5284 are not implemented, so the verbs `impersonate:…` and `impersonate-on:…` grant nothing.
//!
//! Deviation: users and groups of Umbra's own machines ([`crate::reserved`]) cannot be impersonated by anybody.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::HeaderName;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{ANONYMOUS, UNAUTHENTICATED, UserInfo};

use crate::rbac::Attributes;
use crate::request_header::{text, unescape_key};
use crate::{reserved, service_account};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The API group of what is impersonated besides users, groups and service accounts.
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// Headers that are not acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImpersonationError {
    /// They make no sense: 400.
    #[error("requested {requested} without impersonating a user")]
    NoUser {
        /// What was requested.
        requested: String,
    },
    /// Nobody may be a machine of Umbra's own, whatever they may impersonate: 403.
    #[error("{what} {name:?} belongs to machines of Umbra and cannot be impersonated")]
    Reserved {
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

impl ImpersonationError {
    /// What the client is told.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::NoUser { .. } => Status::bad_request(self.to_string()),
            Self::Reserved { .. } => Status::failure(Reason::Forbidden, self.to_string()),
        }
    }
}

/// One thing that the caller has to be allowed to impersonate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImpersonationCheck {
    group: &'static str,
    resource: &'static str,
    subresource: String,
    namespace: String,
    name: String,
}

impl ImpersonationCheck {
    fn new(group: &'static str, resource: &'static str, name: impl Into<String>) -> Self {
        Self {
            group,
            resource,
            subresource: String::new(),
            namespace: String::new(),
            name: name.into(),
        }
    }

    /// What to ask the authorizer, for the caller as it was authenticated.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes {
            verb: "impersonate",
            group: self.group,
            resource: self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            path: "",
            is_resource_request: true,
        }
    }
}

/// Whom a caller wants to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impersonation {
    /// The identity that counts from here on, once every check has passed.
    pub user: UserInfo,
    /// What the caller has to be allowed to: all of it.
    pub checks: Vec<ImpersonationCheck>,
}

/// Reads the headers of a request; `None` where nobody is impersonated.
///
/// # Errors
/// Where groups, UID or extra attributes are given without a user, and where the user or a group is one of machines.
pub fn parse(headers: &HeaderMap) -> Result<Option<Impersonation>, ImpersonationError> {
    let single = |name| headers.get(name).map(text).filter(|value| !value.is_empty());
    let groups: Vec<String> = headers.get_all(GROUP).iter().map(text).collect();
    let uid = single(UID);
    let extra = extra(headers);
    let Some(name) = single(USER) else {
        let requested: Vec<&str> = [
            ("groups", groups.is_empty()),
            ("a uid", uid.is_none()),
            ("extra attributes", extra.is_empty()),
        ]
        .into_iter()
        .filter_map(|(what, absent)| (!absent).then_some(what))
        .collect();
        if requested.is_empty() {
            return Ok(None);
        }
        return Err(ImpersonationError::NoUser {
            requested: requested.join(", "),
        });
    };
    unreserved(&name, &groups)?;
    let checks = checks(&name, &groups, uid.as_deref(), &extra);
    let user = UserInfo {
        groups: effective_groups(&name, groups),
        name,
        uid: uid.unwrap_or_default(),
        extra,
        machine: None,
    };
    Ok(Some(Impersonation { user, checks }))
}

fn unreserved(name: &str, groups: &[String]) -> Result<(), ImpersonationError> {
    let group = groups.iter().find(|group| reserved::is_group(group));
    let claimed = match group {
        Some(group) => ("group", group.clone()),
        None if reserved::is_user(name) => ("user", name.to_owned()),
        None => return Ok(()),
    };
    let (what, name) = claimed;
    Err(ImpersonationError::Reserved { what, name })
}

/// Removes the headers, as a server does once the impersonation is in force.
pub fn remove_headers(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_impersonation_header(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether a header is one by which somebody acts as somebody else.
#[must_use]
pub fn is_impersonation_header(name: &HeaderName) -> bool {
    name.as_str().starts_with("impersonate-")
}

fn extra(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) {
            extra.entry(unescape_key(key)).or_default().push(text(value));
        }
    }
    extra
}

fn checks(
    name: &str,
    groups: &[String],
    uid: Option<&str>,
    extra: &BTreeMap<String, Vec<String>>,
) -> Vec<ImpersonationCheck> {
    let mut checks = vec![match service_account::split_username(name) {
        Some((namespace, name)) => ImpersonationCheck {
            namespace: namespace.to_owned(),
            ..ImpersonationCheck::new("", "serviceaccounts", name)
        },
        None => ImpersonationCheck::new("", "users", name),
    }];
    checks.extend(groups.iter().map(|group| ImpersonationCheck::new("", "groups", group)));
    checks.extend(uid.map(|uid| ImpersonationCheck::new(AUTHENTICATION_GROUP, "uids", uid)));
    for (key, values) in extra {
        checks.extend(values.iter().map(|value| ImpersonationCheck {
            subresource: key.clone(),
            ..ImpersonationCheck::new(AUTHENTICATION_GROUP, "userextras", value)
        }));
    }
    checks
}

/// Groups that were given are the authority, and a service account has its own where none were. Then everyone is either
/// authenticated or not.
fn effective_groups(name: &str, groups: Vec<String>) -> Vec<String> {
    let groups = match service_account::split_username(name) {
        Some((namespace, _)) if groups.is_empty() => service_account::groups(namespace),
        _ => groups,
    };
    let mut user = UserInfo::new(name, groups);
    if name != ANONYMOUS {
        user = user.authenticated();
    } else if !user.in_group(UNAUTHENTICATED) {
        user.groups.push(UNAUTHENTICATED.to_owned());
    }
    user.groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn described(impersonation: &Impersonation) -> Vec<String> {
        let describe = |check: &ImpersonationCheck| {
            let a = check.attributes();
            format!(
                "{}/{}/{} {}:{}",
                a.group, a.resource, a.subresource, a.namespace, a.name
            )
        };
        impersonation.checks.iter().map(describe).collect()
    }

    #[test]
    fn each_attribute_is_checked() {
        let request = headers(&[
            ("impersonate-user", "alice"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "u1"),
            ("impersonate-extra-example.com%2fscopes", "read"),
            ("impersonate-extra-example.com%2fscopes", "write"),
        ]);
        let impersonation = parse(&request).unwrap().unwrap();
        assert_eq!(
            described(&impersonation),
            [
                "/users/ :alice",
                "/groups/ :dev",
                "/groups/ :ops",
                "authentication.k8s.io/uids/ :u1",
                "authentication.k8s.io/userextras/example.com/scopes :read",
                "authentication.k8s.io/userextras/example.com/scopes :write",
            ]
        );
        assert_eq!(impersonation.user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(impersonation.user.uid, "u1");
        assert_eq!(impersonation.user.extra["example.com/scopes"], ["read", "write"]);
    }

    #[test]
    fn groups_default_by_user() {
        let groups = |pairs: &[(&'static str, &str)]| parse(&headers(pairs)).unwrap().unwrap().user.groups;
        assert_eq!(
            groups(&[("impersonate-user", "system:serviceaccount:shop:web")]),
            [
                "system:serviceaccounts",
                "system:serviceaccounts:shop",
                "system:authenticated"
            ]
        );
        assert_eq!(
            groups(&[
                ("impersonate-user", "system:serviceaccount:shop:web"),
                ("impersonate-group", "dev")
            ]),
            ["dev", "system:authenticated"]
        );
        assert_eq!(
            groups(&[("impersonate-user", "system:anonymous")]),
            ["system:unauthenticated"]
        );
        assert_eq!(
            groups(&[
                ("impersonate-user", "alice"),
                ("impersonate-group", "system:unauthenticated")
            ]),
            ["system:unauthenticated"]
        );
    }

    #[test]
    fn a_service_account_is_checked_in_its_namespace() {
        let request = headers(&[("impersonate-user", "system:serviceaccount:shop:web")]);
        let impersonation = parse(&request).unwrap().unwrap();
        assert_eq!(described(&impersonation), ["/serviceaccounts/ shop:web"]);
    }

    #[test]
    fn nobody_becomes_a_machine() {
        for machine in [
            &[("impersonate-user", "umbra:agent:east")][..],
            &[("impersonate-user", "umbra:bootstrap:east")],
            &[("impersonate-user", "umbra:replica")],
            &[("impersonate-user", "alice"), ("impersonate-group", "umbra:agents")],
            &[
                ("impersonate-user", "alice"),
                ("impersonate-group", "dev"),
                ("impersonate-group", "umbra:bootstrappers"),
            ],
        ] {
            let error = parse(&headers(machine)).unwrap_err();
            assert_eq!(error.status().code, 403, "{machine:?}: {error}");
        }
        assert!(parse(&headers(&[("impersonate-user", "umbra:agents")])).is_ok());
    }

    #[test]
    fn nobody_or_nonsense() {
        assert_eq!(parse(&HeaderMap::new()), Ok(None));
        assert_eq!(parse(&headers(&[("impersonate-user", "")])), Ok(None));
        for lonely in ["impersonate-group", "impersonate-uid", "impersonate-extra-a"] {
            assert!(parse(&headers(&[(lonely, "x")])).is_err(), "{lonely}");
        }
        let mut request = headers(&[
            ("impersonate-user", "a"),
            ("impersonate-extra-b", "c"),
            ("accept", "*/*"),
        ]);
        remove_headers(&mut request);
        assert_eq!(request.len(), 1);
    }
}
