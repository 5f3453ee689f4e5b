//! How much one request may carry. Whoever sends keeps these; masters refuse what exceeds them before it is proposed, so
//! that whatever one master must forward to another fits into a frame.

pub use mooseng_types::UNACKED_MAX;

/// Chunks of one `CommitWriteRequest`. A commit of more goes in several, by rising index; each says the size up to the
/// end of its own chunks, the last one the whole.
pub const COMMIT_MAX: usize = 1024;
/// Indexes of one `ReleaseLeaseRequest`.
pub const INDEXES_MAX: usize = 1024;
/// Servers that one `GrantWriteRequest` says have failed.
pub const FAILED_MAX: usize = 64;
/// Inodes of one `ReleaseRequest`.
pub const RELEASE_MAX: usize = 4096;
/// Files that one session may have open: the list of a `ResumeSessionRequest` is complete.
pub const OPEN_MAX: usize = 400_000;
/// Chunks of one `LocateReply`; more are located by further requests.
pub const LOCATE_MAX: u32 = 1024;
/// Entries of one `ReaddirReply`.
pub const LISTING_MAX: usize = 4096;
/// Bytes of a client's name; more are cut off.
pub const CLIENT_NAME_MAX: usize = 200;
/// Bytes of a chunkserver's or a master's name or address.
pub const TEXT_MAX: usize = 255;
/// Disks of one chunkserver.
pub const DISKS_MAX: usize = 256;
/// Bytes of what is said for people in an error; more are cut off.
pub const MESSAGE_MAX: usize = 1024;
