//! Whole chunkservers on the loopback interface, with a scripted client and a scripted master.
#![expect(clippy::unwrap_used, reason = "tests; the lint knows only functions marked as such")]

mod chain;
mod faults;
mod fetch;
mod master;
mod parts;
mod program;
mod quarantine;
mod silence;
mod strangers;
mod support;
mod verify;
