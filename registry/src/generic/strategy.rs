//! What differs from kind to kind (`k8s.io/apiserver/pkg/registry/rest`: `RESTCreateStrategy`, `RESTUpdateStrategy`,
//! `RESTDeleteStrategy`).

use std::sync::Arc;

use serde_json::Value;
use umbra_apimachinery::discovery::{ResourceDescriptor, SubresourceDescriptor};
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::names;
use umbra_apimachinery::schema::TypeSchema;
use umbra_apimachinery::status::Cause;
use umbra_openapi::Dialect;

use super::printer::{DefaultPrinter, Printer};

/// The verbs of a resource that is stored.
pub const STORED_VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// The verbs of a subresource that is read and written.
pub const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Which names a kind allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameRule {
    /// DNS-1123 subdomain.
    #[default]
    Subdomain,
    /// DNS-1123 label.
    Label,
    /// DNS-1035 label, which begins with a letter: services.
    ServiceLabel,
    /// Anything that stands for itself in a path: RBAC.
    PathSegment,
}

impl NameRule {
    /// Why `name` is not allowed, in the words of `k8s.io/apimachinery/pkg/util/validation`; `None` where it is. A `prefix`
    /// is completed by the server and may end in a dash.
    #[must_use]
    pub fn fault(self, name: &str, prefix: bool) -> Option<&'static str> {
        let completed;
        let name = if prefix && name.ends_with('-') {
            completed = format!("{name}x");
            &completed
        } else {
            name
        };
        let (allowed, fault) = match self {
            Self::Subdomain => (
                names::is_dns1123_subdomain(name),
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                 start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            Self::Label => (
                names::is_dns1123_label(name),
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                 end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
            Self::ServiceLabel => (
                names::is_dns1123_label(name) && name.starts_with(|first: char| first.is_ascii_lowercase()),
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                 character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                 validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ),
            Self::PathSegment => (
                names::is_path_segment(name),
                "may not be '.' or '..' and may not contain '/' or '%'",
            ),
        };
        (!allowed).then_some(fault)
    }
}

/// How objects of a kind go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deletion {
    /// At once, unless finalizers wait.
    #[default]
    Immediate,
    /// After a grace period, as pods do: `spec.terminationGracePeriodSeconds`, or at once where no node has the pod.
    Graceful,
    /// When what is inside is gone: `spec.finalizers` of namespaces.
    Namespace,
}

/// A field that field selectors may name, beside `metadata.name` and `metadata.namespace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectableField {
    /// As selectors write it, such as `spec.nodeName`.
    pub field: String,
    /// The JSON pointer of the value.
    pub pointer: String,
    /// What an absent value counts as.
    pub default: String,
}

impl SelectableField {
    /// A field at the path that its name says; absent counts as empty.
    #[must_use]
    pub fn new(field: &str) -> Self {
        Self {
            field: field.to_owned(),
            pointer: format!("/{}", field.replace('.', "/")),
            default: String::new(),
        }
    }

    /// The same field, whose absence counts as `value`.
    #[must_use]
    pub fn absent_is(mut self, value: &str) -> Self {
        value.clone_into(&mut self.default);
        self
    }

    /// The object's value.
    #[must_use]
    pub fn value(&self, object: &Value) -> String {
        match object.pointer(&self.pointer) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => self.default.clone(),
            Some(other) => other.to_string(),
        }
    }
}

/// Where the number of replicas is, for `scale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// JSON pointer of the desired number.
    pub spec_replicas: String,
    /// JSON pointer of the present number.
    pub status_replicas: String,
    /// JSON pointer of the label selector: an object, or a string in the serialized form.
    pub selector: Option<String>,
}

impl Default for ScalePaths {
    /// `spec.replicas`, `status.replicas`, `spec.selector`.
    fn default() -> Self {
        Self {
            spec_replicas: "/spec/replicas".to_owned(),
            status_replicas: "/status/replicas".to_owned(),
            selector: Some("/spec/selector".to_owned()),
        }
    }
}

/// What no data says. All methods have defaults that do nothing.
pub trait Behavior: Send + Sync {
    /// Fills in what is absent, beyond the defaults of the schema.
    fn set_defaults(&self, _object: &mut Value) {}

    /// Sets what a new object starts with, such as `status.phase`.
    fn prepare_for_create(&self, _object: &mut Value) {}

    /// Sets what an update may not change.
    fn prepare_for_update(&self, _object: &mut Value, _old: &Value) {}

