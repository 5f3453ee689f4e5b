//! What is asked of a server's labels.

use std::fmt;

use crate::label::{Label, Labels};

/// A condition on the labels of a server. There is one form of each: what joins several of a kind joins at least two, none of
/// which is of the same kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelExpression(Node);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Any,
    Has(Label),
    Not(Box<LabelExpression>),
    All(Vec<LabelExpression>),
    AnyOf(Vec<LabelExpression>),
}

impl LabelExpression {
    /// Any server.
    pub const ANY: Self = Self(Node::Any);

    pub(super) const fn has(label: Label) -> Self {
        Self(Node::Has(label))
    }

    /// The opposite; the opposite of that is the first again.
    pub(super) fn not(of: Self) -> Self {
        match of.0 {
            Node::Not(inner) => *inner,
            other => Self(Node::Not(Box::new(Self(other)))),
        }
    }

    pub(super) fn all(parts: Vec<Self>) -> Self {
        let flat = |part: Self| match part.0 {
            Node::All(inner) => inner,
            other => vec![Self(other)],
        };
        Self::join(parts.into_iter().flat_map(flat).collect(), Node::All)
    }

    pub(super) fn any_of(parts: Vec<Self>) -> Self {
        let flat = |part: Self| match part.0 {
            Node::AnyOf(inner) => inner,
            other => vec![Self(other)],
        };
        Self::join(parts.into_iter().flat_map(flat).collect(), Node::AnyOf)
    }

    fn join(mut parts: Vec<Self>, kind: fn(Vec<Self>) -> Node) -> Self {
        match parts.pop() {
            Some(last) if parts.is_empty() => last,
            Some(last) => {
                parts.push(last);
                Self(kind(parts))
            }
            None => Self::ANY,
        }
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0 == Node::Any
    }

    /// Whether a server with these labels is right.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        match &self.0 {
            Node::Any => true,
            Node::Has(label) => labels.has(label),
            Node::Not(inner) => !inner.matches(labels),
            Node::All(parts) => parts.iter().all(|part| part.matches(labels)),
            Node::AnyOf(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }

    fn is_word(&self) -> bool {
        matches!(&self.0, Node::Has(label) if label.letter().is_none())
    }

    /// Whether a letter after it could be taken for part of its last word.
    pub(super) fn ends_in_word(&self) -> bool {
        match &self.0 {
            Node::Not(inner) => inner.is_word(),
            _ => self.is_word(),
        }
    }

    /// As part of something that binds stronger than "or".
    fn fmt_tight(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.0, Node::AnyOf(_)) { write!(f, "[{self}]") } else { write!(f, "{self}") }
    }
}

impl fmt::Display for LabelExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Node::Any => f.write_str("*"),
            Node::Has(label) => write!(f, "{label}"),
            Node::Not(inner) if matches!(inner.0, Node::All(_)) => write!(f, "![{inner}]"),
            Node::Not(inner) => {
                f.write_str("!")?;
                inner.fmt_tight(f)
            }
            Node::All(parts) => {
                let mut word_before = false;
                for (index, part) in parts.iter().enumerate() {
                    let joined = index > 0 && (word_before || part.is_word());
                    f.write_str(if joined { "&" } else { "" })?;
                    part.fmt_tight(f)?;
                    word_before = part.ends_in_word();
                }
                Ok(())
            }
            Node::AnyOf(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    write!(f, "{}{part}", if index == 0 { "" } else { "+" })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for LabelExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
