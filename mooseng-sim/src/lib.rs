//! A seeded world with faults that drives the real cores
