//! How service accounts are named as users and groups (`k8s.io/apiserver/pkg/authentication/serviceaccount/util.go`).

use umbra_apimachinery::names::{is_dns1123_label, is_dns1123_subdomain};
use umbra_apimachinery::user::UserInfo;

/// What the user name of every service account starts with.
pub const USERNAME_PREFIX: &str = "system:serviceaccount:";
/// The group of all service accounts.
pub const ALL_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// What the group of the service accounts of one namespace starts with.
pub const NAMESPACE_GROUP_PREFIX: &str = "system:serviceaccounts:";

/// The user name of a service account.
#[must_use]
pub fn username(namespace: &str, name: &str) -> String {
    format!("{USERNAME_PREFIX}{namespace}:{name}")
}

/// The groups of the service accounts of a namespace.
#[must_use]
pub fn groups(namespace: &str) -> Vec<String> {
    vec![
        ALL_SERVICE_ACCOUNTS.to_owned(),
        format!("{NAMESPACE_GROUP_PREFIX}{namespace}"),
    ]
}

/// The identity of a service account, without [`umbra_apimachinery::user::AUTHENTICATED`].
#[must_use]
pub fn user_info(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: username(namespace, name),
        uid: uid.to_owned(),
        groups: groups(namespace),
        ..UserInfo::default()
    }
}

/// Namespace and name of the service account that a user name denotes; `None` where it denotes none.
#[must_use]
pub fn split_username(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix(USERNAME_PREFIX)?.split_once(':')?;
    (is_dns1123_label(namespace) && is_dns1123_subdomain(name)).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_split_into_what_they_were_made_of() {
        assert_eq!(split_username(&username("shop", "default")), Some(("shop", "default")));
        assert_eq!(split_username(&username("shop", "a.b")), Some(("shop", "a.b")));
        for wrong in [
            "system:serviceaccount:shop",
            "system:serviceaccount:shop:a:b",
            "system:serviceaccount::default",
            "system:serviceaccount:Shop:default",
            "system:serviceaccount:a.b:default",
            "system:serviceaccount:shop:",
            "alice",
        ] {
            assert_eq!(split_username(wrong), None, "{wrong}");
        }
    }
}
