//! One thread's load, and what it may rely on: every acknowledged operation, and the one that was in flight at the cut.
//!
//! The journal on the local disk has a line before each operation and a line after its acknowledgement, synced, so that a
//! failed audit can be read afterwards in the order in which things happened.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::random::Random;

/// Bounds what one thread keeps in memory: names times bytes.
const NAMES_MAX: usize = 60;
const FILE_BYTES_MAX: usize = 128 << 10;
const WRITE_BYTES_MAX: u64 = 24 << 10;

/// An operation of the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    Create { name: String, bytes: Vec<u8> },
    Append { name: String, bytes: Vec<u8> },
    Overwrite { name: String, offset: usize, bytes: Vec<u8> },
    Rename { from: String, to: String },
}

/// What a thread did in a directory of its own.
pub(super) struct Journal {
    pub(super) place: PathBuf,
    /// Names and contents that were acknowledged.
    pub(super) known: BTreeMap<String, Vec<u8>>,
    /// Begun, and not acknowledged.
    pub(super) in_flight: Option<Operation>,
    pub(super) acknowledged: u64,
    log: File,
    random: Random,
    next_name: u64,
}

impl Journal {
    pub(super) fn new(place: PathBuf, log: &Path, seed: u64) -> io::Result<Journal> {
        fs::create_dir_all(&place)?;
        let log = File::create(log)?;
        let random = Random::seeded(seed);
        Ok(Journal {
            place,
            known: BTreeMap::new(),
            in_flight: None,
            acknowledged: 0,
            log,
            random,
            next_name: 0,
        })
    }

    /// Does one more operation; an error leaves it in flight.
    pub(super) fn step(&mut self) -> io::Result<()> {
        let operation = self.choose();
        writeln!(self.log, "begin {}", summary(&operation))?;
        self.in_flight = Some(operation.clone());
        perform(&self.place, &operation)?;
        self.acknowledge(&operation);
        self.in_flight = None;
        self.acknowledged += 1;
        writeln!(self.log, "done {}", self.acknowledged)?;
        self.log.sync_data()
    }

    fn choose(&mut self) -> Operation {
        let names: Vec<String> = self.known.keys().cloned().collect();
        let kind = self.random.below(10);
        let picked = names.get(self.random.index(names.len())).cloned();
        let length = 1 + self.random.index(usize::try_from(WRITE_BYTES_MAX).unwrap_or(1));
        match picked {
            Some(name) if kind < 3 && self.length_of(&name) + length <= FILE_BYTES_MAX => {
                Operation::Append { name, bytes: self.random.bytes(length) }
            }
            Some(name) if kind < 6 && self.length_of(&name) > 0 => {
                let have = self.length_of(&name);
                let offset = self.random.index(have);
                Operation::Overwrite { name, offset, bytes: self.random.bytes(length.min(have - offset)) }
            }
            Some(from) if kind < 7 || names.len() >= NAMES_MAX => {
                Operation::Rename { from, to: self.fresh_name("moved") }
            }
            _ => Operation::Create { name: self.fresh_name("file"), bytes: self.random.bytes(length) },
        }
    }

    fn length_of(&self, name: &str) -> usize {
        self.known.get(name).map_or(0, Vec::len)
    }

    fn fresh_name(&mut self, stem: &str) -> String {
        self.next_name += 1;
        format!("{stem}-{:06}", self.next_name)
    }

