//! The MooseNG namespace as a deterministic state machine over an ordered store.
//!
//! In reading order: [`command`] says what can be asked for and [`response`] what is answered; [`state`] applies one
//! to get the other; `op` holds one family of commands per file, [`query`] the questions that change nothing; `tables`
//! gives rows their types, `overlay` holds changed rows until the [`store`] has them; [`mod@check`] is the file system
//! check. Nothing here reads a clock, a file or a socket: the same entries make the same rows on every replica.

pub mod check;
pub mod chunk;
pub mod codec;
pub mod command;
mod counters;
mod digest;
mod inode;
pub mod key;
pub mod landmark;
pub mod layout;
pub mod membership;
#[cfg(test)]
mod model;
mod op;
mod overlay;
pub mod query;
pub mod response;
pub mod server;
pub mod session;
pub mod settings;
pub mod state;
pub mod store;
mod tables;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use check::{Checked, Violation, check, check_view};
pub use chunk::ChunkRow;
pub use codec::CodecError;
pub use command::{
    AttrCommand, BATCH_MAX, ClassCommand, ClusterCommand, Command, CommandBatch, CommittedChunk,
    ContentCommand, Entry, MovesLeases, NameCommand, RenameMode, RepairCommand, Request, SET_CLASS_MAX,
    XattrMode,
};
pub use key::BASE;
pub use landmark::{Landmark, base_row, landmark};
pub use layout::{Layout, Stripe};
pub use membership::{Member, Membership};
pub use op::index::INDEX_MAX;
pub use query::{DirEntry, LeaseInTheWay, Listing};
pub use response::{Grant, Response};
pub use server::{ServerMode, ServerPlace, ServerRow};
pub use session::SessionRow;
pub use settings::{Settings, Totals};
pub use state::{FormatError, MetaState};
pub use store::{Batch, MemoryStore, MetaStore, StoreView, applied_index_of};
