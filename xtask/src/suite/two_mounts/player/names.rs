//! Operations on names: create, rename, link, unlink.

use std::fs::{self, File};
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::super::model::{Handle, Side, other};
use super::{HANDLES_MAX, NAMES_MAX, Player};
use crate::suite::syscall;

impl Player {
    pub(super) fn create(&mut self, side: Side) -> Result<()> {
        let name = self.target_name();
        if self.model.names.contains_key(&name) || self.model.names.len() >= NAMES_MAX {
            return self.unlink(side);
        }
        let file = self.number();
        self.say(Some(file), side, &format!("create {name}"))?;
        let open = File::options().read(true).write(true).create_new(true).open(self.path(side, &name));
        let open = open.with_context(|| format!("create {name}"))?;
        self.model.names.insert(name.clone(), file);
        if let Some(knows) = self.model.node(file).knows.get_mut(side) {
            *knows = true;
        }
        if self.random.below(3) == 0 && self.model.handles.len() < HANDLES_MAX {
            let number = self.number();
            self.say(Some(file), side, &format!("keep it open as handle {number}"))?;
            self.model.handles.push(Handle { number, side, file, append: false, open: Arc::new(open) });
            return Ok(());
        }
        if self.random.below(2) == 0 {
            self.write_at(side, file, &open)?;
        }
        syscall::close(open).context("close")?;
        self.maybe_look(other(side), &name, file)
    }

    /// Onto a free name, or in the place of another file.
    pub(super) fn rename(&mut self, side: Side) -> Result<()> {
        let Some((from, file)) = self.picked_name() else { return Ok(()) };
        let to = self.target_name();
        self.say(Some(file), side, &format!("rename {from} to {to}"))?;
        fs::rename(self.path(side, &from), self.path(side, &to)).context("rename")?;
        // Two names of one file: nothing happens (`rename(2)`).
        if self.model.names.get(&to) != Some(&file) {
            self.model.names.remove(&from);
            self.model.names.insert(to, file);
        }
        Ok(())
    }

    pub(super) fn link(&mut self, side: Side) -> Result<()> {
        let Some((from, file)) = self.picked_name() else { return Ok(()) };
        let to = self.target_name();
        if self.model.names.contains_key(&to) || self.model.names.len() >= NAMES_MAX {
            return Ok(());
        }
        self.say(Some(file), side, &format!("link {from} as {to}"))?;
        fs::hard_link(self.path(side, &from), self.path(side, &to)).context("link")?;
        self.model.names.insert(to, file);
        Ok(())
    }

    /// Handles stay open, on either mount.
    pub(super) fn unlink(&mut self, side: Side) -> Result<()> {
        let Some((name, file)) = self.picked_name() else { return Ok(()) };
        self.say(Some(file), side, &format!("unlink {name}"))?;
        fs::remove_file(self.path(side, &name)).context("unlink")?;
        self.model.names.remove(&name);
        Ok(())
    }
}
