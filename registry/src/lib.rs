//! What each root serves: hub, cluster, view, fleet; the built-in kinds.
