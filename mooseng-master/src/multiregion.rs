//! Where things are put, and later: how several regions share one namespace.

pub mod placement;
