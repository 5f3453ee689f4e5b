//! The vocabulary of MooseNG, in reading order: ids, parts, levels, geometry, names, attributes, labels, goals, storage
//! classes, errors, faults.
//!
//! Everything here is a value. Nothing reads a clock, a file or a socket, and nothing is serialised from here:
//! the wire (`mooseng-protocol`) and the disk (`mooseng-meta`, `mooseng-chunkserver`) have encodings of their own.

pub mod attr;
pub mod class;
pub mod error;
pub mod fault;
pub mod geometry;
pub mod goal;
pub mod id;
pub mod label;
pub mod level;
pub mod name;
pub mod part;
pub mod time;

pub use attr::{Attr, FileKind, SetAttr, SetTime};
pub use class::{CLASSES_MAX, ClassName, ClassNameError, ClassState, DESCRIPTION_MAX, StorageClass};
pub use error::FsError;
pub use fault::ChunkCause;
pub use geometry::{
    BLOCK_SIZE, BLOCKS_PER_CHUNK, BlockIndex, CHUNK_SIZE, ChunkIndex, FILE_SIZE_MAX, INLINE_MAX, NAME_MAX,
    SYMLINK_MAX, XATTR_NAMES_MAX, XATTR_VALUE_MAX,
};
pub use goal::{COPIES_MAX, Distinguish, Goal, GoalError, GoalProblem, LabelExpression, Strictness};
pub use id::{
    CellId, ChunkId, ChunkVersion, ClassId, ClusterId, ID_COUNT_MAX, InodeId, MasterId, RequestId, ServerId,
    SessionId, UNACKED_MAX,
};
pub use label::{LABELS_MAX, Label, LabelError, Labels};
pub use level::{Level, Levels};
pub use name::FileName;
pub use part::Part;
pub use time::TimeNs;
