//! All samples, their medians and spread, as a table and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::Done;
use super::usage::Used;

/// One measured phase.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    operations: u64,
    seconds: f64,
    /// MB/s for phases that move bytes in bulk, operations per second for the others.
    value: f64,
    mean_us: f64,
    p99_us: f64,
    #[serde(flatten)]
    used: Used,
}

/// The samples of one figure on one target.
#[derive(Debug, Default)]
struct Series(Vec<Sample>);

/// Everything a run found out.
#[derive(Debug)]
pub(crate) struct Report {
    /// Name and durability, in the order of the rounds.
    targets: Vec<(String, String)>,
    /// Figures in the order in which they were first measured.
    order: Vec<String>,
    samples: BTreeMap<(String, String), Series>,
    memory: BTreeMap<String, (f64, f64)>,
    peaks: BTreeMap<String, Vec<(String, f64)>>,
    idle: BTreeMap<String, Vec<(String, f64)>>,
}

impl Report {
    pub(crate) fn new(targets: Vec<(String, String)>) -> Report {
        Report {
            targets,
            order: Vec::new(),
            samples: BTreeMap::new(),
            memory: BTreeMap::new(),
            peaks: BTreeMap::new(),
            idle: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, target: &str, figure: &str, mut done: Done, used: Used) {
        done.latencies_us.sort_by(f64::total_cmp);
        let seconds = done.time.as_secs_f64().max(1e-9);
        let value = if is_bandwidth(figure) {
            done.bytes as f64 / 1e6 / seconds
        } else {
            done.operations as f64 / seconds
        };
        let count = done.latencies_us.len();
        let mean_us = done.latencies_us.iter().sum::<f64>() / count.max(1) as f64;
        let p99_us = done.latencies_us.get(count * 99 / 100).copied().unwrap_or_default();
        println!("  {figure:24} {value:12.1} {:5}  {}", unit(figure), if used.noisy { "noisy" } else { "" });
        if !self.order.iter().any(|known| known == figure) {
            self.order.push(figure.to_owned());
        }
        let sample = Sample { operations: done.operations, seconds, value, mean_us, p99_us, used };
        self.samples.entry((figure.to_owned(), target.to_owned())).or_default().0.push(sample);
    }

    pub(crate) fn memory(&mut self, target: &str, servers_mib: f64, clients_mib: f64) {
        self.memory.insert(target.to_owned(), (servers_mib, clients_mib));
    }

    /// The most memory that each process of a target had.
    pub(crate) fn peaks(&mut self, target: &str, peaks: Vec<(String, f64)>) {
        self.peaks.insert(target.to_owned(), peaks);
    }

    /// What each process of a target keeps when it has been idle for a while.
    pub(crate) fn idle(&mut self, target: &str, idle: Vec<(String, f64)>) {
        self.idle.insert(target.to_owned(), idle);
    }

    pub(crate) fn print(&self) {
        println!();
        for (name, durability) in &self.targets {
            println!("{name}: {durability}");
        }
        let mut head = format!("{:24} {:5}", "figure", "unit");
        for (name, _) in &self.targets {
            head.push_str(&format!(
                " | {name:>14.14} {:>19} {:>9} {:>9}",
                "[least, most]", "srv us/op", "cli us/op"
            ));
        }
        println!("{head} | ratio");
        for figure in &self.order {
            println!("{}", self.line(figure));
        }
        for (name, (servers, clients)) in &self.memory {
            println!("{name}: resident memory at the end: servers {servers:.0} MiB, client {clients:.0} MiB");
        }
        for (what, figures) in [("most resident", &self.peaks), ("idle resident", &self.idle)] {
            for (name, figures) in figures {
                let each: Vec<String> =
                    figures.iter().map(|(part, mib)| format!("{part} {mib:.0}")).collect();
                println!("{name}: {what} memory of each process, MiB: {}", each.join(", "));
            }
        }
    }

    fn line(&self, figure: &str) -> String {
        let mut line = format!("{figure:24} {:5}", unit(figure));
        let mut medians = Vec::new();
        for (name, _) in &self.targets {
            let Some(series) = self.series(figure, name) else {
                line.push_str(&format!(" | {:>54}", "not measured"));
                continue;
            };
            let (least, most) = series.spread();
            let value = series.median(|sample| sample.value);
            medians.push(value);
            let spread = format!("[{least:.0}, {most:.0}]");
            let (server, client) = (
                series.us_per_operation(|used| used.server_s),
                series.us_per_operation(|used| used.client_s),
            );
            let noisy = if series.noisy() > 0 { "~" } else { " " };
            line.push_str(&format!(" | {value:>13.1}{noisy} {spread:>19} {server:>9.1} {client:>9.1}"));
        }
        match medians.as_slice() {
            [ours, peer] if *peer > 0.0 => line.push_str(&format!(" | {:.2}", ours / peer)),
            _ => line.push_str(" | -"),
        }
        line
    }

    fn series(&self, figure: &str, target: &str) -> Option<&Series> {
        self.samples.get(&(figure.to_owned(), target.to_owned()))
    }

    pub(crate) fn json(&self) -> Value {
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|(name, durability)| {
                let memory = self
                    .memory
                    .get(name)
                    .map(|(servers, clients)| json!({"servers_mib": servers, "clients_mib": clients}));
                let each = |figures: &BTreeMap<String, Vec<(String, f64)>>| {
                    let parts = figures.get(name).into_iter().flatten();
                    parts.map(|(part, mib)| (part.clone(), json!(mib))).collect::<serde_json::Map<_, _>>()
                };
                json!({
                    "name": name, "durability": durability, "memory": memory,
                    "most_mib": each(&self.peaks), "idle_mib": each(&self.idle),
                })
            })
            .collect();
        let figures: Vec<Value> = self.order.iter().map(|figure| self.figure_json(figure)).collect();
        json!({"targets": targets, "figures": figures})
    }

