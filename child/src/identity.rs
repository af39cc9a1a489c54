//! As whom the hub's users act on a child.
//!
//! The hub authenticates to a child with its own credential and impersonates the caller
//! (`k8s.io/apiserver/pkg/endpoints/filters/impersonation`). The child's RBAC then judges the caller, so a name that means
//! somebody else on the child is an escalation. These are the rules:
//!
//! * Nobody anonymous is impersonated.
//! * **No name that starts with `system:` crosses unchanged**, except the group `system:authenticated`. Such names are
//!   what every cluster binds its own components to: a hub service account of a hub namespace called `kube-system` must not
//!   become the child's `system:serviceaccount:kube-system:…`, nor a hub user `system:kube-scheduler` the child's scheduler.
//!   - users called `system:…`, service accounts among them, become `{user_prefix}system:…`; without a prefix,
//!     [`HUB`]`system:…`. The child can bind roles to those names, and none of its own has them;
//!   - the groups of service accounts, `system:serviceaccounts` and `system:serviceaccounts:{namespace}`, become
//!     `{group_prefix}system:serviceaccounts…`, or [`HUB`]`system:serviceaccounts…`, likewise;
//!   - every other `system:` group (`system:masters`, `system:nodes`, …) is held back.
//! * `forward_system_groups` states that hub and child trust each other's system identities: then users and groups that
//!   start with `system:` cross unchanged, and without prefixes.
//! * All other users and groups get `user_prefix` and `group_prefix`. A prefix cannot produce a name that starts with
//!   `system:`, and without a prefix nobody can be called [`HUB`]`system:…`.
//! * Extras cross, their keys percent-encoded (`transport.headerKeyEscape` of client-go), except those of the hub's own
//!   service account tokens (`authentication.kubernetes.io/…`), which name pods and nodes of the hub.
//! * A value that a header would change on the way (surrounding blanks, control characters) is refused: the child must see
//!   exactly the name that the hub authenticated.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use umbra_apimachinery::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};

/// Qualifies the system identities of the hub on a child where no prefix is configured.
pub const HUB: &str = "hub:";

const SYSTEM: &str = "system:";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Where service account tokens keep what they are bound to (`k8s.io/apiserver/pkg/authentication/serviceaccount`).
const BOUND_TOKEN_EXTRAS: &str = "authentication.kubernetes.io/";

const USER_HEADER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP_HEADER: HeaderName = HeaderName::from_static("impersonate-group");
const UID_HEADER: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// How the hub's users are called on one child: `spec.identity` of its `ManagedCluster`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Put before user names. Empty by default.
    pub user_prefix: String,
    /// Put before group names. Empty by default.
    pub group_prefix: String,
    /// Let names that start with `system:` cross unchanged. Off by default.
    pub forward_system_groups: bool,
}

/// Why an identity cannot be taken to a child.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Nobody has been authenticated.
    #[error("anonymous requests are not forwarded to clusters")]
    Anonymous,
    /// A header cannot carry the value unchanged.
    #[error("the {what} {value:?} contains blanks or characters that cannot be sent to a cluster")]
    Unsendable {
        /// user, group, uid or extra.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// The name belongs to system identities.
    #[error("the {what} {value:?} is reserved for system identities on the cluster")]
    Reserved {
        /// user or group.
        what: &'static str,
        /// The name as it would have been on the child.
        value: String,
    },
}

/// The `Impersonate-*` headers that make a request to a child one of `user`.
///
/// # Errors
///
/// When `user` is anonymous, or a name cannot or must not be used on the child.
pub fn impersonation_headers(user: &UserInfo, identity: &Identity) -> Result<HeaderMap, IdentityError> {
    if user.name.is_empty() || user.name == ANONYMOUS || user.in_group(UNAUTHENTICATED) {
        return Err(IdentityError::Anonymous);
    }
    let mut headers = HeaderMap::with_capacity(4 + user.groups.len());
    let name = name_on_child(user, identity)?;
    headers.insert(USER_HEADER, value("user", &name)?);
    // Always named, because kube-apiserver derives groups from the name when a request has none.
    headers.append(GROUP_HEADER, HeaderValue::from_static(AUTHENTICATED));
    for group in user.groups.iter().filter(|group| *group != AUTHENTICATED) {
        if is_held_back(group, identity) {
            continue;
        }
        let group = translate("group", group, &identity.group_prefix, identity.forward_system_groups)?;
        headers.append(GROUP_HEADER, value("group", &group)?);
    }
    if !user.uid.is_empty() {
        headers.insert(UID_HEADER, value("uid", &user.uid)?);
    }
    for (key, values) in &user.extra {
        // The case of a header's name is lost on the way.
        if key.to_lowercase().starts_with(BOUND_TOKEN_EXTRAS) && !identity.forward_system_groups {
            continue;
        }
        let header = extra_header(key)?;
        for one in values {
            headers.append(header.clone(), value("extra", one)?);
        }
    }
    Ok(headers)
}

