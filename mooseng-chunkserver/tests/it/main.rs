//! Whole chunkservers on the loopback interface, with a scripted client and a scripted master.

mod chain;
mod master;
mod program;
mod support;