    fn figure_json(&self, figure: &str) -> Value {
        let mut sides = serde_json::Map::new();
        for (name, _) in &self.targets {
            if let Some(series) = self.series(figure, name) {
                let (least, most) = series.spread();
                let side = json!({
                    "median": series.median(|sample| sample.value), "least": least, "most": most,
                    "mean_us": series.median(|sample| sample.mean_us), "p99_us": series.median(|sample| sample.p99_us),
                    "server_us_per_op": series.us_per_operation(|used| used.server_s),
                    "client_us_per_op": series.us_per_operation(|used| used.client_s),
                    "noisy": series.noisy(), "samples": series.0,
                });
                sides.insert(name.clone(), side);
            }
        }
        json!({"figure": figure, "unit": unit(figure), "targets": sides})
    }
}

impl Series {
    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let mut values: Vec<f64> = self.0.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        if values.len().is_multiple_of(2) && middle > 0 {
            (at(middle - 1) + at(middle)) / 2.0
        } else {
            at(middle)
        }
    }

    fn spread(&self) -> (f64, f64) {
        let values = self.0.iter().map(|sample| sample.value);
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max))
    }

    fn us_per_operation(&self, of: impl Fn(&Used) -> f64) -> f64 {
        self.median(|sample| of(&sample.used) * 1e6 / sample.operations.max(1) as f64)
    }

    fn noisy(&self) -> usize {
        self.0.iter().filter(|sample| sample.used.noisy).count()
    }
}

fn is_bandwidth(figure: &str) -> bool {
    figure.starts_with("seq_")
}

fn unit(figure: &str) -> &'static str {
    if is_bandwidth(figure) { "MB/s" } else { "op/s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn medians_spread_and_ratio_are_those_of_the_samples() {
        let mut report = Report::new(vec![("a".to_owned(), String::new()), ("b".to_owned(), String::new())]);
        for (target, counts) in [("a", [300, 100, 200]), ("b", [50, 100, 900])] {
            for operations in counts {
                let done =
                    Done { operations, bytes: 0, time: Duration::from_secs(1), latencies_us: vec![1.0, 3.0] };
                report.add(target, "create_1t", done, Used { server_s: 0.02, ..Used::default() });
            }
        }
        let json = report.json();
        let side = &json["figures"][0]["targets"]["a"];
        assert_eq!(
            (side["median"].as_f64(), side["least"].as_f64(), side["most"].as_f64()),
            (Some(200.0), Some(100.0), Some(300.0))
        );
        assert_eq!((side["mean_us"].as_f64(), side["server_us_per_op"].as_f64()), (Some(2.0), Some(100.0)));
        assert!(report.line("create_1t").ends_with("| 2.00"), "{}", report.line("create_1t"));
    }
}
