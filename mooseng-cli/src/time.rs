//! Times as people write them on the command line.

use std::time::Duration;

const REMEDY: &str = "a time is a number and ms, s, m, h, d or w, as in 90s";

/// A number with `ms`, `s`, `m`, `h`, `d` or `w` behind it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| REMEDY.to_owned())?;
    let unit_ms: u64 = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        "w" => 7 * 24 * 3_600_000,
        _ => return Err(REMEDY.to_owned()),
    };
    Ok(Duration::from_millis(number.saturating_mul(unit_ms)))
}

/// Whole seconds in the largest unit that divides them, which [`parse`] reads.
pub(crate) fn seconds(seconds: u32) -> String {
    const UNITS: [(u32, &str); 4] = [(7 * 86_400, "w"), (86_400, "d"), (3600, "h"), (60, "m")];
    let whole = |(unit, _): &&(u32, &str)| seconds > 0 && seconds.is_multiple_of(*unit);
    match UNITS.iter().find(whole) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_back_from_what_is_shown() {
        for (text, seconds_wanted) in
            [("0s", 0), ("90s", 90), ("2m", 120), ("3h", 10_800), ("1d", 86_400), ("2w", 1_209_600)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds_wanted.into())));
            assert_eq!(seconds(seconds_wanted), text);
        }
        assert_eq!(parse("15ms"), Ok(Duration::from_millis(15)));
        for wrong in ["", "90", "s", "90y", "-1s", "1.5h"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
