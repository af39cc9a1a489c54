//! What is wrong with options: `apis/meta/internalversion/validation` and `apis/meta/v1/validation` of
//! `k8s.io/apimachinery`.

use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::{Cause, Status};
use umbra_registry::request::ListOptions;
use umbra_registry::resource::WriteVerb;

use super::FIELD_MANAGER_LIMIT;

/// Faults of `DeleteOptions` (`ValidateDeleteOptions`).
///
/// # Errors
/// 400 for a body that is no JSON object, 422 for values that are not allowed.
pub(crate) fn check_delete_options(body: &[u8]) -> Result<bool, Status> {
    #[derive(serde::Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct DeleteOptions {
        dry_run: Option<Vec<String>>,
        propagation_policy: Option<String>,
        orphan_dependents: Option<bool>,
    }
    if body.is_empty() {
        return Ok(false);
    }
    let options: DeleteOptions = serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("the body is no DeleteOptions: {error}")))?;
    let dry_run = options.dry_run.unwrap_or_default();
    let mut faults: Vec<Cause> = dry_run_fault(dry_run.iter().map(String::as_str)).into_iter().collect();
    if let Some(policy) = &options.propagation_policy {
        if options.orphan_dependents.is_some() {
            let message =
                format!("Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both set");
            faults.push(fault("FieldValueInvalid", message, "propagationPolicy"));
        }
        if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
            let message = format!(
                r#"Unsupported value: {policy:?}: supported values: "Background", "Foreground", "Orphan", "nil""#
            );
            faults.push(fault("FieldValueNotSupported", message, "propagationPolicy"));
        }
    }
    if faults.is_empty() {
        Ok(!dry_run.is_empty())
    } else {
        Err(invalid("DeleteOptions", faults))
    }
}

pub(super) fn fault(reason: &str, message: impl Into<String>, field: &str) -> Cause {
    Cause {
        reason: reason.to_owned(),
        message: message.into(),
        field: field.to_owned(),
    }
}

fn forbidden(field: &str, message: &str) -> Cause {
    fault("FieldValueForbidden", format!("Forbidden: {message}"), field)
}

pub(super) fn invalid(kind: &str, faults: Vec<Cause>) -> Status {
    Status::invalid(&GroupResource::new("meta.k8s.io", ""), kind, "", faults)
}

pub(super) fn options_kind(verb: WriteVerb) -> &'static str {
    match verb {
        WriteVerb::Create => "CreateOptions",
        WriteVerb::Update => "UpdateOptions",
        WriteVerb::Patch(_) => "PatchOptions",
        WriteVerb::Delete | WriteVerb::DeleteCollection => "DeleteOptions",
    }
}

pub(super) fn list_faults(options: &ListOptions, wanted: &str) -> Vec<Cause> {
    const FIELD: &str = "resourceVersionMatch";
    let mut faults = Vec::new();
    if !wanted.is_empty() {
        if options.resource_version.is_none() {
            let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            faults.push(forbidden(FIELD, message));
        }
        if !options.continue_token.is_empty() {
            let message = "resourceVersionMatch is forbidden when continue is provided";
            faults.push(forbidden(FIELD, message));
        }
        if !matches!(wanted, "Exact" | "NotOlderThan") {
            let message = format!(r#"Unsupported value: {wanted:?}: supported values: "", "Exact", "NotOlderThan""#);
            faults.push(fault("FieldValueNotSupported", message, FIELD));
        }
        if wanted == "Exact" && options.resource_version == Some(0) {
            let message = r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#;
            faults.push(forbidden(FIELD, message));
        }
    }
    if options.send_initial_events.is_some() {
        faults.push(forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        ));
    }
    faults
}

pub(super) fn watch_faults(options: &ListOptions, wanted: &str) -> Vec<Cause> {
    const FIELD: &str = "resourceVersionMatch";
    let mut faults = Vec::new();
    if options.send_initial_events.is_some() && wanted != "NotOlderThan" {
        let message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        faults.push(forbidden(FIELD, message));
    }
    if !wanted.is_empty() {
        if options.send_initial_events.is_none() {
            let message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            faults.push(forbidden(FIELD, message));
        }
        if wanted != "NotOlderThan" {
            let message = format!(r#"Unsupported value: {wanted:?}: supported values: "NotOlderThan""#);
            faults.push(fault("FieldValueNotSupported", message, FIELD));
        }
        if !options.continue_token.is_empty() {
            let message = "resourceVersionMatch is forbidden when continue is provided";
            faults.push(forbidden(FIELD, message));
        }
    }
    faults
}

pub(super) fn manager_fault(manager: &str) -> Option<Cause> {
    if manager.len() > FIELD_MANAGER_LIMIT {
        let message = format!("Too long: may not be more than {FIELD_MANAGER_LIMIT} bytes");
        return Some(fault("FieldValueTooLong", message, "fieldManager"));
    }
    let (position, character) = manager.char_indices().find(|(_, one)| one.is_control())?;
    let message = format!(
        "Invalid value: {manager:?}: invalid character U+{:04X} (at position {position})",
        u32::from(character)
    );
    Some(fault("FieldValueInvalid", message, "fieldManager"))
}

pub(super) fn dry_run_fault<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<Cause> {
    let value = values.find(|value| *value != "All")?;
    let message = format!(r#"Unsupported value: {value:?}: supported values: "All""#);
    Some(fault("FieldValueNotSupported", message, "dryRun"))
}
