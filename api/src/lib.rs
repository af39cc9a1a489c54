//! Kinds of umbra.dev/v1alpha1: types, defaults and validation.
