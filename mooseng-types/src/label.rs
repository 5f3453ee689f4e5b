//! Labels: what an administrator calls a chunkserver by, so that storage classes can ask for it.

use std::collections::BTreeSet;
use std::fmt;

/// Labels of one server.
pub const LABELS_MAX: usize = 32;

/// One capital letter, as in MooseFS (`A`), or a word (`ssd`, `rack-friendly`): a small letter, then small letters, digits, `-`
/// and `_`, at most [`Label::LENGTH_MAX`] bytes, the last of them a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<str>);

/// Why a text is no label, or no list of them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Neither a capital letter nor a word.
    #[error(
        "{0:?} is no label: give one capital letter, or a word of small letters, digits, - and _ (at most 32)"
    )]
    Form(String),
    /// More than [`LABELS_MAX`].
    #[error("{0} labels: a server has at most 32")]
    TooMany(usize),
}

impl Label {
    /// Bytes of a word.
    pub const LENGTH_MAX: usize = 32;

    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// [`LabelError::Form`] if it is no label.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        let bytes = text.as_bytes();
        let is_good = match bytes {
            [b'A'..=b'Z'] => true,
            [b'a'..=b'z', .., last] => {
                bytes.iter().all(|b| Self::may_hold(*b)) && last.is_ascii_alphanumeric()
            }
            [b'a'..=b'z'] => true,
            _ => false,
        };
        if is_good && bytes.len() <= Self::LENGTH_MAX {
            Ok(Self(text.into()))
        } else {
            Err(LabelError::Form(text.chars().take(Self::LENGTH_MAX + 1).collect()))
        }
    }

    /// Whether a word may hold the byte.
    pub(crate) const fn may_hold(byte: u8) -> bool {
        matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')
    }

    /// The letter or the word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The capital letter that it is, if it is no word.
    #[must_use]
    pub fn letter(&self) -> Option<u8> {
        self.0.bytes().next().filter(u8::is_ascii_uppercase)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The labels of a server, each once, in their order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Labels(BTreeSet<Label>);

impl Labels {
    /// Checks a list of labels; one that comes twice counts once.
    ///
    /// # Errors
    ///
    /// [`LabelError`] if one of them is none, or if there are more than [`LABELS_MAX`].
    pub fn parse<T: AsRef<str>>(labels: &[T]) -> Result<Self, LabelError> {
        if labels.len() > LABELS_MAX {
            return Err(LabelError::TooMany(labels.len()));
        }
        labels.iter().map(|label| Label::parse(label.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the label is among them.
    #[must_use]
    pub fn has(&self, label: &Label) -> bool {
        self.0.contains(label)
    }

    /// Each of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Label> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            fmt::Display::fmt(label, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_capital_letter_or_a_word() {
        for good in ["A", "Z", "a", "ssd", "rack-friendly", "x_9", &"x".repeat(32)] {
            assert_eq!(Label::parse(good).map(|label| label.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "AB", "Ssd", "9x", "-x", "x-", "x_", "x y", "é", "*", &"x".repeat(33)] {
            assert!(matches!(Label::parse(bad), Err(LabelError::Form(_))), "{bad}");
        }
        assert_eq!(Label::parse("B").unwrap().letter(), Some(b'B'));
        assert_eq!(Label::parse("b").unwrap().letter(), None);
    }

    #[test]
    fn labels_count_once_and_are_bounded() {
        let labels = Labels::parse(&["ssd", "A", "ssd"]).unwrap();
        assert_eq!((labels.to_string().as_str(), labels.iter().len()), ("A,ssd", 2));
        assert!(labels.has(&Label::parse("A").unwrap()) && !labels.has(&Label::parse("B").unwrap()));
        assert_eq!(Labels::parse(&["A"; 33]), Err(LabelError::TooMany(33)));
        assert!(Labels::parse(&["A", "b c"]).is_err());
    }
}
