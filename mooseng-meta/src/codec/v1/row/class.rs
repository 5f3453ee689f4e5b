//! Rows of storage classes, and what rows and commands have of servers. Goals are kept as the text that people read: its grammar only grows, and what is written is the one
//! form in which a goal is shown.

use bytes::Bytes;
use mooseng_types::{ClassName, DESCRIPTION_MAX, Goal, Label, Labels, StorageClass, Strictness};

use super::{FORMAT, RowValue, open};
use crate::codec::{CodecError, Reader, Writer};
use crate::server::{ServerMode, ServerPlace};

/// Numbers of the ways to take labels; never used again for another.
const STRICTNESS: [(Strictness, u8); 3] =
    [(Strictness::Loose, 0), (Strictness::Standard, 1), (Strictness::Strict, 2)];

impl Writer {
    fn goal(&mut self, goal: &Goal) {
        self.bytes(goal.to_string().as_bytes());
    }

    /// A class in a row or a command.
    pub(crate) fn class(&mut self, class: &StorageClass) {
        self.bytes(class.name.as_str().as_bytes());
        self.goal(&class.keep);
        for goal in [&class.create, &class.archive, &class.trash] {
            self.option(goal.as_ref(), Self::goal);
        }
        self.var(class.archive_delay_s.into());
        self.var(class.archive_length_min_bytes);
        self.var(class.trash_retention_min_s.into());
        let number = STRICTNESS.iter().find(|(strictness, _)| *strictness == class.strictness);
        self.u8(number.map_or(1, |(_, number)| *number));
        self.u8(class.priority);
        self.bytes(class.description.as_bytes());
    }

    /// A server's place in a row or a command.
    pub(crate) fn place(&mut self, place: &ServerPlace) {
        self.var(place.labels.iter().len() as u64);
        place.labels.iter().for_each(|label| self.bytes(label.as_str().as_bytes()));
        self.bytes(place.region.as_bytes());
        self.bytes(place.rack.as_bytes());
    }

    /// A server's mode in a row or a command.
    pub(crate) fn mode(&mut self, mode: ServerMode) {
        match mode {
            ServerMode::Normal => self.u8(0),
            ServerMode::Draining => self.u8(1),
            ServerMode::Maintenance { until } => {
                self.u8(2);
                self.time(until);
            }
        }
    }
}

impl Reader<'_> {
    fn goal(&mut self) -> Result<Goal, CodecError> {
        let text = self.text()?;
        let goal = text.parse::<Goal>().ok().filter(|goal| goal.to_string() == text);
        goal.ok_or(CodecError::Value("goal"))
    }

    pub(crate) fn class(&mut self) -> Result<StorageClass, CodecError> {
        let name = ClassName::parse(&self.text()?).map_err(|_| CodecError::Value("class name"))?;
        let class = StorageClass {
            name,
            keep: self.goal()?,
            create: self.option(Self::goal)?,
            archive: self.option(Self::goal)?,
            trash: self.option(Self::goal)?,
            archive_delay_s: self.narrow()?,
            archive_length_min_bytes: self.var()?,
            trash_retention_min_s: self.narrow()?,
            strictness: self.strictness()?,
            priority: self.u8()?,
            description: self.text()?,
        };
        if class.description.len() > DESCRIPTION_MAX {
            return Err(CodecError::Value("description"));
        }
        Ok(class)
    }

    fn strictness(&mut self) -> Result<Strictness, CodecError> {
        let number = self.u8()?;
        let found = STRICTNESS.iter().find(|(_, known)| *known == number);
        found.map(|(strictness, _)| *strictness).ok_or(CodecError::Value("strictness"))
    }

    pub(crate) fn place(&mut self) -> Result<ServerPlace, CodecError> {
        let labels = self.list(|r| Label::parse(&r.text()?).map_err(|_| CodecError::Value("label")))?;
        // Of a set there is one form.
        if !labels.is_sorted_by(|one, next| one < next) {
            return Err(CodecError::Value("order of labels"));
        }
        let labels: Vec<&str> = labels.iter().map(Label::as_str).collect();
        let labels = Labels::parse(&labels).map_err(|_| CodecError::Value("labels"))?;
        Ok(ServerPlace { labels, region: self.text()?, rack: self.text()? })
    }

    pub(crate) fn mode(&mut self) -> Result<ServerMode, CodecError> {
        match self.u8()? {
            0 => Ok(ServerMode::Normal),
            1 => Ok(ServerMode::Draining),
            2 => Ok(ServerMode::Maintenance { until: self.time()? }),
            _ => Err(CodecError::Value("mode of a server")),
        }
    }
}

/// A row of a class as it is stored.
pub(crate) fn encode(class: &StorageClass) -> Bytes {
    let mut w = Writer::new(FORMAT, 64);
    w.class(class);
    w.finish().into()
}

impl RowValue for StorageClass {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = open(bytes)?;
        let class = r.class()?;
        r.finish(class)
    }
}
