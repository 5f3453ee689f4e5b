//! The rows of a session.

use mooseng_types::SessionId;

/// A client that is registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionRow {
    /// Its id.
    pub session: SessionId,
    /// For people: host and mount point.
    pub name: String,
    /// The client's random identity.
    pub client: [u8; 16],
}

/// What is stored of a session besides its requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SessionRecord {
    /// The client's random identity.
    pub(crate) client: [u8; 16],
    /// For people.
    pub(crate) name: String,
}

/// Which answers of a session are stored. Kept in memory and written at a freeze: it changes with every request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Window {
    /// Answers below this are forgotten; a request below it is refused.
    pub(crate) acked_below: u64,
    /// No answer above this is stored, which spares a look into the store for nearly every request.
    pub(crate) highest: u64,
    /// Changed since the last freeze.
    pub(crate) dirty: bool,
}
