//! Questions that change nothing.

mod chunk;
mod cluster;
mod directory;
mod object;

pub use directory::{DirEntry, Listing};
