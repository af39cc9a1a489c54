//! Deployments: carries out what [`super::rollout`] plans.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::{Reason, Status};

use super::queue::ObjectKey;
use super::rollout::{Plan, plan};
use super::writes::{self, count, parse};
use super::{Reconcile, Shared};

/// Rolls out Deployments.
pub(crate) struct Deployments(pub(crate) Arc<Shared>);

#[async_trait]
impl Reconcile for Deployments {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, Status> {
        let Some(object) = self.0.deployments.object(key) else {
            return Ok(None);
        };
        let deployment = parse(&object)?;
        let sets: Vec<Value> = self
            .0
            .replica_sets_of(&object.extra.uid)
            .iter()
            .map(|set| parse(&set.object))
            .collect::<Result<_, _>>()?;
        let plan = plan(&deployment, &sets, Timestamp::now());
        if object.extra.deleting {
            return Ok(None);
        }
        self.carry_out(deployment, plan).await
    }
}

impl Deployments {
    async fn carry_out(&self, deployment: Value, plan: Plan) -> Result<Option<Duration>, Status> {
        let sets = &self.0.replica_sets.store;
        for set in &plan.create {
            match writes::create(sets, set).await {
                Err(status) if status.is(Reason::AlreadyExists) => return self.collided(deployment, set).await,
                other => other?,
            }
        }
        for set in &plan.update {
            writes::update(sets, "", set).await?;
        }
        for name in &plan.delete {
            let key = ObjectKey::new(deployment.namespace(), name);
            if let Some(set) = self.0.replica_sets.object(&key) {
                writes::delete(sets, &set, None).await?;
            }
        }
        let store = &self.0.deployments.store;
        if let Some(annotated) = &plan.annotated {
            // The status follows when this change is seen.
            writes::update(store, "", annotated).await?;
            return Ok(plan.again);
        }
        if deployment["status"] != plan.status {
            let mut deployment = deployment;
            deployment["status"] = plan.status;
            writes::update(store, "status", &deployment).await?;
        }
        Ok(plan.again)
    }

    /// Something else has the name of the ReplicaSet: the next attempt makes another one (`collisionCount`).
    async fn collided(&self, mut deployment: Value, set: &Value) -> Result<Option<Duration>, Status> {
        let existing = self.0.replica_sets.object(&ObjectKey::of_value(set));
        let own =
            existing.is_some_and(|existing| existing.extra.owners.iter().any(|owner| owner.uid == deployment.uid()));
        if own {
            // It is there already, and will be seen.
            return Ok(Some(Duration::from_millis(100)));
        }
        deployment["status"]["collisionCount"] = (count(&deployment["status"], "collisionCount") + 1).into();
        writes::update(&self.0.deployments.store, "status", &deployment).await?;
        Ok(None)
    }
}
