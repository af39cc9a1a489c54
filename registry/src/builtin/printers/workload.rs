//! Workloads: what runs pods.

use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::age;
use umbra_apimachinery::table::ColumnDefinition;

use super::{
    condition, container_columns, containers, created, integer, items, label_text, name, number, selector_column,
    selector_text, since, string, text,
};

fn with_containers(mut columns: Vec<ColumnDefinition>, selector: bool) -> Vec<ColumnDefinition> {
    columns.extend(container_columns());
    columns.extend(selector.then(selector_column));
    columns
}

fn template_cells(object: &Value) -> [Value; 2] {
    containers(&object["spec"]["template"]["spec"])
}

/// `spec.replicas`; 1 where it is absent, because the API defaults it so.
fn desired(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

pub(super) fn deployment_columns() -> Vec<ColumnDefinition> {
    let columns = vec![
        ColumnDefinition::name(),
        text("Ready", "Number of the pod with ready state"),
        text("Up-to-date", "Pods of the newest template."),
        text("Available", "Pods that are ready for long enough."),
        ColumnDefinition::age(),
    ];
    with_containers(columns, true)
}

pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut cells = vec![
        name(object),
        format!("{}/{}", number(&status["readyReplicas"]), desired(object)).into(),
        number(&status["updatedReplicas"]).into(),
        number(&status["availableReplicas"]).into(),
        created(object, now),
    ];
    cells.extend(template_cells(object));
    cells.push(selector_text(&object["spec"]["selector"]).into());
    cells
}

pub(super) fn replica_set_columns() -> Vec<ColumnDefinition> {
    let columns = vec![
        ColumnDefinition::name(),
        integer("Desired", "How many pods there should be."),
        integer("Current", "How many pods there are."),
        integer("Ready", "How many pods are ready."),
        ColumnDefinition::age(),
    ];
    with_containers(columns, true)
}

fn replicated(object: &Value, selector: String, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut cells = vec![
        name(object),
        desired(object).into(),
        number(&status["replicas"]).into(),
        number(&status["readyReplicas"]).into(),
        created(object, now),
    ];
    cells.extend(template_cells(object));
    cells.push(selector.into());
    cells
}

pub(super) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    replicated(object, selector_text(&object["spec"]["selector"]), now)
}

pub(super) fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    replicated(object, label_text(&object["spec"]["selector"]), now)
}

pub(super) fn stateful_set_columns() -> Vec<ColumnDefinition> {
    let columns = vec![
        ColumnDefinition::name(),
        text("Ready", "Number of the pod with ready state"),
        ColumnDefinition::age(),
    ];
    with_containers(columns, false)
}

pub(super) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = number(&object["status"]["readyReplicas"]);
    let mut cells = vec![
        name(object),
        format!("{ready}/{}", desired(object)).into(),
        created(object, now),
    ];
    cells.extend(template_cells(object));
    cells
}

pub(super) fn daemon_set_columns() -> Vec<ColumnDefinition> {
    let columns = vec![
        ColumnDefinition::name(),
        integer("Desired", "Nodes that should run the pod."),
        integer("Current", "Nodes that run the pod and should."),
        integer("Ready", "Nodes whose pod is ready."),
        integer("Up-to-date", "Nodes that run the newest template."),
        integer("Available", "Nodes whose pod is ready for long enough."),
        text("Node Selector", "Which nodes run the pod."),
        ColumnDefinition::age(),
    ];
    with_containers(columns, true)
}

pub(super) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut cells = vec![
        name(object),
        number(&status["desiredNumberScheduled"]).into(),
        number(&status["currentNumberScheduled"]).into(),
        number(&status["numberReady"]).into(),
        number(&status["updatedNumberScheduled"]).into(),
        number(&status["numberAvailable"]).into(),
        label_text(&object["spec"]["template"]["spec"]["nodeSelector"]).into(),
        created(object, now),
    ];
    cells.extend(template_cells(object));
    cells.push(selector_text(&object["spec"]["selector"]).into());
    cells
}

pub(super) fn job_columns() -> Vec<ColumnDefinition> {
    let columns = vec![
        ColumnDefinition::name(),
        text("Status", "Status of the job."),
        text("Completions", "How many pods have succeeded."),
        text("Duration", "Time required to complete the job."),
        ColumnDefinition::age(),
    ];
    with_containers(columns, true)
}

pub(super) fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        job_status(object).into(),
        completions(object).into(),
        job_duration(&object["status"], now).into(),
        created(object, now),
    ];
    cells.extend(template_cells(object));
    cells.push(selector_text(&object["spec"]["selector"]).into());
    cells
}

fn job_status(job: &Value) -> &'static str {
    let has = |condition_type: &str| condition(job, condition_type) == Some("True");
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !job["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = number(&job["status"]["succeeded"]);
    match job["spec"]["completions"].as_i64() {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match number(&job["spec"]["parallelism"]) {
            parallelism @ 2.. => format!("{succeeded}/1 of {parallelism}"),
            _ => format!("{succeeded}/1"),
        },
    }
}

fn job_duration(status: &Value, now: Timestamp) -> String {
    let time = |field: &str| status[field].as_str().and_then(age::parse);
    match time("startTime") {
        None => String::new(),
        Some(start) => age::human_duration(start, time("completionTime").unwrap_or(now)),
    }
}

pub(super) fn cron_job_columns() -> Vec<ColumnDefinition> {
    let columns = vec![
        ColumnDefinition::name(),
        text("Schedule", "When jobs are started, in Cron format."),
        text("Timezone", "The time zone of the schedule."),
        text("Suspend", "Whether no more jobs are started.").of_type("boolean"),
        integer("Active", "Jobs that run."),
        text("Last Schedule", "How long ago a job was started."),
        ColumnDefinition::age(),
    ];
    with_containers(columns, true)
}

pub(super) fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let last = &status["lastScheduleTime"];
    let template = &spec["jobTemplate"]["spec"];
    let mut cells = vec![
        name(object),
        string(&spec["schedule"]),
        spec["timeZone"].as_str().unwrap_or("<none>").into(),
        spec["suspend"].as_bool().unwrap_or_default().to_string().into(),
        items(&status["active"]).len().into(),
        if last.is_null() {
            "<none>".to_owned()
        } else {
            since(last, now)
        }
        .into(),
        created(object, now),
    ];
    cells.extend(containers(&template["template"]["spec"]));
    cells.push(selector_text(&template["selector"]).into());
    cells
}
