//! Names that belong to machines of Umbra's own: agents of tunnels, who presents a bootstrap token, replicas of a hub.
//!
//! What such a machine may do is decided by [`UserInfo::machine`], which one authenticator alone sets, and never by a name or a
//! group. The names are kept free all the same, so that no audit log, no object that records who made it and no rule of RBAC
//! takes somebody else for a machine:
//!
//! | who comes with one | what happens |
//! |---|---|
//! | a certificate, a token, a front proxy, a review of the hub, with a reserved group | the group is left out, the rest counts |
//! | any of them with a reserved user name | the credential proves nothing (401) |
//! | `Impersonate-User` or `Impersonate-Group` | 403, whatever the caller may impersonate |
//!
//! Groups are left out rather than refused because somebody's directory of users may have one of that name, whose members are
//! not to be locked out. There is no counterpart in Kubernetes, which believes `system:nodes` from every authenticator; its
//! authorizers then have only the name to judge by.

use umbra_apimachinery::user::UserInfo;

/// The groups of machines; those of `umbra_api::join_request`.
const GROUPS: [&str; 3] = ["umbra:agents", "umbra:bootstrappers", "umbra:replicas"];
/// What the names of users that are machines begin with.
const USER_PREFIXES: [&str; 2] = ["umbra:agent:", "umbra:bootstrap:"];
/// The user that replicas are to each other.
pub const REPLICA: &str = "umbra:replica";

/// Whether a group is one of machines.
#[must_use]
pub fn is_group(group: &str) -> bool {
    GROUPS.contains(&group)
}

/// Whether a user name is one of machines.
#[must_use]
pub fn is_user(name: &str) -> bool {
    name == REPLICA || USER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The identity without what only machines may have; a machine as it is. `None` where the name itself is a machine's.
#[must_use]
pub(crate) fn without_claims(mut user: UserInfo) -> Option<UserInfo> {
    if user.machine.is_some() {
        return Some(user);
    }
    user.groups.retain(|group| !is_group(group));
    (!is_user(&user.name)).then_some(user)
}

#[cfg(test)]
mod tests {
    use umbra_apimachinery::user::MachineCredential;

    use super::*;

    #[test]
    fn what_belongs_to_machines_is_left_to_them() {
        let person = without_claims(UserInfo::new("alice", ["umbra:agents", "dev", "umbra:replicas"])).unwrap();
        assert_eq!(person.groups, ["dev"]);
        for name in ["umbra:agent:east", "umbra:bootstrap:east", "umbra:replica"] {
            assert_eq!(without_claims(UserInfo::new(name, ["dev"])), None, "{name}");
        }
        for name in ["umbra:admin", "umbra:agents", "x:umbra:agent:east", "umbra:replicas"] {
            assert!(without_claims(UserInfo::new(name, ["dev"])).is_some(), "{name}");
        }
        let mut replica = UserInfo::new(REPLICA, ["umbra:replicas"]);
        replica.machine = Some(MachineCredential::Replica);
        assert_eq!(without_claims(replica.clone()), Some(replica));
    }
}
