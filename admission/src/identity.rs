//! An object stays the object that it was.

use crate::chain::Plugin;
use crate::error::AdmissionError;
use crate::overrides::culprit;
use crate::request::{AdmissionRequest, Target};

/// Refuses objects whose apiVersion, kind, name, namespace or uid is not what it was when they entered the chain.
#[derive(Debug, Clone, Copy)]
pub struct IdentityCheck;

impl Plugin for IdentityCheck {
    fn name(&self) -> &'static str {
        "IdentityCheck"
    }

    fn admit(&self, request: &mut AdmissionRequest) -> Result<(), AdmissionError> {
        let before = request.target();
        let after = Target::of(&request.object);
        let text = |optional: &Option<String>| optional.clone().unwrap_or_default();
        let fields = [
            ("apiVersion", before.api_version.clone(), after.api_version),
            ("kind", before.kind.clone(), after.kind),
            ("metadata.name", before.name.clone(), after.name),
            ("metadata.namespace", text(&before.namespace), text(&after.namespace)),
            ("metadata.uid", text(&before.uid), text(&after.uid)),
        ];
        match fields.into_iter().find(|(_, before, after)| before != after) {
            None => Ok(()),
            Some((field, was, became)) => Err(AdmissionError::IdentityChanged {
                target: Box::new(before.clone()),
                cluster: request.cluster.name.clone(),
                field,
                before: was,
                after: became,
                culprit: culprit(&request.applied, field).map(Box::new),
            }),
        }
    }
}
