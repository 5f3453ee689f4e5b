//! Questions about storage classes.

use mooseng_types::{ClassId, ClassName, FsError, Goal, InodeId, StorageClass};

use crate::key;
use crate::state::MetaState;

impl MetaState {
    /// All classes, by number. None below the level of classes.
    #[must_use]
    pub fn classes(&self) -> Vec<(ClassId, StorageClass)> {
        self.tables.classes()
    }

    /// The class with this number.
    #[must_use]
    pub fn class(&self, id: ClassId) -> Option<StorageClass> {
        self.tables.row(&key::class(id))
    }

    /// The class with this name.
    #[must_use]
    pub fn class_named(&self, name: &ClassName) -> Option<(ClassId, StorageClass)> {
        self.classes().into_iter().find(|(_, class)| class.name == *name)
    }

    /// How many objects have a class; `None` for the default one, of which nobody counts them.
    #[must_use]
    pub fn objects_of(&self, class: ClassId) -> Option<u64> {
        (class.raw() != 0).then(|| self.tables.objects_of(class))
    }

    /// Which class an object has.
    pub fn class_of(&self, inode: InodeId) -> Result<ClassId, FsError> {
        self.tables.need(inode).map(|row| row.class)
    }

    /// The class whose goals hold for an object. Below the level of classes, and for what is gone, it is the one that the settings
    /// say; `None` before there are any.
    #[must_use]
    pub fn class_for(&self, inode: InodeId) -> Option<StorageClass> {
        let class = self.tables.inode(inode).map(|row| row.class).unwrap_or(ClassId::from_raw(0));
        self.class(class).or_else(|| self.class(ClassId::from_raw(0))).or_else(|| {
            let name = ClassName::parse("default").ok()?;
            Some(StorageClass::new(name, Goal::any(self.settings()?.copies)))
        })
    }
}
