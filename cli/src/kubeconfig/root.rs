//! A root that a context can lead to.

use umbra_apimachinery::request::RootName;

/// What kind of root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    View,
    Fleet,
    Cluster,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 3] = [Self::View, Self::Fleet, Self::Cluster];

    /// What people call it, and the flag that names it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Fleet => "fleet",
            Self::Cluster => "cluster",
        }
    }

    /// The resource on the hub.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::View => "views",
            Self::Fleet => "fleets",
            Self::Cluster => "managedclusters",
        }
    }
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Root {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl Root {
    /// Its URL below that of the hub.
    pub(crate) fn prefix(&self) -> String {
        match self.kind {
            Kind::View => RootName::View(&self.name).prefix(),
            Kind::Fleet => RootName::Fleet(&self.name).prefix(),
            Kind::Cluster => RootName::Cluster(&self.name).prefix(),
        }
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)
    }
}
