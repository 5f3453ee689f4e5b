//! What is found on a disk at start: copies whose sidecar can be believed, fetched ones that a crash has kept from their place, and
//! what is neither.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mooseng_env::disk::OpenMode;
use mooseng_types::Part;

use super::disk::ChunkDisk;
use super::name::Stem;
use super::sidecar::{HEADER_SIZE, Header};

/// What a sidecar says of its copy.
pub(super) struct Found {
    pub(super) part: Part,
    pub(super) header: Header,
}

/// The files of a copy that was put together out of sight.
struct Fetched {
    part: Part,
    data: PathBuf,
    meta: PathBuf,
}

/// Ends what a crash has left half-way, and looks through the directories: the copies whose header can be believed. All others are moved
/// aside.
pub(super) fn look_through(disk: &ChunkDisk) -> io::Result<Vec<Found>> {
    finish_placing(disk)?;
    for left in disk.list_incoming()? {
        disk.disk.remove(&left)?;
    }
    disk.measure()?;
    let mut found = Vec::new();
    for low in 0..=255u8 {
        let directory = disk.root().join(format!("{low:02x}"));
        // In order, so that a start does the same things each time.
        let mut names: BTreeMap<Part, (bool, bool)> = BTreeMap::new();
        for path in disk.disk.list(&directory)? {
            let Some((part, is_data)) = name_of(&path, low) else {
                tracing::warn!(path = %path.display(), "a file that does not belong here is left alone");
                continue;
            };
            let seen = names.entry(part).or_default();
            *(if is_data { &mut seen.0 } else { &mut seen.1 }) = true;
        }
        if !names.is_empty() {
            // A process that was killed may have left names that the disk does not have yet.
            disk.disk.sync_dir(&directory)?;
        }
        for (part, seen) in names {
            let header = match seen {
                (true, true) => believe(disk, part)?,
                (true, false) => Err("the sidecar is missing".into()),
                _ => Err("the data file is missing".into()),
            };
            match header {
                Ok(header) => found.push(Found { part, header }),
                Err(_) if seen.0 && never_written(disk, part)? => remove_unmade(disk, part)?,
                Err(why) => disk.move_aside(part, &why),
            }
        }
    }
    Ok(found)
}

/// Gives fetched copies their place that a crash has kept from it: they are whole, and the sidecar of the copy that they
/// replace is gone already.
fn finish_placing(disk: &ChunkDisk) -> io::Result<()> {
    for fetched in incoming_sidecars(disk)? {
        let Ok(file) = disk.disk.open(&fetched.meta, OpenMode::Read) else { continue };
        let Ok(header) = disk.read_header(fetched.part, &*file)? else { continue };
        let length = |path: &Path| match disk.disk.open(path, OpenMode::Read) {
            Ok(file) => file.len().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let (data, meta) = (disk.data_path(fetched.part), disk.meta_path(fetched.part));
        if length(&meta)?.is_some() {
            continue;
        }
        let whole = Some(u64::from(header.length));
        match length(&fetched.data)? {
            found if found.is_some() && found == whole => disk.disk.rename(&fetched.data, &data)?,
            None if length(&data)? == whole => {}
            _ => continue,
        }
        disk.disk.rename(&fetched.meta, &meta)?;
        disk.disk.sync_dir(&disk.directory(fetched.part))?;
        disk.forget_broken(fetched.part);
        tracing::info!(copy = %fetched.part, disk = %disk.root().display(), "a fetched copy gets its place");
    }
    Ok(())
}

/// Fetched copies that had their sidecar when the process stopped.
fn incoming_sidecars(disk: &ChunkDisk) -> io::Result<Vec<Fetched>> {
    let fetched = |meta: &PathBuf| {
        let (part, rest) = Stem::split(meta.file_name()?.to_str()?)?;
        let number = rest.strip_suffix(".meta")?.parse().ok()?;
        let data = disk.incoming_path(part, number, "data");
        Some(Fetched { part, data, meta: meta.clone() })
    };
    Ok(disk.list_incoming()?.iter().filter_map(fetched).collect())
}

/// The header of a copy, or why it cannot be believed.
fn believe(disk: &ChunkDisk, part: Part) -> io::Result<Result<Header, String>> {
    let file = disk.disk.open(&disk.meta_path(part), OpenMode::Read)?;
    disk.read_header(part, &*file)
}

/// Whether a data file without a sidecar to believe is what is left of the making of a copy: bytes come into it only
/// when both are durable. A sidecar that was written once and is damaged now says nothing of the kind: the bytes may have
/// gone with the power.
fn never_written(disk: &ChunkDisk, part: Part) -> io::Result<bool> {
    let mut sector = [0; HEADER_SIZE];
    match disk.disk.open(&disk.meta_path(part), OpenMode::Read) {
        Ok(meta) => drop(meta.read_at(&mut sector, 0)?),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    Ok(sector == [0; HEADER_SIZE] && disk.disk.open(&disk.data_path(part), OpenMode::Read)?.is_empty()?)
}

fn remove_unmade(disk: &ChunkDisk, part: Part) -> io::Result<()> {
    tracing::info!(copy = %part, disk = %disk.root().display(), "a copy that was never made is removed");
    disk.remove_if_there(&disk.meta_path(part))?;
    disk.remove_if_there(&disk.data_path(part))
}

/// Whose file this is, in the directory of `low`, and whether its data (or its sidecar).
fn name_of(path: &Path, low: u8) -> Option<(Part, bool)> {
    let (part, extension) = Stem::split(path.file_name()?.to_str()?)?;
    let is_data = match extension {
        "data" => true,
        "meta" => false,
        _ => return None,
    };
    (part.chunk().raw() & 0xff == u64::from(low)).then_some((part, is_data))
}
