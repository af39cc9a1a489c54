//! Which member should hold which lease. Pure, and the same for everybody who sees the same records.
//!
//! Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on
//! Networking 6(1), 1998) gives each lease an order of preference over the members, but of 200 leases over 3 members it
//! gives one member 67 ± 7. So it decides under two rules that go first:
//!
//! * **Even**: of each kind of lease, no member is to hold more than one more than another.
//! * **Still**: a lease stays where it is unless evenness wants it elsewhere. Then go those that prefer their holder least.
//!   Of the members that hold one more than others, those are chosen that hold most already.
//!
//! Once nobody holds more than their share nothing moves, so there is no flapping: a member that leaves moves its own leases
//! and no others, a member that joins gets its share and nothing else changes hands.

use std::collections::BTreeMap;

use super::record::{LeaseKey, LeaseKind};

/// Who should hold each of `leases`, whose present holders are given; a holder that is no member counts as none. Empty where
/// there are no members.
pub(super) fn assign<'a>(
    members: &[&'a str],
    leases: &BTreeMap<&'a LeaseKey, Option<&'a str>>,
) -> BTreeMap<&'a LeaseKey, &'a str> {
    let mut assigned = BTreeMap::new();
    if members.is_empty() {
        return assigned;
    }
    let mut kinds: BTreeMap<LeaseKind, Vec<(&'a LeaseKey, Option<&'a str>)>> = BTreeMap::new();
    for (key, holder) in leases {
        kinds.entry(key.kind).or_default().push((key, *holder));
    }
    for (kind, leases) in kinds {
        assign_kind(kind, members, &leases, &mut assigned);
    }
    assigned
}

fn assign_kind<'a>(
    kind: LeaseKind,
    members: &[&'a str],
    leases: &[(&'a LeaseKey, Option<&'a str>)],
    assigned: &mut BTreeMap<&'a LeaseKey, &'a str>,
) {
    let mut held: BTreeMap<&'a str, Vec<&'a LeaseKey>> = members.iter().map(|member| (*member, Vec::new())).collect();
    let mut loose = Vec::new();
    for (key, holder) in leases {
        match holder.and_then(|holder| held.get_mut(holder)) {
            Some(keys) => keys.push(key),
            None => loose.push(*key),
        }
    }
    let mut room = BTreeMap::new();
    for (member, share) in shares(kind, &held, leases.len()) {
        let keys = held.get_mut(member).expect("shares are of members");
        keys.sort_by_cached_key(|key| std::cmp::Reverse(preference(member, key)));
        loose.extend(keys.drain(share.min(keys.len())..));
        room.insert(member, share - keys.len());
        assigned.extend(keys.iter().map(|key| (*key, member)));
    }
    loose.sort_unstable();
    for key in loose {
        let member = room
            .iter()
            .filter(|(_, room)| **room > 0)
            .map(|(member, _)| *member)
            .max_by_key(|member| preference(member, key))
            .expect("the shares add up to the number of leases");
        *room.get_mut(member).expect("the member was found there") -= 1;
        assigned.insert(key, member);
    }
}

/// How many leases each member is to hold.
fn shares<'a>(kind: LeaseKind, held: &BTreeMap<&'a str, Vec<&LeaseKey>>, leases: usize) -> Vec<(&'a str, usize)> {
    let (each, more) = (leases / held.len(), leases % held.len());
    let mut members: Vec<&'a str> = held.keys().copied().collect();
    // Among equals in an order that differs from kind to kind, so that the odd ones do not all go to the same member.
    let name = format!("{kind:?}");
    members.sort_by_key(|member| std::cmp::Reverse((held[member].len(), hash([member.as_bytes(), name.as_bytes()]))));
    let share = |(index, member)| (member, each + usize::from(index < more));
    members.into_iter().enumerate().map(share).collect()
}

/// How much a lease prefers a member.
fn preference(member: &str, key: &LeaseKey) -> u64 {
    hash([member.as_bytes(), key.name.as_bytes()])
}

/// FNV-1a over the parts with a separator, and the finalizer of SplitMix64 so that similar names are far apart. Fixed here,
/// because replicas of different builds have to agree.
fn hash(parts: [&[u8]; 2]) -> u64 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.iter().copied().chain([0xff]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(clusters: usize) -> Vec<LeaseKey> {
        let clusters = (0..clusters).map(|number| LeaseKey::cluster(&format!("cluster-{number}")));
        clusters
            .chain([LeaseKey::fleet("all"), LeaseKey::hub("roots")])
            .collect()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("hub-{number}_id")).collect()
    }

    type Holders = BTreeMap<LeaseKey, Option<String>>;

    /// One round of everybody doing what the assignment says.
    fn settle(holders: &Holders, members: &[String]) -> Holders {
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        let leases = holders.iter().map(|(key, holder)| (key, holder.as_deref())).collect();
        let assigned = assign(&members, &leases);
        let holder = |key: &LeaseKey| assigned.get(key).map(|member| (*member).to_owned());
        holders.keys().map(|key| (key.clone(), holder(key))).collect()
    }

    fn clusters_of(holders: &Holders, member: &str) -> usize {
        let clusters = holders.iter().filter(|(key, _)| key.kind == LeaseKind::Cluster);
        clusters.filter(|(_, holder)| holder.as_deref() == Some(member)).count()
    }

    fn moved(before: &Holders, after: &Holders) -> usize {
        before
            .iter()
            .filter(|(key, holder)| after.get(*key) != Some(holder))
            .count()
    }

    fn nobody(clusters: usize) -> Holders {
        keys(clusters).into_iter().map(|key| (key, None)).collect()
    }

    #[test]
    fn two_hundred_clusters_over_three_members_are_even() {
        let members = names(3);
        let holders = settle(&nobody(200), &members);
        let mut counts: Vec<usize> = members.iter().map(|member| clusters_of(&holders, member)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [66, 67, 67]);
    }

    #[test]
    fn a_member_that_leaves_moves_its_own_and_one_that_comes_gets_its_share() {
        let three = names(3);
        let first = settle(&nobody(200), &three);
        let second = settle(&first, &three[..2]);
        let lost = first
            .values()
            .filter(|holder| **holder == Some(three[2].clone()))
            .count();
        assert_eq!(moved(&first, &second), lost);
        let third = settle(&second, &three);
        let clusters = |before: &Holders, after: &Holders| {
            let of_clusters = |holders: &Holders| -> Holders {
                let clusters = holders.iter().filter(|(key, _)| key.kind == LeaseKind::Cluster);
                clusters.map(|(key, holder)| (key.clone(), holder.clone())).collect()
            };
            moved(&of_clusters(before), &of_clusters(after))
        };
        assert_eq!(clusters(&second, &third), clusters_of(&third, &three[2]));
    }

    proptest! {
        #[test]
        fn every_lease_has_a_member_evenly_and_then_nothing_moves(
            clusters in 0_usize..60,
            steps in prop::collection::vec(1_usize..6, 1..6),
        ) {
            let mut holders = nobody(clusters);
            for count in steps {
                let members = names(count);
                holders = settle(&holders, &members);
                let counts: Vec<usize> = members.iter().map(|member| clusters_of(&holders, member)).collect();
                prop_assert_eq!(counts.iter().sum::<usize>(), clusters);
                let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
                prop_assert!(most - least <= 1, "{:?}", counts);
                prop_assert_eq!(moved(&holders, &settle(&holders, &members)), 0);
            }
        }
    }
}
