//! How long writers waited in each part of a run, from the times of all their creates.

use anyhow::{Context as _, Result};

/// What no writer should wait while a snapshot is sent.
const STALL_US: u64 = 50_000;

/// A create: when it began, in microseconds since 1970, and how many it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Create {
    pub(super) start_us: u64,
    pub(super) took_us: u64,
}

/// Reads what the load generator has written.
pub(super) fn parse(text: &str) -> Result<Vec<Create>> {
    let create = |line: &str| {
        let (start, took) = line.split_once(' ')?;
        Some(Create { start_us: start.parse().ok()?, took_us: took.parse().ok()? })
    };
    text.lines().map(|line| create(line).with_context(|| format!("no times in {line:?}"))).collect()
}

/// A line about the creates that were under way between two instants; one that began before or ended after counts too.
pub(super) fn summary(creates: &[Create], from_us: u64, to_us: u64) -> String {
    let under_way = |it: &&Create| it.start_us < to_us && it.start_us + it.took_us > from_us;
    let mut times: Vec<u64> = creates.iter().filter(under_way).map(|it| it.took_us).collect();
    times.sort_unstable();
    let at = |part: usize| {
        let index = (times.len() * part).div_ceil(1000).max(1) - 1;
        times.get(index).map_or(0.0, |us| *us as f64 / 1e3)
    };
    let seconds = to_us.saturating_sub(from_us) as f64 / 1e6;
    let stalls = times.iter().filter(|us| **us > STALL_US).count();
    format!(
        "{seconds:>6.1} s  {:>6.0} creates/s  p50 {:>6.2}  p99 {:>6.2}  p99.9 {:>6.1}  max {:>6.1} ms  above 50 ms: {stalls}",
        times.len() as f64 / seconds.max(1e-6),
        at(500),
        at(990),
        at(999),
        at(1000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_counts_in_every_part_that_it_was_under_way_in() {
        let creates = parse("1000000 500\n1999000 60000\n2100000 700\n").unwrap();
        assert_eq!(creates[1], Create { start_us: 1_999_000, took_us: 60_000 });
        let before = summary(&creates, 1_000_000, 2_000_000);
        let after = summary(&creates, 2_000_000, 3_000_000);
        assert!(
            before.contains("p50   0.50") && before.contains("max   60.0 ms  above 50 ms: 1"),
            "{before}"
        );
        assert!(after.contains("p50   0.70") && after.contains("above 50 ms: 1"), "{after}");
        assert!(summary(&creates, 3_000_000, 4_000_000).contains("     0 creates/s"));
        assert!(parse("1 x").is_err());
    }
}