/// The name under which a child knows `user`.
///
/// # Errors
///
/// When the name cannot or must not be used on the child.
pub fn name_on_child(user: &UserInfo, identity: &Identity) -> Result<String, IdentityError> {
    translate(
        "user",
        &user.name,
        &identity.user_prefix,
        identity.forward_system_groups,
    )
}

/// Whether a group stays on the hub.
fn is_held_back(group: &str, identity: &Identity) -> bool {
    let of_service_accounts = group
        .strip_prefix(SERVICE_ACCOUNTS)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    group.starts_with(SYSTEM) && !of_service_accounts && !identity.forward_system_groups
}

/// The name on the child of a user or group of the hub.
fn translate(what: &'static str, name: &str, prefix: &str, verbatim_system: bool) -> Result<String, IdentityError> {
    let is_system = name.starts_with(SYSTEM);
    if is_system && verbatim_system {
        return Ok(name.to_owned());
    }
    let prefix = if is_system && prefix.is_empty() { HUB } else { prefix };
    let translated = format!("{prefix}{name}");
    let is_hub_system = translated
        .strip_prefix(HUB)
        .is_some_and(|rest| rest.starts_with(SYSTEM));
    // The second: somebody whose own name pretends to be what only a system identity of the hub is translated to.
    if translated.starts_with(SYSTEM) || (is_hub_system && !is_system) {
        return Err(IdentityError::Reserved {
            what,
            value: translated,
        });
    }
    Ok(translated)
}

fn value(what: &'static str, text: &str) -> Result<HeaderValue, IdentityError> {
    let unsendable = || IdentityError::Unsendable {
        what,
        value: text.to_owned(),
    };
    // An empty extra is legitimate; an empty user, group or uid is not.
    if text.trim() != text || (text.is_empty() && what != "extra") {
        return Err(unsendable());
    }
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| unsendable())
}

/// The header of one extra: whatever cannot be in a header name, and `%` itself, as `%XX`.
fn extra_header(key: &str) -> Result<HeaderName, IdentityError> {
    let mut name = String::with_capacity(EXTRA_PREFIX.len() + key.len());
    name.push_str(EXTRA_PREFIX);
    for byte in key.to_lowercase().bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02x}").expect("writing to a String succeeds");
        }
    }
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| IdentityError::Unsendable {
        what: "extra",
        value: key.to_owned(),
    })
}

