//! The rows that tell of a store as a whole: for those who copy rows without knowing what they mean, and still must not
//! take a store for another.

use bytes::Bytes;
use mooseng_types::Level;

use crate::codec::CodecError;
use crate::codec::v1;
use crate::codec::v1::row::{Base, Number, RowValue};
use crate::key;
use crate::membership::Membership;

/// What a row says of its store.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Landmark {
    /// Its format is one that this release reads.
    Format,
    /// The last entry whose changes are in it.
    AppliedIndex(u64),
    /// The group of masters as of that entry.
    Membership(Membership),
    /// The cluster's level as of that entry; a store without it is of the first.
    Level(Level),
    /// The entry that it began with.
    Base {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
    },
}

/// What the row says of its store; `None` for one that says nothing. Fails if it cannot be read, or if it is of a format
/// that this release does not know.
pub fn landmark(key: &[u8], value: &[u8]) -> Result<Option<Landmark>, CodecError> {
    let Ok(key) = <[u8; 2]>::try_from(key) else { return Ok(None) };
    let found = match key {
        key::FORMAT => match Number::decode(value)? {
            Number(number) if number == u64::from(v1::FORMAT) => Landmark::Format,
            Number(other) => return Err(CodecError::Format(u8::try_from(other).unwrap_or(u8::MAX))),
        },
        key::APPLIED => Landmark::AppliedIndex(Number::decode(value)?.0),
        key::MEMBERSHIP => Landmark::Membership(Membership::decode(value)?),
        key::LEVEL => {
            let Number(number) = Number::decode(value)?;
            Landmark::Level(
                u16::try_from(number).map(Level::from_raw).map_err(|_| CodecError::Value("level"))?,
            )
        }
        key::BASE => {
            let Base { index, term } = Base::decode(value)?;
            Landmark::Base { index, term }
        }
        _ => return Ok(None),
    };
    Ok(Some(found))
}

/// The row that says that a store began with this entry.
#[must_use]
pub fn base_row(index: u64, term: u64) -> (Bytes, Bytes) {
    (Bytes::from_static(&key::BASE), Base { index, term }.encode().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MetaStore, StoreView};
    use crate::testing::World;

    #[test]
    fn a_store_is_known_by_its_landmarks() {
        let mut world = World::new();
        let index = world.state.applied_index() + 1;
        world.state.set_membership(index, Membership { epoch: 3, members: Vec::new() });
        world.flush();
        let mut found = Vec::new();
        let view: Box<dyn StoreView> = world.store.view();
        view.scan(b"", &mut |key, value| {
            found.extend(landmark(key, value).unwrap());
            true
        });
        let group = Membership { epoch: 3, members: Vec::new() };
        assert_eq!(found, [Landmark::AppliedIndex(index), Landmark::Format, Landmark::Membership(group)]);
    }

    #[test]
    fn a_base_is_read_back_and_another_format_refused() {
        let (key, value) = base_row(300, 7);
        assert_eq!(landmark(&key, &value), Ok(Some(Landmark::Base { index: 300, term: 7 })));
        assert_eq!(landmark(&key, b""), Err(CodecError::Truncated));
        assert_eq!(landmark(&key::FORMAT, &Number(2).encode()), Err(CodecError::Format(2)));
        assert_eq!(landmark(b"i", b""), Ok(None));
    }
}
