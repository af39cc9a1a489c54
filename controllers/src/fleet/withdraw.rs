//! Takes the object of a rendering out of its cluster before the rendering goes.

use std::time::Duration;

use umbra_api::placement::OnRemove;
use umbra_api::rendering::Rendering;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_registry::fleet::cache::is_deleting;
use umbra_registry::fleet::names::WITHDRAW_FINALIZER;

use super::child::{ChildAccess as _, ChildFailure};
use super::controller::Inner;
use super::dispatch::{Problem, has_object, is_ours};
use super::leaving::{is_leaving, unmark, why_kept};
use super::plan::renderings;
use super::queue::Outcome;
use super::state::RenderingKey;
use super::write::{Place, ignore_gone};

/// How soon it is looked whether an object in deletion is gone; its copy says so earlier, where it has one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How a withdrawal stands.
enum Withdrawal {
    /// Nothing of ours is there.
    Done,
    /// The object is on its way out.
    Pending,
}

impl Inner {
    pub(super) async fn withdraw(&self, key: &RenderingKey, rendering: &Rendering) -> Result<Outcome, Status> {
        let cluster = &rendering.spec.cluster;
        let known = self.directory.state().clusters.get(cluster).cloned();
        let has_left = known.is_none();
        let goes = known.is_some_and(|cluster| cluster.metadata.deletion_timestamp.is_some());
        let taken_out = match goes {
            // It leaves, and nobody has asked to clean it up ([`super::leaving`]).
            true => Ok(Withdrawal::Done),
            false => self.take_out(rendering).await,
        };
        let withdrawal = match taken_out {
            // A cluster that has left the hub is nobody's to clean up.
            Err(_) if has_left => Withdrawal::Done,
            Ok(withdrawal) => withdrawal,
            Err(problem) => {
                let problem = Problem {
                    message: format!("cannot be withdrawn: {}", problem.message),
                    ..problem
                };
                self.report(key, rendering, problem).await?;
                return Ok(Outcome::Retry);
            }
        };
        match withdrawal {
            Withdrawal::Pending => Ok(Outcome::After(LOOK_AGAIN)),
            Withdrawal::Done => {
                self.release(key, rendering).await?;
                Ok(Outcome::Done)
            }
        }
    }

    async fn take_out(&self, rendering: &Rendering) -> Result<Withdrawal, Problem> {
        if !has_object(rendering) {
            return Ok(Withdrawal::Done);
        }
        let cluster = &rendering.spec.cluster;
        let path = match self.path_of(rendering) {
            Ok(path) => path,
            // Objects go with their definition.
            Err(problem) if problem.reason == "UnknownKind" => return Ok(Withdrawal::Done),
            Err(problem) => return Err(problem),
        };
        let Some(live) = self.children.get(cluster, &path).await? else {
            return Ok(Withdrawal::Done);
        };
        if !is_ours(rendering, &live) {
            return Ok(Withdrawal::Done);
        }
        let leaves = self
            .directory
            .state()
            .clusters
            .get(cluster)
            .is_some_and(|one| is_leaving(one));
        let stays = rendering.spec.on_remove == OnRemove::Orphan || (leaves && why_kept(rendering).is_some());
        if stays {
            gone_is_done(self.children.merge(cluster, &path, &unmark(live.uid())).await)?;
            return Ok(Withdrawal::Done);
        }
        if !is_deleting(&live) {
            gone_is_done(self.children.delete(cluster, &path, live.uid()).await)?;
        }
        Ok(Withdrawal::Pending)
    }

    /// Lets the rendering go.
    async fn release(&self, key: &RenderingKey, rendering: &Rendering) -> Result<(), Status> {
        self.seen.lock().remove(key);
        let mut rendering = rendering.clone();
        if let Some(finalizers) = &mut rendering.metadata.finalizers {
            finalizers.retain(|one| one != WITHDRAW_FINALIZER);
        }
        // Whatever its status says by now.
        rendering.metadata.resource_version = None;
        let place = Place {
            resource: &renderings(),
            namespace: Some(&key.namespace),
            name: &key.name,
        };
        let object = serde_json::to_value(&rendering).map_err(Status::internal)?;
        ignore_gone(self.writer.update(place, &object).await)
    }
}

/// 404 and 409 (another UID) say that the object is not there any more.
fn gone_is_done(result: Result<(), ChildFailure>) -> Result<(), ChildFailure> {
    match result {
        Err(failure) if failure.is_code(404) || failure.is_code(409) => Ok(()),
        other => other,
    }
}
