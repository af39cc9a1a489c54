//! A kind's schema at work; without one, everything is accepted as it is.

use serde_json::Value;
use umbra_apimachinery::status::Cause;
use umbra_openapi::default::apply_defaults;
use umbra_openapi::prune as pruning;
use umbra_openapi::validate as validation;

use super::strategy::Strategy;

/// Drops unknown fields; returns a complaint about each, as Kubernetes words it.
pub(super) fn prune(strategy: &Strategy, object: &mut Value) -> Vec<String> {
    let Some(schema) = &strategy.schema else {
        return Vec::new();
    };
    let unknown = pruning::prune(object, schema);
    unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect()
}

/// Fills in what is absent.
pub(super) fn set_defaults(strategy: &Strategy, object: &mut Value) {
    if let Some(schema) = &strategy.schema {
        apply_defaults(object, schema, strategy.dialect);
    }
    strategy.behavior.set_defaults(object);
}

/// What does not fit.
pub(super) fn validate(strategy: &Strategy, object: &Value) -> Vec<Cause> {
    match &strategy.schema {
        Some(schema) => {
            let faults = validation::validate(object, schema, strategy.dialect);
            faults.into_iter().map(Into::into).collect()
        }
        None => Vec::new(),
    }
}
