//! Storage classes, and which of them objects have.

use mooseng_types::{CLASSES_MAX, ClassId, ClassName, FsError, Goal, InodeId, Level, StorageClass, TimeNs};

use crate::codec::v1::row::{self, Number};
use crate::key;
use crate::response::Response;
use crate::tables::{Tables, decode};

/// The class of the root of a new cluster, and of everything from before there were classes.
pub(crate) const DEFAULT: ClassId = ClassId::from_raw(0);

/// Classes that every cluster begins with, as MooseFS has them, after the default one.
const PREDEFINED: [(&str, u8); 2] = [("2CP", 2), ("3CP", 3)];

/// Makes the classes that every cluster begins with, once the level has classes and it is known how many copies are the default.
pub(crate) fn found(t: &mut Tables) {
    let Some(settings) = t.settings.filter(|_| t.level >= Level::CLASSES) else { return };
    if t.rows.contains(&key::class(DEFAULT)) {
        return;
    }
    let named = [("default", settings.copies)].into_iter().chain(PREDEFINED);
    for (id, (name, copies)) in (0..).map(ClassId::from_raw).zip(named) {
        if let Ok(name) = ClassName::parse(name) {
            put(t, id, &StorageClass::new(name, Goal::any(copies)));
        }
    }
}

/// Makes a class, under the lowest number that is free.
pub(crate) fn create(t: &mut Tables, class: &StorageClass) -> Result<Response, FsError> {
    if t.level < Level::CLASSES {
        return Err(FsError::NotSupported);
    }
    let known = t.classes();
    if known.iter().any(|(_, known)| known.name == class.name) {
        return Err(FsError::Exists);
    }
    if known.len() >= CLASSES_MAX {
        return Err(FsError::NoSpace);
    }
    let free = (0..).map(ClassId::from_raw).find(|id| known.iter().all(|(known, _)| known != id));
    let id = free.ok_or(FsError::NoSpace)?;
    put(t, id, class);
    Ok(Response::Class(id))
}

/// Makes a class another one.
pub(crate) fn change(t: &mut Tables, id: ClassId, class: &StorageClass) -> Result<Response, FsError> {
    let known = t.classes();
    let now = known.iter().find(|(known, _)| *known == id).map(|(_, now)| now).ok_or(FsError::NotFound)?;
    if id == DEFAULT && now.name != class.name {
        return Err(FsError::NotPermitted);
    }
    if known.iter().any(|(known, other)| *known != id && other.name == class.name) {
        return Err(FsError::Exists);
    }
    put(t, id, class);
    Ok(Response::Class(id))
}

/// Removes a class that no object has.
pub(crate) fn remove(t: &mut Tables, id: ClassId) -> Result<Response, FsError> {
    if !t.rows.contains(&key::class(id)) {
        return Err(FsError::NotFound);
    }
    if id == DEFAULT {
        return Err(FsError::NotPermitted);
    }
    if t.objects_of(id) > 0 {
        return Err(FsError::InUse);
    }
    t.rows.delete(&key::class(id));
    Ok(Response::Class(id))
}

/// Gives objects a class; how many have another one than before.
pub(crate) fn set(
    t: &mut Tables,
    stamp: TimeNs,
    id: ClassId,
    inodes: &[InodeId],
) -> Result<Response, FsError> {
    if !t.rows.contains(&key::class(id)) {
        return Err(FsError::NotFound);
    }
    let mut changed = 0;
    for &inode in inodes {
        let Some(mut row) = t.inode(inode).filter(|row| row.class != id) else { continue };
        t.leave_class(row.class);
        t.join_class(id);
        row.class = id;
        row.ctime = stamp;
        t.put_inode(inode, &row);
        changed += 1;
    }
    Ok(Response::Changed(changed))
}

fn put(t: &mut Tables, id: ClassId, class: &StorageClass) {
    t.rows.put(&key::class(id), row::class::encode(class));
}

impl Tables {
    /// All classes, by number.
    pub(crate) fn classes(&self) -> Vec<(ClassId, StorageClass)> {
        self.rows.collect(b"y", &[], usize::MAX, |key, value| (key::class_at(key), decode(key, value)))
    }

    /// How many objects have a class. Of the default one nobody counts them: it is there for good.
    pub(crate) fn objects_of(&self, class: ClassId) -> u64 {
        self.row::<Number>(&key::class_objects(class)).map_or(0, |Number(count)| count)
    }

    /// An object more has the class.
    pub(crate) fn join_class(&mut self, class: ClassId) {
        self.count_objects(class, |count| count + 1);
    }

    /// An object less has the class.
    pub(crate) fn leave_class(&mut self, class: ClassId) {
        self.count_objects(class, |count| count.saturating_sub(1));
    }

    fn count_objects(&mut self, class: ClassId, change: impl FnOnce(u64) -> u64) {
        if class == DEFAULT || self.level < Level::CLASSES {
            return;
        }
        let (key, before) = (key::class_objects(class), self.objects_of(class));
        match change(before) {
            0 if before > 0 => self.rows.delete(&key),
            0 => {}
            count => self.rows.put(&key, Number(count).encode().into()),
        }
    }
}
