//! Where in an object something is, written only when somebody has to be told.

use std::fmt;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Into a field.
    Field(&'a str),
    /// Into a list.
    Index(usize),
}

/// A chain of steps on the stack of the walk that took them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Option<Step<'a>>,
}

impl<'a> Path<'a> {
    /// The object itself.
    pub(crate) const ROOT: Self = Self {
        parent: None,
        step: None,
    };

    pub(crate) fn field(&'a self, name: &'a str) -> Path<'a> {
        Self {
            parent: Some(self),
            step: Some(Step::Field(name)),
        }
    }

    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Self {
            parent: Some(self),
            step: Some(Step::Index(index)),
        }
    }

    /// Whether this is a field of the object itself, or something below that field.
    pub(crate) fn is_within(&self, field: &str) -> bool {
        match (self.parent, self.step) {
            (Some(parent), Some(Step::Field(name))) if parent.step.is_none() => name == field,
            (Some(parent), _) => parent.is_within(field),
            (None, _) => false,
        }
    }

    pub(crate) fn parent(&self) -> Option<&Path<'a>> {
        self.parent
    }

    pub(crate) fn step(&self) -> Option<Step<'a>> {
        self.step
    }

    pub(crate) fn is_root(&self) -> bool {
        self.step.is_none()
    }
}

impl fmt::Display for Path<'_> {
    /// As Kubernetes writes it: `spec.containers[0].name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            None => Ok(()),
            Some(Step::Index(index)) => write!(f, "[{index}]"),
            Some(Step::Field(name)) => {
                if self.parent.is_some_and(|parent| !parent.is_root()) {
                    f.write_str(".")?;
                }
                f.write_str(name)
            }
        }
    }
}
