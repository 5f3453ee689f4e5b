//! Opens a master's data directory: whose it is, its store, its log; and sets damaged ones aside.
//!
//! ```text
//! DATA/cluster.id       the cluster and this master's id: its number, and the life that this directory is
//! DATA/log/             the Raft log
//! DATA/store*           the namespace's rows
//! DATA/cell-XXXX/       the stores of the group of another cell than the root's
//! DATA/out-of-service   why this master must not be started again, if so
//! DATA/lost-log         why this master must begin anew at the next start, if so
//! DATA/damaged-N/       what an earlier life has left behind, for people to look at
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use mooseng_env::{Disk, Entropy, FsDisk};
use mooseng_meta::MetaState;
use mooseng_types::{CellId, ClusterId, Levels, MasterId};

use crate::cache_config::CacheConfig;
use crate::cache_enhanced::RowCache;
use crate::config::Config;
use crate::group::level_needed;
use crate::raft::Recovered;
use crate::raft::log::{LogOpenError, LogOptions, Segments};
use crate::store::{FjallStore, StorePlace};

/// Bytes of a log segment: some seconds of full load.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
const OUT_OF_SERVICE: &str = "out-of-service";
const LOST_LOG: &str = "lost-log";
const CLUSTER_ID: &str = "cluster.id";
const ASIDE: &str = "damaged-";

/// What a master has on its disk.
pub(crate) struct Opened {
    pub(crate) id: MasterId,
    /// The root's group, and what the log holds of it.
    pub(crate) root: (MetaState, Recovered),
    /// Those of other cells.
    pub(crate) others: Vec<(MetaState, Recovered)>,
    pub(crate) segments: Segments,
    pub(crate) place: StorePlace,
    /// Before all stores.
    pub(crate) cache: RowCache,
    /// An earlier life of this directory was set aside.
    pub(crate) lost_group: bool,
}

/// Opens the directory of `config`, which is locked for this process. A log that has lost what it had promised is set
/// aside if there are other masters that may have it: this one comes back as a new one.
pub(crate) fn open(config: &Config, entropy: &dyn Entropy) -> anyhow::Result<Opened> {
    let data = &config.data;
    refuse_if_out_of_service(data)?;
    if data
        .join(LOST_LOG)
        .try_exists()
        .with_context(|| format!("look for {LOST_LOG} in {}", data.display()))?
    {
        begin_anew(data).context("set a log aside that lacks what was acknowledged")?;
    }
    match try_open(config, entropy) {
        Err(error) if config.peers.len() > 1 && is_damage(&error) => {
            let aside = set_aside(data).context("set a damaged log and its store aside")?;
            tracing::error!(
                error = format!("{error:#}"),
                aside = %aside.display(),
                "the log is damaged; this master forgets what it had and asks the others for it"
            );
            try_open(config, entropy)
        }
        other => other,
    }
}

/// Opens the directory of `config` as [`open`] does, and sets nothing aside: damage is an error.
pub(crate) fn open_undamaged(config: &Config, entropy: &dyn Entropy) -> anyhow::Result<Opened> {
    refuse_if_out_of_service(&config.data)?;
    try_open(config, entropy)
}

fn is_damage(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(LogOpenError::Damaged { .. } | LogOpenError::Missing(_) | LogOpenError::Format { .. })
    )
}

fn try_open(config: &Config, entropy: &dyn Entropy) -> anyhow::Result<Opened> {
    let data = &config.data;
    let id = identity(data, config.cluster, config.number, entropy)?;
    std::fs::create_dir_all(data.join("log"))
        .with_context(|| format!("make {}", data.join("log").display()))?;
    // A process that was killed may have left names that the disk does not have yet, and what follows builds on them.
    FsDisk.sync_dir(data).with_context(|| format!("sync {}", data.display()))?;
    let options = LogOptions {
        dir: data.join("log"),
        segment_bytes: SEGMENT_BYTES,
        cluster: config.cluster,
        master: id,
    };
    let place = StorePlace::new(data);
    let cache = RowCache::new(CacheConfig::new(config.cache_bytes));
    let state = open_store(&cache, &place, CellId::ROOT)?;
    let (mut segments, mut recovered) = Segments::open(Arc::new(FsDisk), options)?;
    let root = brought_together(data, config.levels, state, &mut segments, &mut recovered)?;
    let mut others = Vec::new();
    for cell in (1..config.cells).map(CellId::from_raw) {
        let state = open_store(&cache, &place.of(cell), cell)?;
        others.push(brought_together(data, config.levels, state, &mut segments, &mut recovered)?);
    }
    if let Some(cell) = recovered.into_keys().next() {
        bail!(
            "the log in {} has entries of {cell}, which `cells` does not reach: raise it again",
            data.display()
        );
    }
    let lost_group = has_set_aside(data).with_context(|| format!("list {}", data.display()))?;
    Ok(Opened { id, root, others, segments, place, cache, lost_group })
}

