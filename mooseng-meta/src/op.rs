//! The commands, one family per file. Each refuses first and changes second.

use mooseng_types::{FsError, TimeNs};

use crate::command::Command;
use crate::response::Response;
use crate::tables::Tables;

/// Carries out a command. After an `Err` nothing has changed.
pub(crate) fn run(_tables: &mut Tables, _stamp: TimeNs, _command: &Command) -> Result<Response, FsError> {
    Err(FsError::NotSupported)
}