    fn acknowledge(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { name, bytes } => {
                self.known.insert(name.clone(), bytes.clone());
            }
            Operation::Append { name, bytes } => {
                self.known.entry(name.clone()).or_default().extend_from_slice(bytes)
            }
            Operation::Overwrite { name, offset, bytes } => {
                let have = self.known.entry(name.clone()).or_default();
                for (old, new) in have.iter_mut().skip(*offset).zip(bytes) {
                    *old = *new;
                }
            }
            Operation::Rename { from, to } => {
                let bytes = self.known.remove(from).unwrap_or_default();
                self.known.insert(to.clone(), bytes);
            }
        }
    }

    /// Compares the directory with what was acknowledged; answers what is wrong. Afterwards the file that was in flight is
    /// removed and forgotten, so that the journal can go on.
    pub(super) fn audit(&mut self) -> io::Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.place)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match fs::read(entry.path()) {
                Ok(bytes) => {
                    found.insert(name, bytes);
                }
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
        }
        wrong.extend(self.compare(&found));
        if let Some(operation) = self.in_flight.take() {
            let names = match operation {
                Operation::Create { name, .. }
                | Operation::Append { name, .. }
                | Operation::Overwrite { name, .. } => vec![name],
                Operation::Rename { from, to } => vec![from, to],
            };
            for name in names {
                self.known.remove(&name);
                if found.contains_key(&name) {
                    fs::remove_file(self.place.join(&name))?;
                }
            }
        }
        Ok(wrong)
    }

    fn compare(&self, found: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
        let mut wrong = Vec::new();
        let touched = |name: &str| match &self.in_flight {
            Some(
                Operation::Create { name: n, .. }
                | Operation::Append { name: n, .. }
                | Operation::Overwrite { name: n, .. },
            ) => n == name,
            Some(Operation::Rename { from, to }) => from == name || to == name,
            None => false,
        };
        for (name, bytes) in self.known.iter().filter(|(name, _)| !touched(name)) {
            match found.get(name) {
                None => wrong.push(format!("{name}: acknowledged, {} bytes, and gone", bytes.len())),
                Some(have) => wrong.extend(difference(bytes, have).map(|text| format!("{name}: {text}"))),
            }
        }
        for name in found.keys().filter(|name| !touched(name) && !self.known.contains_key(*name)) {
            wrong.push(format!("{name}: nobody made it, or it was renamed away"));
        }
        wrong.extend(self.compare_in_flight(found));
        wrong
    }

    /// The operation that nobody answered may have happened, wholly, partly or not at all; it must not have harmed anything.
    fn compare_in_flight(&self, found: &BTreeMap<String, Vec<u8>>) -> Option<String> {
        let old_or_new = |name: &str, old: &[u8], new: &[u8]| {
            let Some(have) = found.get(name) else {
                return Some(format!("{name}: gone in the middle of a write"));
            };
            mixture(old, new, have).map(|text| format!("{name} (in flight): {text}"))
        };
        match self.in_flight.as_ref()? {
            Operation::Create { name, bytes } if found.contains_key(name) => old_or_new(name, &[], bytes),
            Operation::Create { .. } => None,
            Operation::Append { name, bytes } => {
                let old = self.known.get(name)?;
                old_or_new(name, old, &[old.as_slice(), bytes].concat())
            }
            Operation::Overwrite { name, offset, bytes } => {
                let old = self.known.get(name)?;
                let mut new = old.clone();
                for (byte, fresh) in new.iter_mut().skip(*offset).zip(bytes) {
                    *byte = *fresh;
                }
                old_or_new(name, old, &new)
            }
            Operation::Rename { from, to } => match (found.get(from), found.get(to)) {
                (Some(_), Some(_)) => Some(format!("both {from} and {to} are there")),
                (None, None) => Some(format!("neither {from} nor {to} is there")),
                (Some(have), None) | (None, Some(have)) => {
                    difference(self.known.get(from)?, have).map(|text| format!("{from} or {to}: {text}"))
                }
            },
        }
    }
}

fn perform(place: &Path, operation: &Operation) -> io::Result<()> {
    match operation {
        Operation::Create { name, bytes } => {
            let mut file = File::options().create_new(true).write(true).open(place.join(name))?;
            file.write_all(bytes)?;
            file.sync_all()
        }
        Operation::Append { name, bytes } => {
            let mut file = File::options().append(true).open(place.join(name))?;
            file.write_all(bytes)?;
            file.sync_all()
        }
        Operation::Overwrite { name, offset, bytes } => {
            let mut file = File::options().write(true).open(place.join(name))?;
            file.seek(SeekFrom::Start(*offset as u64))?;
            file.write_all(bytes)?;
            file.sync_data()
        }
        Operation::Rename { from, to } => fs::rename(place.join(from), place.join(to)),
    }
}

