//! What the hub's fleets have placed in a cluster, by their renderings; and how they are made to withdraw it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::ObjectList;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;
use umbra_api::cluster::ManagedCluster;
use umbra_api::rendering::Rendering;
use umbra_api::root::Fleet;
use umbra_controllers::fleet::leaving::LEAVING_ANNOTATION;

use crate::join::hub::chain;

/// Renderings that are read at a time, as kubectl does.
const PAGE: usize = 500;
/// How long fleets may withdraw nothing more before the rest is left to whoever leaves. One object is withdrawn within a second
/// where nothing keeps it.
const STALLED: Duration = Duration::from_secs(30);
/// How often it is looked how much is left.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The renderings of one cluster.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) renderings: Vec<Rendering>,
    /// Why there may be more.
    pub(super) unread: Vec<Error>,
}

impl Placed {
    /// Reads them, of all fleets that the caller may enter.
    pub(super) async fn read(hub: &Client, cluster: &str) -> Self {
        let mut placed = Self::default();
        let fleets: Api<Fleet> = Api::all(hub.clone());
        let fleets = match fleets.list(&ListParams::default()).await {
            Ok(fleets) => fleets,
            Err(error) => {
                let what = "what fleets have placed is not known: the fleets cannot be listed";
                placed.unread.push(chain(&error).context(what));
                return placed;
            }
        };
        for fleet in fleets {
            let fleet = fleet.name_any();
            match renderings(hub, &fleet, cluster).await {
                Ok(found) => placed.renderings.extend(found),
                Err(error) => {
                    let what = format!("what fleet {fleet} has placed is not known: its renderings cannot be listed");
                    placed.unread.push(error.context(what));
                }
            }
        }
        placed
    }
}

async fn renderings(hub: &Client, fleet: &str, cluster: &str) -> Result<Vec<Rendering>> {
    let api_version = umbra_api::API_VERSION;
    let path = format!("/apis/{api_version}/fleets/{fleet}/proxy/apis/{api_version}/renderings");
    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("limit", &PAGE.to_string())
            .append_pair("continue", &next)
            .finish();
        let request = http::Request::get(format!("{path}?{query}")).body(Vec::new())?;
        let page: ObjectList<Rendering> = hub.request(request).await.map_err(|error| chain(&error))?;
        found.extend(page.items.into_iter().filter(|one| one.spec.cluster == cluster));
        next = page.metadata.continue_.unwrap_or_default();
        if next.is_empty() {
            return Ok(found);
        }
    }
}

/// Lets the hub's fleets withdraw from a cluster, and place nothing there again ([`umbra_controllers::fleet::leaving`]).
///
/// # Errors
/// What the hub says.
pub(super) async fn withdraw(hub: &Client, cluster: &str) -> Result<()> {
    let clusters: Api<ManagedCluster> = Api::all(hub.clone());
    let mark = json!({"metadata": {"annotations": {LEAVING_ANNOTATION: "true"}}});
    let marked = clusters
        .patch_metadata(cluster, &PatchParams::default(), &Patch::Merge(mark))
        .await;
    marked.map(drop).map_err(|error| chain(&error)).with_context(|| {
        format!("the ManagedCluster {cluster} cannot be changed, so fleets would place again what is deleted; it stays")
    })
}

/// Waits for that. Gives the renderings that are left: none, or those that nothing has become of for [`STALLED`].
pub(super) async fn withdrawn(
    hub: &Client,
    cluster: &str,
    before: &Placed,
    progress: impl Fn(&str),
) -> Result<Vec<Rendering>> {
    let mut least = usize::MAX;
    let mut deadline = Instant::now() + STALLED;
    loop {
        let now = Placed::read(hub, cluster).await;
        // A fleet that cannot be read for a moment has not withdrawn everything.
        let complete = now.unread.len() <= before.unread.len();
        let left = now.renderings.len();
        if complete && left == 0 {
            return Ok(Vec::new());
        }
        if complete && left < least {
            least = left;
            deadline = Instant::now() + STALLED;
        }
        if Instant::now() >= deadline {
            return match complete {
                true => Ok(now.renderings),
                false => Err(now.unread.into_iter().next().unwrap_or_else(|| anyhow!("no answer"))),
            };
        }
        progress(&format!("waiting for fleets to withdraw {left} objects"));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Those of `before` that are not in `left`.
pub(super) fn gone<'a>(before: &'a [Rendering], left: &[Rendering]) -> Vec<&'a Rendering> {
    let left: BTreeSet<Option<&str>> = left.iter().map(|one| one.metadata.uid.as_deref()).collect();
    let all = before.iter();
    all.filter(|one| !left.contains(&one.metadata.uid.as_deref())).collect()
}
