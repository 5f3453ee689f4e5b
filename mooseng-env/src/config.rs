//! Configuration files: TOML becomes a struct, or one line that says which file, what is wrong, and what to do about it.
//!
//! What the values mean is checked by whoever has them.

use std::fmt;
use std::path::{Path, PathBuf};

use mooseng_types::level::SUPPORTED;
use mooseng_types::{Level, Levels};
use serde::de::DeserializeOwned;

/// Why a configuration cannot be used; one line. Nobody but a person can do anything about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// `None` for a text that was in no file.
    file: Option<PathBuf>,
    wrong: String,
    remedy: String,
}

impl ConfigError {
    /// `wrong` is what is wrong, `remedy` what to do about it.
    #[must_use]
    pub fn new(wrong: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: None, wrong: wrong.into(), remedy: remedy.into() }
    }

    /// A value that cannot be: its key, and what it would have to be.
    #[must_use]
    pub fn value(key: &str, problem: impl Into<String>) -> Self {
        Self::new(key, problem)
    }

    /// The same, said of `file` unless it names a file already.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        self.file.get_or_insert_with(|| file.to_owned());
        self
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "{}: {}", self.wrong, self.remedy)
    }
}

/// Reads the file at `path` and gives its text to `parse`.
pub fn load<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, ConfigError>) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(error.to_string(), "name a readable file with --config"));
    text.and_then(|text| parse(&text)).map_err(|error| error.in_file(path))
}

/// The struct that a TOML text is; the error names the line.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        let what = error.message().replace('\n', " ");
        ConfigError::new(format!("line {line}: {what}"), "correct it or remove the key")
    })
}

/// The levels of this release up to `level_max`, which a file may name to hold an upgrade back.
pub fn levels(level_max: Option<u16>) -> Result<Levels, ConfigError> {
    let Some(highest) = level_max else { return Ok(SUPPORTED) };
    SUPPORTED
        .up_to(Level::from_raw(highest))
        .ok_or_else(|| ConfigError::value("level_max", format!("this release knows {SUPPORTED}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        copies: u8,
    }

    fn said_of(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part.toml");
        std::fs::write(&path, bytes).unwrap();
        let said = load(&path, parse::<Settings>).unwrap_err().to_string();
        assert!(!said.contains('\n'), "{said}");
        said.strip_prefix(&format!("{}: ", path.display())).expect("the file is named first").to_owned()
    }

    #[test]
    fn a_file_becomes_a_struct() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part.toml");
        std::fs::write(&path, "# two\ncopies = 2\n").unwrap();
        assert_eq!(load(&path, parse::<Settings>).unwrap().copies, 2);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_file_its_line_and_what_to_do() {
        let unknown = said_of(b"copies = 2\n\nkopies = 3");
        assert!(unknown.starts_with("line 3: unknown field `kopies`"), "{unknown}");
        assert!(unknown.ends_with(": correct it or remove the key"), "{unknown}");
        assert!(said_of(b"copies = 'two'").starts_with("line 1: invalid type"));
        assert!(said_of(b"\0\0 = [").starts_with("line 1: "));
        assert!(said_of(b"\xff\xfe").ends_with("UTF-8: name a readable file with --config"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("absent.toml")] {
            let said = load(&path, parse::<Settings>).unwrap_err().to_string();
            assert!(said.starts_with(&format!("{}: ", path.display())), "{said}");
            assert!(said.ends_with("name a readable file with --config"), "{said}");
        }
    }

    #[test]
    fn a_file_inside_a_file_keeps_its_own_name() {
        let inner = ConfigError::value("copies", "give 1 to 9").in_file(Path::new("/inner"));
        let outer = inner.in_file(Path::new("/outer"));
        assert_eq!(outer.to_string(), "/inner: copies: give 1 to 9");
    }

    #[test]
    fn a_part_may_be_held_at_a_lower_level_and_not_below_all_that_it_knows() {
        assert_eq!(levels(None), Ok(SUPPORTED));
        assert_eq!(levels(Some(1)).unwrap().highest(), Level::FIRST);
        assert_eq!(levels(Some(9)), Ok(SUPPORTED));
        assert!(levels(Some(0)).unwrap_err().to_string().contains("level_max"));
    }
}
