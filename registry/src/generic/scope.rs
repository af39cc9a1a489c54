//! What lists and watches are about.

use umbra_apimachinery::selector::{FieldSelector, Selector};
use umbra_apimachinery::status::Status;
use umbra_storage::CachedObject;

use crate::request::ListOptions;
use crate::resource::Object;

/// What a list or a watch is about, among the objects of a cache whose indexer keeps `E` of each.
pub trait Scope<E>: Send + Sync + 'static {
    /// What the keys of all objects of the resource start with; continue tokens are relative to it.
    fn base(&self) -> &str;

    /// What the keys of the objects in question start with: [`Scope::base`] or more.
    fn prefix(&self) -> &str;

    /// Whether an object under the prefix is in question.
    fn selects(&self, object: &CachedObject<E>) -> bool;

    /// Whether the client has not selected among the objects: then lists say how many remain.
    fn selects_everything(&self) -> bool;

    /// Whether every object under the prefix is in question: then none is looked at to count what remains.
    fn selects_whole_prefix(&self) -> bool {
        false
    }

    /// A field and the one value that every object in question has there, if the cache indexes it
    /// ([`umbra_storage::Indexer::indexed_fields`]).
    fn indexed_field(&self) -> Option<(&str, &str)> {
        None
    }

    /// An object as it is served.
    fn object(&self, object: &CachedObject<E>) -> Object;
}

/// Label and field selectors of a request.
#[derive(Debug, Clone)]
pub struct Selection {
    /// By labels.
    pub labels: Selector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Reads the selectors of a request; `supported` says which fields may be named.
    ///
    /// # Errors
    /// 400 for what cannot be read, and for fields that are not supported.
    pub fn parse(options: &ListOptions, supported: impl Fn(&str) -> bool) -> Result<Self, Status> {
        let labels = Selector::parse(&options.label_selector)
            .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields =
            FieldSelector::parse(&options.field_selector).map_err(|error| Status::bad_request(error.to_string()))?;
        fields
            .restrict_to(supported)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        Ok(Self { labels, fields })
    }

    /// Whether the object is selected.
    #[must_use]
    pub fn selects<E>(&self, object: &CachedObject<E>) -> bool {
        self.labels.matches(|key| object.labels.get(key))
            && self.fields.matches(|field| match field {
                "metadata.name" => Some(&object.name),
                "metadata.namespace" => Some(&object.namespace),
                other => object.fields.get(other),
            })
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}