fn summary(operation: &Operation) -> String {
    match operation {
        Operation::Create { name, bytes } => format!("create {name} {}", bytes.len()),
        Operation::Append { name, bytes } => format!("append {name} {}", bytes.len()),
        Operation::Overwrite { name, offset, bytes } => format!("overwrite {name} {offset}+{}", bytes.len()),
        Operation::Rename { from, to } => format!("rename {from} {to}"),
    }
}

fn difference(expected: &[u8], have: &[u8]) -> Option<String> {
    if expected.len() != have.len() {
        return Some(format!("{} bytes acknowledged, {} there", expected.len(), have.len()));
    }
    let at = expected.iter().zip(have).position(|(a, b)| a != b)?;
    Some(format!("byte {at} of {} is not what was acknowledged", expected.len()))
}

/// Whether each byte is the old or the new one, and the length between the two. A byte past the old end may also be zero:
/// the length arrived before the data.
fn mixture(old: &[u8], new: &[u8], have: &[u8]) -> Option<String> {
    if have.len() < old.len() || have.len() > new.len() {
        return Some(format!("{} bytes, neither {} nor {}", have.len(), old.len(), new.len()));
    }
    let wrong = have.iter().enumerate().find(|(at, byte)| {
        let before = old.get(*at).copied().unwrap_or(0);
        **byte != before && Some(*byte) != new.get(*at)
    });
    wrong.map(|(at, _)| format!("byte {at} is neither old nor new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(steps: usize) -> (tempfile::TempDir, Journal) {
        let scratch = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(scratch.path().join("work"), &scratch.path().join("log"), 3).unwrap();
        for _ in 0..steps {
            journal.step().unwrap();
        }
        (scratch, journal)
    }

    #[test]
    fn a_faithful_file_system_passes_the_audit() {
        let (_scratch, mut journal) = loaded(300);
        assert_eq!(journal.audit().unwrap(), Vec::<String>::new());
        assert!(journal.known.len() > 10 && journal.known.len() <= NAMES_MAX + 1);
    }

    #[test]
    fn each_kind_of_loss_is_seen() {
        let harms: [fn(&Path); 4] = [
            |path| fs::remove_file(path).unwrap(),
            |path| fs::write(path, "").unwrap(),
            |path| {
                let mut bytes = fs::read(path).unwrap();
                bytes[0] ^= 1;
                fs::write(path, bytes).unwrap();
            },
            |path| fs::rename(path, path.with_extension("back")).unwrap(),
        ];
        for harm in harms {
            let (_scratch, mut journal) = loaded(50);
            let victim = journal.known.iter().find(|(_, bytes)| !bytes.is_empty()).unwrap().0.clone();
            harm(&journal.place.join(victim));
            assert!(!journal.audit().unwrap().is_empty());
        }
    }

    #[test]
    fn an_operation_in_flight_may_be_old_or_new_but_not_something_else() {
        let (_scratch, mut journal) = loaded(50);
        let (name, old) = journal
            .known
            .iter()
            .find(|(_, bytes)| bytes.len() > 10)
            .map(|(n, b)| (n.clone(), b.clone()))
            .unwrap();
        let path = journal.place.join(&name);
        for (content, fine) in
            [(vec![], true), (b"NEW".to_vec(), true), (b"\0EW".to_vec(), true), (b"BAD".to_vec(), false)]
        {
            journal.known.insert(name.clone(), old.clone());
            journal.in_flight = Some(Operation::Append { name: name.clone(), bytes: b"NEW".to_vec() });
            fs::write(&path, [old.as_slice(), &content].concat()).unwrap();
            assert_eq!(journal.audit().unwrap().is_empty(), fine, "{content:?}");
        }
    }

    #[test]
    fn a_rename_in_flight_has_exactly_one_of_its_names() {
        let (_scratch, mut journal) = loaded(50);
        let from = journal.known.keys().next().unwrap().clone();
        journal.in_flight = Some(Operation::Rename { from: from.clone(), to: "to".to_owned() });
        fs::copy(journal.place.join(&from), journal.place.join("to")).unwrap();
        assert_eq!(journal.audit().unwrap().len(), 1);
    }
}
