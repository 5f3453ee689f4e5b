//! Worlds of fixed seeds: nothing that was promised may break, equal seeds must run alike, and a planted bug must be
//! found.

mod plants;
mod seeds;
mod worlds;
