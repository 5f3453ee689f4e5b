//! What a client is to the masters, as values without sockets, threads or clocks: the numbers of its requests, who leads,
//! what a failed try means, which files are open and what a resume says of them, what is recalled.

pub(crate) mod backoff;
pub(crate) mod belief;
pub(crate) mod ids;
pub(crate) mod opens;
pub(crate) mod recalls;
pub(crate) mod retry;

pub use backoff::Backoff;
pub use belief::{Belief, Believed};
pub use ids::RequestIds;
pub use opens::{OpenFiles, OpenList};
pub use recalls::Recalls;
pub use retry::{Kind, Next, Retry};
