//! Storage classes: what is wanted for the content of objects, by state of the content.

use std::fmt;

use crate::goal::{Goal, Strictness};

/// Classes of a cluster.
pub const CLASSES_MAX: usize = 256;
/// Bytes of a description.
pub const DESCRIPTION_MAX: usize = 255;

/// The name of a class: 1 to 64 letters, digits, `-`, `_`, `.` and `+`, the first of them a letter or digit. MooseFS's `2CP` and
/// `EC4+1` are names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassName(Box<str>);

/// Why a text is no class name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no name of a class: give 1 to 64 letters, digits and - _ . +, first a letter or digit")]
pub struct ClassNameError(String);

impl ClassName {
    /// Bytes of a name.
    pub const LENGTH_MAX: usize = 64;

    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// [`ClassNameError`] if it is no name.
    pub fn parse(text: &str) -> Result<Self, ClassNameError> {
        let may_hold = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+');
        let is_good = text.len() <= Self::LENGTH_MAX
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && text.bytes().all(may_hold);
        if is_good {
            Ok(Self(text.into()))
        } else {
            Err(ClassNameError(text.chars().take(Self::LENGTH_MAX + 1).collect()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A state of content, each with a goal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ClassState {
    /// It is being written for the first time.
    Create,
    /// It is in use.
    Keep,
    /// It has not been changed for long.
    Archive,
    /// Its file has been deleted and can still be had back.
    Trash,
}

impl ClassState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Create, Self::Keep, Self::Archive, Self::Trash];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Keep => "keep",
            Self::Archive => "archive",
            Self::Trash => "trash",
        }
    }
}

impl fmt::Display for ClassState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wanted for the content of objects. Times are whole seconds, as they are stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageClass {
    /// What people call it.
    pub name: ClassName,
    /// The goal of content in use, and of any other that has none of its own.
    pub keep: Goal,
    /// That of content that is written for the first time.
    pub create: Option<Goal>,
    /// That of content that was not changed for [`StorageClass::archive_delay_s`].
    pub archive: Option<Goal>,
    /// That of content of deleted files, if they stay for another [`StorageClass::trash_retention_min_s`].
    pub trash: Option<Goal>,
    /// How long content is left unchanged before it is archived.
    pub archive_delay_s: u32,
    /// Shorter files are not archived.
    pub archive_length_min_bytes: u64,
    /// Content of files that are gone for good sooner keeps its goal.
    pub trash_retention_min_s: u32,
    /// How strictly labels are taken where a goal does not say it.
    pub strictness: Strictness,
    /// Of several classes that want the same chunk the one with the highest has it.
    pub priority: u8,
    /// For people.
    pub description: String,
}

impl StorageClass {
    /// One day, as in MooseFS.
    pub const ARCHIVE_DELAY_S: u32 = 24 * 60 * 60;

    /// A class with this goal for everything.
    #[must_use]
    pub const fn new(name: ClassName, keep: Goal) -> Self {
        Self {
            name,
            keep,
            create: None,
            archive: None,
            trash: None,
            archive_delay_s: Self::ARCHIVE_DELAY_S,
            archive_length_min_bytes: 0,
            trash_retention_min_s: 0,
            strictness: Strictness::Standard,
            priority: 0,
            description: String::new(),
        }
    }

    /// The goal for content in this state.
    #[must_use]
    pub fn goal(&self, state: ClassState) -> &Goal {
        self.own_goal(state).unwrap_or(&self.keep)
    }

    /// The goal that the class has for this state itself.
    #[must_use]
    pub const fn own_goal(&self, state: ClassState) -> Option<&Goal> {
        match state {
            ClassState::Create => self.create.as_ref(),
            ClassState::Keep => Some(&self.keep),
            ClassState::Archive => self.archive.as_ref(),
            ClassState::Trash => self.trash.as_ref(),
        }
    }

    /// How strictly labels are taken in this state.
    #[must_use]
    pub fn strictness(&self, state: ClassState) -> Strictness {
        self.goal(state).strictness().unwrap_or(self.strictness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_moosefs_are_names() {
        for good in ["2CP", "EC4+1", "a", "x.y-z_9", &"x".repeat(64)] {
            assert_eq!(ClassName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-x", ".", "a b", "a/b", "é", &"x".repeat(65)] {
            assert!(ClassName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_state_without_a_goal_of_its_own_has_that_of_content_in_use() {
        let goal = |text: &str| text.parse::<Goal>().unwrap();
        let class = StorageClass {
            create: Some(goal("ssd:loose")),
            strictness: Strictness::Strict,
            ..StorageClass::new(ClassName::parse("x").unwrap(), goal("2A"))
        };
        assert_eq!(class.goal(ClassState::Create), &goal("ssd:loose"));
        assert_eq!(class.goal(ClassState::Trash), &goal("2A"));
        let strict = ClassState::ALL.map(|state| class.strictness(state));
        assert_eq!(strict[..2], [Strictness::Loose, Strictness::Strict]);
    }
}
