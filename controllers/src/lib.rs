//! Controllers: join, copy, placement, rendering, dispatch, status.