/// Opens the store of a cell, making it where there is none.
fn open_store(cache: &RowCache, place: &StorePlace, cell: CellId) -> anyhow::Result<MetaState> {
    let data = place.dir();
    std::fs::create_dir_all(data).with_context(|| format!("make {}", data.display()))?;
    place.tidy().with_context(|| format!("tidy up the stores in {}", data.display()))?;
    let dir = place.current().with_context(|| format!("find the store in {}", data.display()))?;
    let opening = || format!("open the store {}", dir.display());
    let store = cache.before(FjallStore::open(&dir).with_context(opening)?);
    let state = MetaState::open(Arc::new(store), cell).with_context(opening)?;
    Ok(state)
}

/// Brings the log and a store together.
fn brought_together(
    data: &Path,
    levels: Levels,
    state: MetaState,
    segments: &mut Segments,
    recovered: &mut BTreeMap<CellId, Recovered>,
) -> anyhow::Result<(MetaState, Recovered)> {
    let mut recovered = recovered.remove(&state.cell()).unwrap_or_default();
    let level = level_needed(&state, &recovered.entries);
    ensure!(
        levels.has(level),
        "{} has level {level}, this master knows {levels}: run a release that knows it, or raise level_max",
        data.display()
    );
    segments
        .begin_behind(state.cell(), state.base(), &mut recovered)
        .context("bring the log and the store together")?;
    let last = recovered.entries.last().map_or(recovered.purged.0, |entry| entry.index);
    ensure!(
        recovered.purged.0 <= state.applied_index() && state.applied_index() <= last,
        "the log in {} holds entries {}..={last}, but the store is at {}: one of the two is from another time; restore both from one backup, or see docs/operations.md",
        data.display(),
        recovered.purged.0 + 1,
        state.applied_index()
    );
    Ok((state, recovered))
}

/// Which member this directory is. A new directory is a new life of its master: whatever an earlier one has promised
/// its peers is not known here.
fn identity(data: &Path, cluster: ClusterId, number: u16, entropy: &dyn Entropy) -> anyhow::Result<MasterId> {
    let path = data.join(CLUSTER_ID);
    match std::fs::read_to_string(&path) {
        Ok(found) => {
            let words: Vec<&str> = found.split_whitespace().collect();
            let id = words.last().and_then(|id| id.parse().ok()).map(MasterId::from_raw);
            let ours = id.filter(|id| id.number() == u64::from(number) && words[0] == cluster.to_string());
            ours.with_context(|| {
                format!(
                    "{} belongs to cluster {}, not to {cluster} master {number}: point `data` at this master's own directory, or at an empty one",
                    data.display(),
                    found.trim()
                )
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let life = u32::try_from(entropy.next_u64() >> 33).unwrap_or(1).max(1);
            let id = MasterId::new(number, life);
            let text = format!("{cluster} master {}\n", id.raw());
            FsDisk
                .write_whole(&path, text.as_bytes())
                .with_context(|| format!("write {}", path.display()))?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn refuse_if_out_of_service(data: &Path) -> anyhow::Result<()> {
    let path = data.join(OUT_OF_SERVICE);
    match std::fs::read_to_string(&path) {
        Ok(why) => bail!(
            "{}; to let it come back as a new master, move {} away (docs/operations.md)",
            why.trim(),
            data.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Notes that this master must not be started again as it is.
pub(crate) fn take_out_of_service(data: &Path, why: &str) -> io::Result<()> {
    FsDisk.write_whole(&data.join(OUT_OF_SERVICE), why.as_bytes())
}

/// Notes that this master's log lacks what it had acknowledged, so that the next start begins anew.
pub(crate) fn note_lost_log(data: &Path, why: &str) -> io::Result<()> {
    FsDisk.write_whole(&data.join(LOST_LOG), why.as_bytes())
}

/// Makes the directory a new master's. The note goes last: until then every start does this again.
fn begin_anew(data: &Path) -> io::Result<()> {
    if data.join(CLUSTER_ID).try_exists()? || data.join("log").try_exists()? {
        let aside = set_aside(data)?;
        tracing::warn!(aside = %aside.display(), "what this master had is set aside; it asks the others for all");
    }
    std::fs::remove_file(data.join(LOST_LOG))?;
    FsDisk.sync_dir(data)
}

fn has_set_aside(data: &Path) -> io::Result<bool> {
    let mut names = FsDisk.list(data)?.into_iter();
    Ok(names.any(|path| path.file_name().and_then(|it| it.to_str()).is_some_and(|it| it.starts_with(ASIDE))))
}

/// Moves all that a life of this master has left out of the way; nothing is deleted.
fn set_aside(data: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    let aside = loop {
        let aside = data.join(format!("{ASIDE}{number}"));
        match std::fs::create_dir(&aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            done => break done.map(|()| aside)?,
        }
    };
    // First whose it is, and the log last: if this is interrupted, the log is another member's at the next start, and what
    // is still here is set aside too.
    rename_if_there(&data.join(CLUSTER_ID), &aside.join(CLUSTER_ID))?;
    FsDisk.sync_dir(data)?;
    for entry in std::fs::read_dir(data)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with("store") || name.starts_with("cell-") {
            std::fs::rename(&path, aside.join(name))?;
        }
    }
    FsDisk.sync_dir(data)?;
    rename_if_there(&data.join("log"), &aside.join("log"))?;
    FsDisk.sync_dir(&aside)?;
    FsDisk.sync_dir(data)?;
    Ok(aside)
}

/// An interrupted attempt may have moved it already.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
