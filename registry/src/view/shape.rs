//! What a view serves: the union of what its clusters serve.
//!
//! No cluster decides for the others. Under one name (group, version and resource) a view serves one kind in one scope:
//!
//! * What Kubernetes itself defines is what it defines, whatever any cluster says.
//! * Everything else is what most of the clusters that serve it say it is; where as many say one thing as another, what
//!   the one says that was registered first, or, within the same second, whose name comes first.
//!
//! A cluster that says otherwise is left out of that resource alone, and whoever asks is warned of it
//! ([`Served::left_out`]). So where its peers agree, a cluster that joins changes nothing of what is shown of them, and ends
//! no watch. The rule knows nothing of the past: all replicas come to the same, also after a restart.
//!
//! What else can be said only once is decided in the same way: short names, categories, the kinds of subresources, and which
//! version of a group is the preferred one. Groups that more clusters serve come before those that fewer serve, because of
//! resources of the same name clients take the first. Verbs and subresources are those of any cluster.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use umbra_api::root::ViewAuthorization;
use umbra_apimachinery::discovery::{Discovery, ResourceDescriptor, SubresourceDescriptor};
use umbra_apimachinery::gvk::{GroupResource, GroupVersionResource};
use umbra_child::Identity;
use umbra_openapi::builtin;

use crate::copies::catalog::ClusterApi;

/// The selected clusters by name.
pub(super) type Clusters = BTreeMap<String, Member>;

/// A selected cluster.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    /// What it serves, where that is known.
    pub(super) api: Option<Arc<ClusterApi>>,
    /// How callers are named there.
    pub(super) identity: Identity,
    /// When it was registered, to the second.
    pub(super) registered: Option<Timestamp>,
}

/// What a view serves.
#[derive(Debug)]
pub(super) struct Shape {
    /// Who decides who sees what.
    pub(super) authorization: ViewAuthorization,
    pub(super) clusters: Clusters,
    pub(super) discovery: Arc<Discovery>,
    served: HashMap<GroupVersionResource, Arc<Served>>,
}

/// A resource of a view.
#[derive(Debug)]
pub(super) struct Served {
    /// All verbs and subresources of any cluster; `watch` only where there are copies.
    pub(super) descriptor: ResourceDescriptor,
    /// The clusters that serve it, and whether it is copied there in this version.
    pub(super) clusters: BTreeMap<String, Source>,
    /// The clusters that have another kind or another scope under this name.
    pub(super) left_out: BTreeSet<String>,
}

/// Where the objects of a resource of one cluster come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The copies.
    Copies,
    /// The child.
    Live,
    /// The child; copies are there, but in another version.
    OtherVersion,
}

impl Served {
    /// The clusters whose copies are served.
    pub(super) fn copied(&self) -> impl Iterator<Item = &String> {
        self.of(|source| source == Source::Copies)
    }

    /// The clusters that are asked.
    pub(super) fn live(&self) -> impl Iterator<Item = &String> {
        self.of(|source| source != Source::Copies)
    }

    /// Whether there are copies of any cluster.
    pub(super) fn has_copies(&self) -> bool {
        self.copied().next().is_some()
    }

    fn of(&self, wanted: impl Fn(Source) -> bool) -> impl Iterator<Item = &String> {
        self.clusters
            .iter()
            .filter(move |(_, source)| wanted(**source))
            .map(|(cluster, _)| cluster)
    }
}

impl Shape {
    /// The union of these clusters.
    pub(super) fn new(clusters: Clusters, authorization: ViewAuthorization) -> Self {
        let served: Vec<Served> = union(&clusters);
        let mut discovery = Discovery::new();
        for one in &served {
            discovery.insert(one.descriptor.clone());
        }
        let by_name = served
            .into_iter()
            .map(|one| (one.descriptor.resource.clone(), Arc::new(one)));
        Self {
            authorization,
            clusters,
            discovery: Arc::new(discovery),
            served: by_name.collect(),
        }
    }

    /// Whether this is the shape of exactly these clusters.
    pub(super) fn is_of(&self, clusters: &Clusters) -> bool {
        let same = |one: &Member, other: &Member| {
            let same_api = match (&one.api, &other.api) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            same_api && one.identity == other.identity && one.registered == other.registered
        };
        self.clusters.len() == clusters.len()
            && self
                .clusters
                .iter()
                .zip(clusters)
                .all(|((name, member), (other_name, other))| name == other_name && same(member, other))
    }

    /// The resource of that group, version and name.
    pub(super) fn served(&self, resource: &GroupVersionResource) -> Option<&Arc<Served>> {
        self.served.get(resource)
    }

