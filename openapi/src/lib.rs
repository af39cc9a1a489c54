//! OpenAPI documents and schemas: parsing, defaulting, pruning, validation, publishing. No I/O.
//!
//! | module | what it does |
//! |---|---|
//! | [`document`] | reads the document of one group version, or makes one of custom resources |
//! | [`builtin`] | the documents and resources of the Kubernetes kinds that Umbra serves itself |
//! | [`validate`] | does an object have the shape its kind asks for |
//! | [`mod@default`], [`mod@prune`] | fill in what is absent, drop what is unknown |
//! | [`strict`] | what `fieldValidation=Strict` and `Warn` complain about |
//! | [`publish`] | the documents that a root serves |
//!
//! Two dialects share all of it. Kinds that are compiled into a Kubernetes server are decoded into Go types, whose
//! documents say less than they mean; custom resources are governed by their structural schema and nothing else. Where
//! the rules differ, functions take a [`Dialect`].

pub mod builtin;
pub mod default;
pub mod document;
pub mod prune;
pub mod publish;
pub mod strict;
pub mod validate;

mod path;
mod reader;

use umbra_apimachinery::schema::SchemaCursor;

pub use document::{CustomResource, Document, DocumentError};

/// How the schema of a kind is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Compiled into the server that serves it: the object is decoded into Go types. `null` is the same as absent; a
    /// default of `""`, `0`, `false` or `{}` only says what Go's zero value looks like; an absent number, boolean or list
    /// is its zero value although the schema requires it; and `status` is written by programs that leave things out.
    BuiltIn,
    /// Defined by a CustomResourceDefinition: the schema is the law, but in `metadata`, whose type is Kubernetes' own.
    CustomResource,
}

impl Dialect {
    /// The dialect of a place inside an object: what refers to one of Kubernetes' own definitions is decoded into a Go
    /// type, also in a custom resource.
    fn at(self, schema: SchemaCursor<'_>) -> Self {
        let reference = schema.site().reference.as_deref();
        if reference.is_some_and(|name| name.starts_with("io.k8s.")) {
            Self::BuiltIn
        } else {
            self
        }
    }
}
