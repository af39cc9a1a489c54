//! The plugins and their order.

use std::sync::Arc;

use crate::error::AdmissionError;
use crate::identity::IdentityCheck;
use crate::namespace_lifecycle::NamespaceLifecycle;
use crate::overrides::{Override, OverridePlugin, Stage};
use crate::request::AdmissionRequest;
use crate::validation::{ObjectValidator, SchemaValidation};

/// One step of admission.
pub trait Plugin: Send + Sync {
    /// What messages and metrics call it.
    fn name(&self) -> &'static str;

    /// Looks at the request, and changes it where that is the plugin's job.
    ///
    /// # Errors
    /// Where the object may not go to the cluster. The request may be half changed then; [`Chain::admit`] restores it.
    fn admit(&self, request: &mut AdmissionRequest) -> Result<(), AdmissionError>;
}

/// Plugins in the order in which they admit.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.plugins.iter().map(|plugin| plugin.name()))
            .finish()
    }
}

impl Chain {
    /// A chain of these plugins.
    #[must_use]
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins }
    }

    /// The chain of every rendering, and of proxied requests: namespace lifecycle → stage 1 → stage 2 → stage 1 `final`
    /// → identity check → schema validation. `overrides` may come in any order and may hold such as do not select the
    /// object.
    #[must_use]
    pub fn standard(overrides: impl Into<Arc<[Arc<Override>]>>, validator: Arc<dyn ObjectValidator>) -> Self {
        let overrides = overrides.into();
        let stage = |stage| Box::new(OverridePlugin::new(stage, Arc::clone(&overrides)));
        Self::new(vec![
            Box::new(NamespaceLifecycle),
            stage(Stage::Cluster),
            stage(Stage::Namespace),
            stage(Stage::Final),
            Box::new(IdentityCheck),
            Box::new(SchemaValidation::new(validator)),
        ])
    }

    /// Passes the request through all plugins.
    ///
    /// # Errors
    /// The first plugin's that objects; the request is then as it was.
    pub fn admit(&self, request: &mut AdmissionRequest) -> Result<(), AdmissionError> {
        let mut admitted = request.clone();
        for plugin in &self.plugins {
            plugin.admit(&mut admitted)?;
        }
        *request = admitted;
        Ok(())
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
