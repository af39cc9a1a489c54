//! Jobs: pods until enough of them have ended well (`pkg/controller/job/job_controller.go`).
//!
//! Deviations: pods of a simulated cluster never fail, so there is no back-off; pods carry no finalizers; indexed jobs get
//! pods without indexes; finished jobs are not cleaned up. CronJobs make no jobs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};
use umbra_apimachinery::age;
use umbra_apimachinery::status::Status;

use super::queue::ObjectKey;
use super::replica_set::{Pod, active, number};
use super::writes::{self, count, parse, pod_from_template, set_condition};
use super::{Reconcile, Shared, all};

/// Makes the pods of Jobs.
pub(crate) struct Jobs(pub(crate) Arc<Shared>);

#[async_trait]
impl Reconcile for Jobs {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, Status> {
        let Some(object) = self.0.jobs.object(key) else {
            return Ok(None);
        };
        let mut job = parse(&object)?;
        if object.extra.deleting || is_finished(&job) {
            return Ok(None);
        }
        let store = &self.0.pods.store;
        let pods = self.0.pods_of(&object.extra.uid);
        let running = active(&pods);
        let wanted = wanted(&job, succeeded(&pods));
        let template = pod_from_template(&job);
        all((running.len()..wanted)
            .map(|_| writes::create(store, &template))
            .collect())
        .await?;
        let excess = running.iter().skip(wanted);
        all(excess.map(|pod| writes::delete(store, &pod.object, None)).collect()).await?;

        let status = status(&job, &self.0.pods_of(&object.extra.uid), Timestamp::now());
        if job["status"] != status {
            job["status"] = status;
            writes::update(&self.0.jobs.store, "status", &job).await?;
        }
        Ok(None)
    }
}

fn is_finished(job: &Value) -> bool {
    let mut conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|one| (one["type"] == "Complete" || one["type"] == "Failed") && one["status"] == "True")
}

fn succeeded(pods: &[Pod]) -> usize {
    pods.iter().filter(|pod| pod.facts.phase == "Succeeded").count()
}

/// How many pods there should be that have not ended.
fn wanted(job: &Value, succeeded: usize) -> usize {
    let spec = &job["spec"];
    if spec["suspend"] == true {
        return 0;
    }
    let parallel = usize::try_from(count(spec, "parallelism")).unwrap_or_default();
    match spec["completions"].as_u64() {
        Some(completions) => {
            let left = usize::try_from(completions)
                .unwrap_or(usize::MAX)
                .saturating_sub(succeeded);
            parallel.min(left)
        }
        // A work queue is done when its first pod is.
        None if succeeded > 0 => 0,
        None => parallel,
    }
}

fn status(job: &Value, pods: &[Pod], now: Timestamp) -> Value {
    let mut status = job["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    let running = active(pods);
    let done = succeeded(pods);
    let ready = running.iter().filter(|pod| pod.facts.is_ready()).count();
    let suspended = job["spec"]["suspend"] == true;
    if status["startTime"].is_null() && !suspended {
        status["startTime"] = age::rfc3339(now).into();
    }
    status["ready"] = ready.into();
    status["terminating"] = 0.into();
    status["uncountedTerminatedPods"] = json!({});
    for (field, count) in [("active", running.len()), ("succeeded", done)] {
        if let Some(fields) = status.as_object_mut() {
            if count > 0 {
                fields.insert(field.to_owned(), count.into());
            } else {
                fields.remove(field);
            }
        }
    }
    let enough = match job["spec"]["completions"].as_i64() {
        Some(completions) => number(done) >= completions,
        None => done > 0 && running.is_empty(),
    };
    if enough && !suspended {
        status["completionTime"] = age::rfc3339(now).into();
        for kind in ["SuccessCriteriaMet", "Complete"] {
            let condition = json!({
                "type": kind, "status": "True", "reason": "CompletionsReached",
                "message": "Reached expected number of succeeded pods", "lastProbeTime": age::rfc3339(now),
            });
            set_condition(&mut status["conditions"], condition, now);
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_pods_as_are_left_to_do() {
        let job = |spec: Value| json!({"spec": spec});
        assert_eq!(wanted(&job(json!({"parallelism": 3, "completions": 5})), 0), 3);
        assert_eq!(wanted(&job(json!({"parallelism": 3, "completions": 5})), 4), 1);
        assert_eq!(wanted(&job(json!({"parallelism": 3})), 0), 3);
        assert_eq!(wanted(&job(json!({"parallelism": 3})), 1), 0);
        assert_eq!(wanted(&job(json!({"parallelism": 3, "suspend": true})), 0), 0);
    }
}
