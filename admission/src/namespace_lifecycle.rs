//! Nothing is created in namespaces that are not there or are being deleted
//! (`k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`).

use crate::chain::Plugin;
use crate::error::AdmissionError;
use crate::request::{AdmissionRequest, NamespaceState, Operation};

/// Refuses creations in namespaces that are missing or terminating. Updates pass: objects have to be changed, by
/// finalizers above all, for a namespace to go.
#[derive(Debug, Clone, Copy)]
pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn admit(&self, request: &mut AdmissionRequest) -> Result<(), AdmissionError> {
        if request.operation == Operation::Update {
            return Ok(());
        }
        let target = || Box::new(request.target().clone());
        let namespace = request.target().namespace.clone().unwrap_or_default();
        let cluster = request.cluster.name.clone();
        match request.namespace {
            NamespaceState::NotNamespaced | NamespaceState::Active => Ok(()),
            NamespaceState::Terminating => Err(AdmissionError::NamespaceTerminating {
                target: target(),
                cluster,
                namespace,
            }),
            NamespaceState::Missing => Err(AdmissionError::NamespaceMissing {
                target: target(),
                cluster,
                namespace,
            }),
        }
    }
}
