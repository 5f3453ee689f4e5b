//! `mooseng chunk matrix`: copies that should be against copies that are.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::Target;
use crate::admin::{self, ChunkHealth};
use crate::output;

/// What the matrix takes.
#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    schema: u32,
    #[serde(flatten)]
    health: &'a ChunkHealth,
}

pub(super) fn run(target: &Target, args: &MatrixArgs) -> anyhow::Result<ExitCode> {
    let health = admin::chunk_health(&admin::masters(target)?)?;
    if args.json {
        output::json(&Json { schema: 1, health: &health })?;
        return Ok(ExitCode::SUCCESS);
    }
    let (head, rows) = table(&health);
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    output::table(&head, &rows);
    if health.unknown > 0 {
        output::line(&format!("{} chunks on servers belong to no file", health.unknown));
    }
    if !health.complete {
        output::note("the leader has not looked at all chunks yet: counts will change");
    }
    if health.marked > 0 {
        output::note(&format!(
            "{} chunks have changed and are looked at again within seconds",
            health.marked
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A row for each number of copies that is wanted, a column for each that there is.
fn table(health: &ChunkHealth) -> (Vec<String>, Vec<Vec<String>>) {
    let most = health.matrix.iter().map(|count| count.live).max().unwrap_or(0);
    let mut by_wanted: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for count in &health.matrix {
        let row = by_wanted.entry(count.wanted).or_insert_with(|| vec![0; most as usize + 1]);
        if let Some(cell) = row.get_mut(count.live as usize) {
            *cell += count.chunks;
        }
    }
    let head = ["WANTED".to_owned()].into_iter().chain((0..=most).map(|live| format!("{live} LIVE")));
    let row = |(wanted, counts): (u32, Vec<u64>)| {
        [wanted.to_string()].into_iter().chain(counts.into_iter().map(|count| count.to_string())).collect()
    };
    (head.collect(), by_wanted.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::ChunkCount;

    #[test]
    fn the_matrix_has_a_row_for_each_goal_and_a_column_for_each_number_of_copies() {
        let count = |wanted, live, chunks| ChunkCount { wanted, live, chunks };
        let matrix = vec![count(2, 0, 1), count(2, 2, 7), count(3, 2, 5)];
        let health = ChunkHealth { matrix, ..ChunkHealth::default() };
        let (head, rows) = table(&health);
        assert_eq!(head, ["WANTED", "0 LIVE", "1 LIVE", "2 LIVE"]);
        assert_eq!(rows, [["2", "1", "0", "7"], ["3", "0", "0", "5"]]);
    }
}