    /// The resources that a cluster serves now as it did `before` and that come from elsewhere, or have come into the view or gone
    /// out of it, because it or its peers have changed. Nothing of that leaves a trace in the revisions of copies.
    pub(super) fn moved(&self, before: &Self) -> BTreeSet<(&GroupVersionResource, &String)> {
        let both = self.served.iter().filter_map(|(name, now)| {
            let before = before.served.get(name)?;
            Some((name, now, before))
        });
        let moved = both.flat_map(|(name, now, before)| {
            let known = now.clusters.keys().chain(&now.left_out);
            let moved = known.filter(|cluster| {
                let served_before = before.clusters.contains_key(*cluster) || before.left_out.contains(*cluster);
                served_before && now.clusters.get(*cluster) != before.clusters.get(*cluster)
            });
            moved.map(move |cluster| (name, cluster))
        });
        moved.collect()
    }

    /// The names of the clusters, the one registered first before the others.
    pub(super) fn seniority(&self) -> Vec<String> {
        let all = by_seniority(&self.clusters).into_iter();
        all.map(|(name, _)| name.clone()).collect()
    }

    /// The names of the clusters, for messages.
    pub(super) fn cluster_names(&self) -> String {
        let names: Vec<&str> = self.clusters.keys().map(String::as_str).collect();
        if names.is_empty() {
            "(none)".to_owned()
        } else {
            names.join(", ")
        }
    }
}

/// What these clusters serve, in the order in which it is told.
fn union(clusters: &Clusters) -> Vec<Served> {
    let mut offers: HashMap<&GroupVersionResource, Vec<Offer<'_>>> = HashMap::new();
    let mut order = Order::default();
    for (cluster, member) in by_seniority(clusters) {
        let Some(api) = &member.api else { continue };
        order.count(&api.discovery);
        let mut preferred = BTreeSet::new();
        for resource in api.discovery.resources() {
            let source = source(api, resource, &mut preferred);
            let known = offers.entry(&resource.resource).or_default();
            if known.is_empty() {
                order.resources.push(&resource.resource);
            }
            known.push(Offer {
                cluster,
                resource,
                source,
            });
        }
    }
    let mut odd: BTreeMap<&str, Vec<&GroupVersionResource>> = BTreeMap::new();
    let mut served = Vec::with_capacity(offers.len());
    for name in order.resources() {
        let form = Form::of_all(name, &offers[name]);
        let is_alike = |offer: &&Offer<'_>| Form::of(offer.resource) == form;
        let (alike, others): (Vec<_>, Vec<_>) = offers[name].iter().partition(is_alike);
        for offer in &others {
            odd.entry(offer.cluster).or_default().push(name);
        }
        served.extend(Served::new(name, form, &alike, &others));
    }
    for (cluster, resources) in odd {
        tracing::warn!(
            cluster,
            number = resources.len(),
            first = %resources[0],
            "the cluster has other kinds or scopes under the names of resources; they are left out of the view"
        );
    }
    served
}

/// What a cluster serves under the name of a resource.
struct Offer<'a> {
    cluster: &'a str,
    resource: &'a ResourceDescriptor,
    source: Source,
}

/// What has to be the same wherever a resource of one name is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form<'a> {
    kind: &'a str,
    namespaced: bool,
}

/// The forms of what Kubernetes itself defines. They are the same in all versions of Kubernetes.
static BUILTIN: LazyLock<HashMap<&'static GroupVersionResource, Form<'static>>> = LazyLock::new(|| {
    let all = builtin::resources().iter();
    all.map(|one| (&one.resource, Form::of(one))).collect()
});

impl<'a> Form<'a> {
    fn of(resource: &'a ResourceDescriptor) -> Self {
        Self {
            kind: &resource.kind,
            namespaced: resource.namespaced,
        }
    }

    /// The one that the view serves. The offers are those of all clusters, the one registered first before the others.
    fn of_all(name: &GroupVersionResource, offers: &[Offer<'a>]) -> Self {
        let said = || most(offers.iter().map(|offer| Self::of(offer.resource)));
        let form = BUILTIN.get(name).copied().or_else(said);
        form.expect("a resource is known because somebody offers it")
    }
}

/// What most say; of what as many say, what is said first.
pub(super) fn most<T: PartialEq>(said: impl IntoIterator<Item = T>) -> Option<T> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for one in said {
        match counts.iter_mut().find(|(known, _)| *known == one) {
            Some((_, count)) => *count += 1,
            None => counts.push((one, 1)),
        }
    }
    // Of equals, `min_by_key` takes the first.
    let most = counts.into_iter().min_by_key(|(_, count)| Reverse(*count));
    most.map(|(one, _)| one)
}

