//! Commands on storage classes, and on which class an object has.

use mooseng_types::{ClassId, DESCRIPTION_MAX, FsError, InodeId, StorageClass, TimeNs};

use super::{Command, tag};
use crate::codec::{CodecError, Reader, Writer};
use crate::op::class;
use crate::response::Response;
use crate::tables::Tables;

/// Objects that one command gives a class.
pub const SET_CLASS_MAX: usize = 1024;

/// A change of classes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClassCommand {
    /// Makes a class.
    Create {
        /// What it is.
        class: Box<StorageClass>,
    },
    /// Makes a class another one, for all objects that have it.
    Change {
        /// Which.
        id: ClassId,
        /// What it is from now on.
        class: Box<StorageClass>,
    },
    /// Removes a class that no object has.
    Remove {
        /// Which.
        id: ClassId,
    },
    /// Gives objects a class. What is made in a directory afterwards has it too, what is in it already has not.
    Set {
        /// The class.
        id: ClassId,
        /// The objects, at most [`SET_CLASS_MAX`]; those that are gone are passed over.
        inodes: Vec<InodeId>,
    },
}

impl From<ClassCommand> for Command {
    fn from(command: ClassCommand) -> Self {
        Self::Class(command)
    }
}

impl ClassCommand {
    pub(super) fn check(&self) -> Result<(), FsError> {
        let fits = match self {
            Self::Create { class } | Self::Change { class, .. } => class.description.len() <= DESCRIPTION_MAX,
            Self::Set { inodes, .. } => inodes.len() <= SET_CLASS_MAX,
            Self::Remove { .. } => true,
        };
        if fits { Ok(()) } else { Err(FsError::Invalid) }
    }

    pub(super) fn run(&self, t: &mut Tables, stamp: TimeNs) -> Result<Response, FsError> {
        self.check()?;
        match self {
            Self::Create { class } => class::create(t, class),
            Self::Change { id, class } => class::change(t, *id, class),
            Self::Remove { id } => class::remove(t, *id),
            Self::Set { id, inodes } => class::set(t, stamp, *id, inodes),
        }
    }

    /// Bytes of what may be long.
    pub(super) fn payload(&self) -> usize {
        match self {
            Self::Create { class } | Self::Change { class, .. } => class.description.len(),
            Self::Set { inodes, .. } => inodes.len() * size_of::<InodeId>(),
            Self::Remove { .. } => 0,
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Create { class } => {
                w.u8(tag::CREATE_CLASS);
                w.class(class);
            }
            Self::Change { id, class } => {
                w.u8(tag::CHANGE_CLASS);
                w.var(id.raw().into());
                w.class(class);
            }
            Self::Remove { id } => {
                w.u8(tag::REMOVE_CLASS);
                w.var(id.raw().into());
            }
            Self::Set { id, inodes } => {
                w.u8(tag::SET_CLASS);
                w.var(id.raw().into());
                w.list(inodes, Writer::inode);
            }
        }
    }

    /// The command with this number; `None` if it is of another family.
    pub(super) fn decode(tag: u8, r: &mut Reader<'_>) -> Result<Option<Self>, CodecError> {
        let id = |r: &mut Reader<'_>| r.narrow().map(ClassId::from_raw);
        Ok(Some(match tag {
            tag::CREATE_CLASS => Self::Create { class: Box::new(r.class()?) },
            tag::CHANGE_CLASS => Self::Change { id: id(r)?, class: Box::new(r.class()?) },
            tag::REMOVE_CLASS => Self::Remove { id: id(r)? },
            tag::SET_CLASS => Self::Set { id: id(r)?, inodes: r.list(Reader::inode)? },
            _ => return Ok(None),
        }))
    }
}
