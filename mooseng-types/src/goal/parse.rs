//! Reads goals. The grammar is at the head of [`goal`](super).

use std::collections::BTreeSet;

use super::error::{GoalError, GoalProblem};
use super::{COPIES_MAX, Distinguish, Goal, LabelExpression, NESTING_MAX, Strictness};
use crate::label::Label;
use crate::part::Part;

/// A whole goal.
pub(super) fn goal(text: &str) -> Result<Goal, GoalError> {
    let mut parser = Parser { text, at: 0 };
    let code = if parser.takes(b'@') { Some(parser.code()?) } else { None };
    let copies = match code {
        // What follows a code says where its parts go: it has to be well formed all the same.
        Some(_) if !parser.takes(b',') => Vec::new(),
        _ => parser.copies()?,
    };
    let distinguish = if parser.takes(b'/') { Some(parser.distinguish()?) } else { None };
    let strictness = if parser.takes(b':') { Some(parser.strictness()?) } else { None };
    if parser.peek().is_some() {
        return Err(parser.expected(match (&distinguish, &strictness) {
            (None, None) => "a label, or one of & + , / :",
            (Some(_), None) => ": or the end",
            (_, Some(_)) => "the end",
        }));
    }
    match code {
        Some(code) => Err(GoalError::at(0, code)),
        None => Ok(Goal { copies, distinguish, strictness }),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        self.at += self.rest().bytes().take_while(|b| *b == b' ').count();
        self.rest().bytes().next()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expected(&self, expected: &'static str) -> GoalError {
        GoalError::at(self.at, GoalProblem::Expected { expected, found: self.rest().chars().next() })
    }

    /// What fits, from here on.
    fn run(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().take_while(|b| fits(*b)).count();
        self.at += length;
        rest.get(..length).unwrap_or("")
    }

    /// A number from 1 to `most`.
    fn number(&mut self, most: u8, too_many: &GoalProblem) -> Result<u8, GoalError> {
        self.peek();
        let at = self.at;
        let digits = self.run(|b| b.is_ascii_digit());
        if digits.is_empty() {
            return Err(self.expected("a number"));
        }
        match digits.parse() {
            Ok(0) => Err(self.back_to(at).expected("a number above 0")),
            Ok(number) if number <= most => Ok(number),
            _ => Err(GoalError::at(at, too_many.clone())),
        }
    }

    fn back_to(&mut self, at: usize) -> &Self {
        self.at = at;
        self
    }

    /// What follows an `@`: `8+2`, or the parity alone.
    fn code(&mut self) -> Result<GoalProblem, GoalError> {
        let many = |expected| GoalProblem::Expected { expected, found: None };
        let first = self.number(Part::DATA_MAX, &many("at most 32 data parts"))?;
        let few = many("at most 16 parity parts");
        if self.takes(b'+') {
            let parity = self.number(Part::PARITY_MAX, &few)?;
            return Ok(GoalProblem::ErasureCoding { data: Some(first), parity });
        }
        if first > Part::PARITY_MAX {
            return Err(GoalError::at(self.at, few));
        }
        Ok(GoalProblem::ErasureCoding { data: None, parity: first })
    }

    fn copies(&mut self) -> Result<Vec<LabelExpression>, GoalError> {
        let mut copies = Vec::new();
        loop {
            self.peek();
            let at = self.at;
            let count = match self.peek() {
                Some(b'0'..=b'9') => usize::from(self.number(COPIES_MAX as u8, &GoalProblem::TooManyCopies)?),
                _ => 0,
            };
            let servers = match self.peek() {
                Some(b'*') => {
                    self.at += 1;
                    LabelExpression::ANY
                }
                None | Some(b',' | b'/' | b':') if count > 0 => LabelExpression::ANY,
                _ => self.any(0)?,
            };
            copies.extend(std::iter::repeat_n(servers, count.max(1)));
            if copies.len() > COPIES_MAX {
                return Err(GoalError::at(at, GoalProblem::TooManyCopies));
            }
            if !self.takes(b',') {
                return Ok(copies);
            }
        }
    }

    fn any(&mut self, depth: usize) -> Result<LabelExpression, GoalError> {
        let mut parts = vec![self.all(depth)?];
        while self.takes(b'+') {
            parts.push(self.all(depth)?);
        }
        Ok(LabelExpression::any_of(parts))
    }

    fn all(&mut self, depth: usize) -> Result<LabelExpression, GoalError> {
        let mut parts = vec![self.term(depth)?];
        loop {
            // `ssdA` and `Assd` could be one label, mistyped.
            let after_word = parts.last().is_some_and(LabelExpression::ends_in_word);
            match self.peek() {
                Some(b'&') => self.at += 1,
                Some(b'A'..=b'Z') if !after_word => {}
                Some(b'A'..=b'Z' | b'a'..=b'z') => {
                    return Err(self.expected("& between a word and another label"));
                }
                Some(b'!' | b'[' | b'(') => {}
                _ => return Ok(LabelExpression::all(parts)),
            }
            parts.push(self.term(depth)?);
        }
    }

    fn term(&mut self, depth: usize) -> Result<LabelExpression, GoalError> {
        const TERM: &str = "a label, ! or [";
        let closing = match self.peek() {
            Some(b'!') => None,
            Some(b'[') => Some((b']', "]")),
            Some(b'(') => Some((b')', ")")),
            _ => return self.label(TERM).map(LabelExpression::has),
        };
        if depth == NESTING_MAX {
            return Err(GoalError::at(self.at, GoalProblem::TooDeep));
        }
        self.at += 1;
        let Some((closing, name)) = closing else { return self.term(depth + 1).map(LabelExpression::not) };
        let inner = self.any(depth + 1)?;
        if self.takes(closing) { Ok(inner) } else { Err(self.expected(name)) }
    }

    fn label(&mut self, expected: &'static str) -> Result<Label, GoalError> {
        self.peek();
        let at = self.at;
        let text = match self.peek() {
            Some(b'A'..=b'Z') => {
                self.at += 1;
                self.text.get(at..=at).unwrap_or("")
            }
            Some(b'a'..=b'z') => self.run(Label::may_hold),
            _ => return Err(self.expected(expected)),
        };
        Label::parse(text).map_err(|_| GoalError::at(at, GoalProblem::Label))
    }

    fn distinguish(&mut self) -> Result<Distinguish, GoalError> {
        if self.takes(b'[') {
            let at = self.at;
            let found = match self.run(|b| b.is_ascii_uppercase()) {
                "IP" | "I" => Distinguish::Host,
                "RACK" | "R" => Distinguish::Rack,
                "REGION" => Distinguish::Region,
                _ => return Err(self.back_to(at).expected("IP, RACK or REGION")),
            };
            return if self.takes(b']') { Ok(found) } else { Err(self.expected("]")) };
        }
        let mut labels = BTreeSet::new();
        loop {
            let is_word = self.item(&mut labels)?;
            match self.peek() {
                Some(b'+') => self.at += 1,
                Some(b'A'..=b'Z') if !is_word => {}
                None | Some(b':') => return Ok(Distinguish::Labels(labels)),
                Some(_) => return Err(self.expected("a capital letter, + or :")),
            }
        }
    }

    /// A label, or a range of letters; whether it was a word.
    fn item(&mut self, labels: &mut BTreeSet<Label>) -> Result<bool, GoalError> {
        let first = self.label("[ or a label")?;
        let letter = first.letter();
        let Some(from) = letter.filter(|_| self.takes(b'-')) else {
            labels.insert(first);
            return Ok(letter.is_none());
        };
        self.peek();
        let at = self.at;
        let to = self.label("a capital letter")?.letter().filter(|to| *to >= from);
        let to = to.ok_or(GoalError::at(at, GoalProblem::Range))?;
        labels.extend((from..=to).filter_map(|letter| Label::parse(&char::from(letter).to_string()).ok()));
        Ok(false)
    }

    fn strictness(&mut self) -> Result<Strictness, GoalError> {
        self.peek();
        let at = self.at;
        let name = self.run(|b| b.is_ascii_lowercase());
        Strictness::parse(name).ok_or_else(|| self.back_to(at).expected("loose, std or strict"))
    }
}
