//! Storage classes. Goals travel as the text that people read.

use mooseng_types::{
    ClassName, ClassNameError, ClassState, DESCRIPTION_MAX, Goal, GoalError, StorageClass, Strictness,
};

use crate::pb;
use crate::status::CallError;

/// Why a message is no storage class.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadClass {
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] ClassNameError),
    /// A goal is none.
    #[error("{state} \"{text}\": {source}")]
    Goal {
        /// Of which state.
        state: ClassState,
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: GoalError,
    },
    /// There is no goal for content in use.
    #[error("a class needs a goal for content in use: give keep")]
    NoKeep,
    /// No way to take labels.
    #[error("strictness \"{0}\": give loose, std or strict")]
    Strictness(String),
    /// The priority is too high.
    #[error("priority {0}: give 0 to 255")]
    Priority(u32),
    /// The description is too long.
    #[error("the description has {0} bytes, at most {DESCRIPTION_MAX} are kept")]
    Description(usize),
}

impl From<BadClass> for CallError {
    fn from(bad: BadClass) -> Self {
        Self::Rejected { message: bad.to_string() }
    }
}

fn goal(state: ClassState, text: &str) -> Result<Option<Goal>, BadClass> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |source| BadClass::Goal { state, text: text.to_owned(), source };
    text.parse().map(Some).map_err(bad)
}

impl TryFrom<&pb::StorageClass> for StorageClass {
    type Error = BadClass;

    fn try_from(it: &pb::StorageClass) -> Result<Self, BadClass> {
        let strictness = match it.strictness.as_str() {
            "" => Strictness::default(),
            text => Strictness::parse(text).ok_or_else(|| BadClass::Strictness(text.to_owned()))?,
        };
        if it.description.len() > DESCRIPTION_MAX {
            return Err(BadClass::Description(it.description.len()));
        }
        Ok(Self {
            name: ClassName::parse(&it.name)?,
            keep: goal(ClassState::Keep, &it.keep)?.ok_or(BadClass::NoKeep)?,
            create: goal(ClassState::Create, &it.create)?,
            archive: goal(ClassState::Archive, &it.archive)?,
            trash: goal(ClassState::Trash, &it.trash)?,
            archive_delay_s: it.archive_delay_s,
            archive_length_min_bytes: it.archive_length_min_bytes,
            trash_retention_min_s: it.trash_retention_min_s,
            strictness,
            priority: u8::try_from(it.priority).map_err(|_| BadClass::Priority(it.priority))?,
            description: it.description.clone(),
        })
    }
}

impl From<&StorageClass> for pb::StorageClass {
    fn from(class: &StorageClass) -> Self {
        let goal = |state| class.own_goal(state).map_or_else(String::new, ToString::to_string);
        Self {
            name: class.name.to_string(),
            create: goal(ClassState::Create),
            keep: goal(ClassState::Keep),
            archive: goal(ClassState::Archive),
            trash: goal(ClassState::Trash),
            archive_delay_s: class.archive_delay_s,
            archive_length_min_bytes: class.archive_length_min_bytes,
            trash_retention_min_s: class.trash_retention_min_s,
            strictness: class.strictness.to_string(),
            priority: class.priority.into(),
            description: class.description.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> pb::StorageClass {
        pb::StorageClass {
            name: "gold".into(),
            create: "ssd".into(),
            keep: "A,B".into(),
            archive_delay_s: 60,
            strictness: "strict".into(),
            priority: 7,
            description: "d".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_class_is_read_back() {
        let class = StorageClass::try_from(&message()).unwrap();
        assert_eq!(class.goal(ClassState::Archive).to_string(), "A,B");
        assert_eq!(pb::StorageClass::from(&class), message());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |change: fn(&mut pb::StorageClass)| {
            let mut it = message();
            change(&mut it);
            StorageClass::try_from(&it).unwrap_err().to_string()
        };
        assert!(wrong(|it| it.name = "a b".into()).contains("no name of a class"));
        assert!(wrong(|it| it.keep = String::new()).contains("give keep"));
        assert!(wrong(|it| it.strictness = "x".into()).contains("give loose"));
        assert!(wrong(|it| it.priority = 256).contains("0 to 255"));
        assert!(wrong(|it| it.description = "x".repeat(256)).contains("256 bytes"));
        let goal = wrong(|it| it.trash = "A+".into());
        assert_eq!(goal, "trash \"A+\": at character 3: expected a label, ! or [, found the end");
    }
}