/// The clusters, the one registered first before the others.
fn by_seniority(clusters: &Clusters) -> Vec<(&String, &Member)> {
    let mut all: Vec<_> = clusters.iter().collect();
    // By name already, and stays so among those of the same second.
    all.sort_by_key(|(_, member)| member.registered);
    all
}

/// In which order groups, versions and resources are told.
#[derive(Default)]
struct Order<'a> {
    /// As they are come across.
    resources: Vec<&'a GroupVersionResource>,
    /// The versions of each group that clusters prefer, one for each cluster that serves it.
    preferred: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Order<'a> {
    fn count(&mut self, discovery: &'a Discovery) {
        for group in discovery.groups() {
            if let Some(version) = group.versions.iter().find(|version| !version.resources.is_empty()) {
                self.preferred.entry(&group.name).or_default().push(&version.version);
            }
        }
    }

    /// Groups that most have before the others; of each group what is in its preferred version first.
    fn resources(&self) -> Vec<&'a GroupVersionResource> {
        let groups: HashMap<&str, (Reverse<usize>, Option<&str>)> = self
            .preferred
            .iter()
            .map(|(group, versions)| (*group, (Reverse(versions.len()), most(versions.iter().copied()))))
            .collect();
        let mut resources = self.resources.clone();
        resources.sort_by_key(|resource| {
            let (clusters, preferred) = groups[resource.group.as_str()];
            (clusters, preferred != Some(resource.version.as_str()))
        });
        resources
    }
}

impl Served {
    /// What `alike` serve in one form; `None` where nobody does.
    fn new(name: &GroupVersionResource, form: Form<'_>, alike: &[&Offer<'_>], others: &[&Offer<'_>]) -> Option<Self> {
        let resources = || alike.iter().map(|offer| offer.resource);
        let mut one = Self {
            descriptor: ResourceDescriptor {
                resource: name.clone(),
                kind: form.kind.to_owned(),
                singular: most(resources().map(|one| &one.singular))?.clone(),
                namespaced: form.namespaced,
                short_names: most(resources().map(|one| &one.short_names))?.clone(),
                categories: most(resources().map(|one| &one.categories))?.clone(),
                verbs: Vec::new(),
                subresources: subresources(resources().flat_map(|one| &one.subresources)),
            },
            clusters: alike
                .iter()
                .map(|offer| (offer.cluster.to_owned(), offer.source))
                .collect(),
            left_out: others.iter().map(|offer| offer.cluster.to_owned()).collect(),
        };
        for resource in resources() {
            add_verbs(&mut one.descriptor.verbs, &resource.verbs);
        }
        if !one.has_copies() {
            one.descriptor.verbs.retain(|verb| verb != "watch");
        }
        Some(one)
    }
}

/// Each once, with all verbs and the kind that most have.
fn subresources<'a>(all: impl Iterator<Item = &'a SubresourceDescriptor>) -> Vec<SubresourceDescriptor> {
    let mut order = Vec::new();
    let mut by_name: HashMap<&str, Vec<&SubresourceDescriptor>> = HashMap::new();
    for one in all {
        let known = by_name.entry(&one.name).or_default();
        if known.is_empty() {
            order.push(one.name.as_str());
        }
        known.push(one);
    }
    let merged = order.into_iter().filter_map(|name| {
        let known = &by_name[name];
        let mut merged = SubresourceDescriptor {
            name: name.to_owned(),
            kind: most(known.iter().map(|one| &one.kind))?.clone(),
            verbs: Vec::new(),
        };
        for one in known {
            add_verbs(&mut merged.verbs, &one.verbs);
        }
        Some(merged)
    });
    merged.collect()
}

fn add_verbs(verbs: &mut Vec<String>, more: &[String]) {
    for verb in more {
        if !verbs.contains(verb) {
            verbs.push(verb.clone());
        }
    }
}

/// What is copied is the first version that can be listed and watched.
fn source(api: &ClusterApi, resource: &ResourceDescriptor, preferred: &mut BTreeSet<GroupResource>) -> Source {
    let name = resource.group_resource();
    if !api.copied.contains(&name) {
        return Source::Live;
    }
    let copyable = resource.serves("list") && resource.serves("watch");
    if copyable && preferred.insert(name) {
        Source::Copies
    } else {
        Source::OtherVersion
    }
}
