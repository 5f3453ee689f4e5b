//! The one place that prints. What a command finds goes to standard output, as a table or as JSON from the same value;
//! what goes wrong goes to standard error, one line with what to do.
#![expect(clippy::print_stderr, reason = "this is what prints")]

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use mooseng_types::TimeNs;
use serde::Serialize;

/// A line for people.
pub(crate) fn line(text: &str) {
    // Whoever read the output may have seen enough and gone.
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// What went wrong.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("mooseng: {error:#}");
}

/// Something to know that is no error.
pub(crate) fn note(text: &str) {
    eprintln!("mooseng: {text}");
}

/// A value for programs.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A value for programs, one of many: a line.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?);
    Ok(())
}

/// Rows under a head, in columns as wide as their widest cell.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head.get(column).map_or(0, |h| h.len())]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let render = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(padded.join("  ").trim_end());
    };
    render(&mut head.iter().copied());
    for row in rows {
        render(&mut row.iter().map(String::as_str));
    }
}

/// Bytes for people: 1.5 GiB.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = (u64::BITS - 1 - count.max(1).leading_zeros()) as usize / 10;
    let unit = unit.min(UNITS.len() - 1);
    let tenths = (u128::from(count) * 10) >> (10 * unit);
    if unit == 0 { format!("{count} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]) }
}

/// A time for people: Sun, 01 Mar 2026 12:30:05 GMT.
pub(crate) fn time(time: TimeNs) -> String {
    let (seconds, _) = time.timespec();
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_the_largest_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 40), "3.0 TiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
    }
}
