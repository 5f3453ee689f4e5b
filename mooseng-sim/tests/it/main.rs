//! Worlds of fixed seeds.
