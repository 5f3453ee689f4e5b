//! Frames over blocking sockets.
//!
//! Threads and blocking sockets, not tasks: on two cores a round trip costs 20 µs this way and about 60 µs over a
//! work-stealing runtime (RFC 0001). [`FrameStream`] is one connection used by one caller at a time, without any hop
//! between threads; [`Mux`] is one connection shared by many callers, with a reader thread, answers out of order, and
//! push. Both are made of a [`Socket`], as everything is that has a connection.

mod mux;
mod socket;
mod stream;
mod unsent;

#[cfg(test)]
mod tests;

pub use mux::{CALLS_MAX, Mux};
pub use socket::Socket;
pub use stream::{FrameReader, FrameStream, FrameWriter, NotWelcome, greet};