    /// What is wrong with an object, beyond its schema. Called on create and on update.
    fn validate(&self, _object: &Value) -> Vec<Cause> {
        Vec::new()
    }

    /// What is wrong with a change: immutable fields.
    fn validate_update(&self, _object: &Value, _old: &Value) -> Vec<Cause> {
        Vec::new()
    }

    /// What to warn of.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }
}

/// A [`Behavior`] that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Behavior for Plain {}

/// Everything that differs from kind to kind.
#[derive(Clone)]
pub struct Strategy {
    /// Names, scope, verbs and subresources.
    pub descriptor: ResourceDescriptor,
    /// What objects look like. Without it anything is accepted, and strategic merge patches are not.
    pub schema: Option<TypeSchema>,
    /// How the schema is meant. A new strategy is of a custom resource, for which the schema is the law.
    pub dialect: Dialect,
    /// Which names are allowed.
    pub names: NameRule,
    /// Whether `metadata.generation` counts the changes of everything but metadata and status.
    pub counts_generation: bool,
    /// Whether PUT of an object that is not there creates it: leases, config maps do not; few kinds do.
    pub allow_create_on_update: bool,
    /// Whether an update without resourceVersion overwrites whatever is there.
    pub allow_unconditional_update: bool,
    /// What field selectors may name.
    pub selectable_fields: Vec<SelectableField>,
    /// How objects go.
    pub deletion: Deletion,
    /// Whether dependents are orphaned where the delete does not say (`rest.OrphanDependents`); no kind of the current
    /// versions does.
    pub orphans_by_default: bool,
    /// Where the replicas are, for kinds with a `scale` subresource.
    pub scale: ScalePaths,
    /// How objects print.
    pub printer: Arc<dyn Printer>,
    /// What no data says.
    pub behavior: Arc<dyn Behavior>,
}

impl std::fmt::Debug for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Strategy")
            .field("resource", &self.descriptor.resource)
            .finish_non_exhaustive()
    }
}

impl Strategy {
    /// The strategy of a resource of which nothing is known but its names: any content, DNS subdomain names, all verbs of
    /// [`STORED_VERBS`] where the descriptor names none.
    #[must_use]
    pub fn new(mut descriptor: ResourceDescriptor) -> Self {
        if descriptor.verbs.is_empty() {
            descriptor.verbs = STORED_VERBS.map(str::to_owned).to_vec();
        }
        Self {
            counts_generation: descriptor.subresource("status").is_some(),
            descriptor,
            schema: None,
            dialect: Dialect::CustomResource,
            names: NameRule::default(),
            allow_create_on_update: false,
            allow_unconditional_update: true,
            selectable_fields: Vec::new(),
            deletion: Deletion::default(),
            orphans_by_default: false,
            scale: ScalePaths::default(),
            printer: Arc::new(DefaultPrinter),
            behavior: Arc::new(Plain),
        }
    }

    /// The same strategy with a schema.
    #[must_use]
    pub fn with_schema(mut self, schema: Option<TypeSchema>, dialect: Dialect) -> Self {
        self.schema = schema;
        self.dialect = dialect;
        self
    }

    /// The same strategy with a printer.
    #[must_use]
    pub fn with_printer(mut self, printer: Arc<dyn Printer>) -> Self {
        self.printer = printer;
        self
    }

    /// The same strategy with a behavior.
    #[must_use]
    pub fn with_behavior(mut self, behavior: impl Behavior + 'static) -> Self {
        self.behavior = Arc::new(behavior);
        self
    }

    /// The same strategy with that rule for names.
    #[must_use]
    pub fn with_names(mut self, names: NameRule) -> Self {
        self.names = names;
        self
    }

    /// The kind with its group and version.
    #[must_use]
    pub fn kind(&self) -> GroupVersionKind {
        self.descriptor.group_version_kind()
    }

    /// Whether status is written through a subresource of its own.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.descriptor.subresource("status").is_some()
    }

    /// Whether field selectors may name `field`.
    #[must_use]
    pub fn selects_by(&self, field: &str) -> bool {
        field == "metadata.name"
            || (field == "metadata.namespace")
            || self.selectable_fields.iter().any(|one| one.field == field)
    }
}

/// A subresource of that kind with the verbs of [`SUBRESOURCE_VERBS`].
#[must_use]
pub fn subresource(name: &str, kind: GroupVersionKind) -> SubresourceDescriptor {
    SubresourceDescriptor {
        name: name.to_owned(),
        kind,
        verbs: SUBRESOURCE_VERBS.map(str::to_owned).to_vec(),
    }
}
