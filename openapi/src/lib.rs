//! OpenAPI documents and schemas: parsing, merging, defaulting, pruning, validation.
