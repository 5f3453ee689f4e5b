//! The one place that prints. What a command finds goes to standard output, as a table or as JSON from the same value;
//! what goes wrong goes to standard error, one line with what to do.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what prints")]

use mooseng_types::TimeNs;
use serde::Serialize;

/// A line for people.
pub(crate) fn line(text: &str) {
    println!("{text}");
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
    println!("{}", serde_json::to_string_pretty(value)?);
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
        println!("{}", padded.join("  ").trim_end());
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

/// A time for people: 2026-03-01 12:30:05 UTC.
pub(crate) fn time(time: TimeNs) -> String {
    let (seconds, _) = time.timespec();
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since March 1st of the year 0, in eras of 400 years: leap days are then the last days of a year.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_the_calendar_has_them() {
        let at = |seconds| time(TimeNs::from_timespec(seconds, 999));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(-1), "1969-12-31 23:59:59 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(at(1_772_368_205), "2026-03-01 12:30:05 UTC");
        assert_eq!(at(4_107_542_399), "2100-02-28 23:59:59 UTC");
    }

    #[test]
    fn bytes_are_told_in_the_largest_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 40), "3.0 TiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
    }
}
