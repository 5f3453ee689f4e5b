//! Identities. Each is a number of its own type, so that a chunk can never be looked up by an inode's number.
//!
//! `from_raw` and `raw` are for codecs; everything else passes ids through unchanged.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($raw);

        impl $name {
            /// The id with this number; for codecs.
            #[must_use]
            pub const fn from_raw(raw: $raw) -> Self {
                Self(raw)
            }

            /// The number behind the id; for codecs.
            #[must_use]
            pub const fn raw(self) -> $raw {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

id!(
    /// A file, directory or other object of the namespace. Never used again after the object is gone.
    InodeId(u64), "i"
);
id!(
    /// Up to 64 MiB of a file's content. Never used again after the chunk is gone.
    ChunkId(u64), "c"
);
id!(
    /// Counts the write leases of a chunk; a copy with an older version than asked for is stale and fenced off.
    ChunkVersion(u32), "v"
);
id!(
    /// A chunkserver, as the masters have numbered it.
    ServerId(u32), "s"
);
id!(
    /// A client's registration with the masters; it owns leases, open files and the memory of its requests.
    SessionId(u64), "n"
);
id!(
    /// A member of the masters' Raft group: the number that its configuration gives it, and which of its lives this is.
    /// A master that has lost its disk has forgotten what it promised, so it comes back as another member. Never 0.
    MasterId(u64), "m"
);

id!(
    /// What is wanted for the content of an object: how many copies, or which erasure code, and where. 0 is the cluster's
    /// default.
    ClassId(u16), "class"
);

id!(
    /// A group of masters with a part of the namespace. It is the high part of the ids that it gives out, so that an id alone
    /// says which group to ask.
    CellId(u16), "cell"
);

/// Numbers from 0 up to here can be given out by a cell for things of one kind.
pub const ID_COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const COUNT_BITS: u32 = 48;

macro_rules! of_cell {
    ($name:ident) => {
        impl $name {
            /// The id of a cell's thing with this number; `None` above [`ID_COUNT_MAX`]: the cell has no more ids.
            #[must_use]
            pub const fn of_cell(cell: CellId, count: u64) -> Option<Self> {
                if count > ID_COUNT_MAX { None } else { Some(Self((cell.0 as u64) << COUNT_BITS | count)) }
            }

            /// The cell that has given it out.
            #[must_use]
            pub const fn cell(self) -> CellId {
                CellId((self.0 >> COUNT_BITS) as u16)
            }

            /// Its number within its cell.
            #[must_use]
            pub const fn count(self) -> u64 {
                self.0 & ID_COUNT_MAX
            }
        }
    };
}

of_cell!(InodeId);
of_cell!(ChunkId);
of_cell!(SessionId);

impl CellId {
    /// The cell of the root directory.
    pub const ROOT: Self = Self(0);

    /// The directory that everything of the cell lies in.
    #[must_use]
    pub const fn root(self) -> InodeId {
        InodeId((self.0 as u64) << COUNT_BITS | 1)
    }
}

impl MasterId {
    /// The member with this configured number, in the life that it drew `life` for when its directory was made.
    #[must_use]
    pub const fn new(number: u16, life: u32) -> Self {
        Self(number as u64 | (life as u64) << 16)
    }

    /// The number that its configuration gives it.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 & 0xffff
    }
}

impl InodeId {
    /// The root directory.
    pub const ROOT: Self = CellId::ROOT.root();
}

impl ChunkVersion {
    /// The version that the next write lease gets.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The random number that every part of one cluster carries, so that parts of two clusters never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes behind the id.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Reads 32 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|n| Self(n.to_be_bytes()))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many numbers of a session, from the lowest that is not acknowledged on, may be in use: each may leave an answer
/// that the masters keep until it is acknowledged.
pub const UNACKED_MAX: u64 = 4096;

/// One request of one session. The masters remember the answer until the session acknowledges it, so that a
/// request sent again is answered again and done once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId {
    /// The session that numbers its requests.
    pub session: SessionId,
    /// The number, rising from 1.
    pub seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_its_cell_and_those_of_the_first_are_plain_numbers() {
        let cell = CellId::from_raw(0xabcd);
        let last = ChunkId::of_cell(cell, ID_COUNT_MAX).unwrap();
        assert_eq!((last.raw(), last.cell(), last.count()), (0xabcd_ffff_ffff_ffff, cell, ID_COUNT_MAX));
        assert_eq!(ChunkId::of_cell(cell, ID_COUNT_MAX + 1), None);
        assert_eq!(SessionId::of_cell(CellId::ROOT, 7), Some(SessionId::from_raw(7)));
        assert_eq!((InodeId::ROOT.raw(), CellId::ROOT.root()), (1, InodeId::ROOT));
        assert_eq!(InodeId::of_cell(cell, 1), Some(cell.root()));
    }

    #[test]
    fn a_cluster_id_reads_back_what_it_prints() {
        let id = ClusterId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(ClusterId::parse(&id.to_string()), Some(id));
        assert_eq!(ClusterId::parse("00ff"), None);
        assert_eq!(ClusterId::parse(&"+".repeat(32)), None);
    }
}