/// Whether a caller's header could claim an identity: `X-Remote-*`, `Impersonate-*`, also with underscores, which programs
/// behind a gateway interface (CGI, WSGI) cannot tell from hyphens.
pub(crate) fn claims_identity(name: &HeaderName) -> bool {
    ["x-remote-", "impersonate-"].iter().any(|prefix| {
        let beginning = name.as_str().bytes().take(prefix.len());
        beginning
            .map(|byte| if byte == b'_' { b'-' } else { byte })
            .eq(prefix.bytes())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    fn headers(user: &UserInfo, identity: &Identity) -> HeaderMap {
        impersonation_headers(user, identity).expect("an identity that crosses")
    }

    fn prefixed() -> Identity {
        Identity {
            user_prefix: "corp:".into(),
            group_prefix: "corp-".into(),
            forward_system_groups: false,
        }
    }

    fn trusting() -> Identity {
        Identity {
            forward_system_groups: true,
            ..prefixed()
        }
    }

    #[test]
    fn a_person_crosses_with_groups_uid_and_extras() {
        let mut user = UserInfo::new("jane@example.com", ["dev", AUTHENTICATED, "system:masters", "ops"]);
        user.uid = "42".into();
        user.extra
            .insert("example.com/scope%".into(), vec!["a".into(), "b".into()]);
        let sent = headers(&user, &Identity::default());
        assert_eq!(all(&sent, "impersonate-user"), ["jane@example.com"]);
        assert_eq!(all(&sent, "impersonate-group"), [AUTHENTICATED, "dev", "ops"]);
        assert_eq!(all(&sent, "impersonate-uid"), ["42"]);
        assert_eq!(all(&sent, "impersonate-extra-example.com%2fscope%25"), ["a", "b"]);
        assert_eq!(sent.len(), 7);
    }

    #[test]
    fn what_a_header_name_cannot_have_is_escaped() {
        let mut user = UserInfo::new("jörg@пример", ["dév"]);
        user.extra
            .insert("a: b\r\nImpersonate-Group".into(), vec!["system:masters".into()]);
        let sent = headers(&user, &Identity::default());
        assert_eq!(all(&sent, "impersonate-user"), ["jörg@пример"]);
        assert_eq!(all(&sent, "impersonate-group"), [AUTHENTICATED, "dév"]);
        assert_eq!(
            all(&sent, "impersonate-extra-a%3a%20b%0d%0aimpersonate-group"),
            ["system:masters"]
        );
    }

    #[test]
    fn prefixes_apply_to_everything_but_authenticated() {
        let sent = headers(&UserInfo::new("jane", ["dev"]), &prefixed());
        assert_eq!(all(&sent, "impersonate-user"), ["corp:jane"]);
        assert_eq!(all(&sent, "impersonate-group"), [AUTHENTICATED, "corp-dev"]);
    }

    #[test]
    fn a_hub_service_account_never_becomes_the_childs() {
        let mut user = UserInfo::new(
            "system:serviceaccount:kube-system:deployer",
            [
                "system:serviceaccounts",
                "system:serviceaccounts:kube-system",
                "system:serviceaccountsx",
            ],
        );
        user.extra
            .insert("authentication.kubernetes.io/node-name".into(), vec!["n1".into()]);
        user.extra
            .insert("Authentication.Kubernetes.IO/pod-name".into(), vec!["p1".into()]);
        let sent = headers(&user, &Identity::default());
        assert_eq!(
            all(&sent, "impersonate-user"),
            ["hub:system:serviceaccount:kube-system:deployer"]
        );
        assert_eq!(
            all(&sent, "impersonate-group"),
            [
                AUTHENTICATED,
                "hub:system:serviceaccounts",
                "hub:system:serviceaccounts:kube-system"
            ]
        );
        assert_eq!(sent.len(), 4);

        let sent = headers(&user, &prefixed());
        assert_eq!(
            all(&sent, "impersonate-user"),
            ["corp:system:serviceaccount:kube-system:deployer"]
        );
        assert_eq!(all(&sent, "impersonate-group")[1], "corp-system:serviceaccounts");

        let sent = headers(&user, &trusting());
        assert_eq!(
            all(&sent, "impersonate-user"),
            ["system:serviceaccount:kube-system:deployer"]
        );
        assert!(all(&sent, "impersonate-group").contains(&"system:serviceaccounts:kube-system".to_owned()));
    }

    #[test]
    fn system_users_and_groups_are_the_hubs_own() {
        let user = UserInfo::new("system:kube-scheduler", ["system:masters", "system:nodes"]);
        let sent = headers(&user, &Identity::default());
        assert_eq!(all(&sent, "impersonate-user"), ["hub:system:kube-scheduler"]);
        assert_eq!(all(&sent, "impersonate-group"), [AUTHENTICATED]);
        let sent = headers(&user, &trusting());
        assert_eq!(all(&sent, "impersonate-user"), ["system:kube-scheduler"]);
        assert_eq!(
            all(&sent, "impersonate-group"),
            [AUTHENTICATED, "system:masters", "system:nodes"]
        );
    }

    #[test]
    fn nobody_anonymous_crosses() {
        for user in [
            UserInfo::anonymous(),
            UserInfo::default(),
            UserInfo::new("jane", [UNAUTHENTICATED]),
            UserInfo::new(ANONYMOUS, [AUTHENTICATED]),
        ] {
            for identity in [Identity::default(), trusting()] {
                assert_eq!(impersonation_headers(&user, &identity), Err(IdentityError::Anonymous));
            }
        }
    }

    #[test]
    fn disguises_are_refused() {
        let split = Identity {
            user_prefix: "sys".into(),
            ..Identity::default()
        };
        for (user, identity) in [
            (UserInfo::new("tem:masters", ["a"]), &split),
            (
                UserInfo::new("hub:system:serviceaccount:a:b", ["a"]),
                &Identity::default(),
            ),
            (
                UserInfo::new("jane", ["hub:system:serviceaccounts"]),
                &Identity::default(),
            ),
        ] {
            let refused = impersonation_headers(&user, identity);
            assert!(
                matches!(refused, Err(IdentityError::Reserved { .. })),
                "{user:?}: {refused:?}"
            );
        }
        let told = |uid: &str, key: &str, value: &str| {
            let mut user = UserInfo::new("jane", ["dev"]);
            user.uid = uid.into();
            user.extra.insert(key.into(), vec![value.into()]);
            user
        };
        for user in [
            told("1\r\nImpersonate-Group: system:masters", "a", "b"),
            told("1", "a", "b\nImpersonate-Group: system:masters"),
            told("1", "a", " b"),
            told("1", "a", "b\0"),
            UserInfo::new("admin ", ["a"]),
            UserInfo::new("a\r\nImpersonate-Group: system:masters", ["a"]),
            UserInfo::new("jane", [" dev"]),
            UserInfo::new("jane", [""]),
        ] {
            let refused = impersonation_headers(&user, &Identity::default());
            assert!(
                matches!(refused, Err(IdentityError::Unsendable { .. })),
                "{user:?}: {refused:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_system_name_but_authenticated_ever_crosses(
            name in "(system:|hub:|sys|tem:)?[a-z:]{0,12}",
            groups in proptest::collection::vec("(system:|hub:|sys|tem:)?[a-z:]{0,12}", 0..4),
            prefix in "(|s|sys|sys|corp:|hub:)",
        ) {
            let identity = Identity { user_prefix: prefix.clone(), group_prefix: prefix, forward_system_groups: false };
            if let Ok(sent) = impersonation_headers(&UserInfo::new(name, groups), &identity) {
                for header in ["impersonate-user", "impersonate-group"] {
                    for value in all(&sent, header) {
                        prop_assert!(value == AUTHENTICATED || !value.starts_with("system:"), "{value}");
                    }
                }
            }
        }
    }
}
