//! What a run found, for people and as JSON. The JSON is documented in `src/docs/benchmarking.md` and stable: fields are
//! added, never renamed or removed; `format` counts incompatible changes.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::ensure;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::measure::Measured;
use super::plan::Plan;
use super::stats::TIMELINE_NS;
use super::workload::Workload;

/// Number of the JSON format.
const FORMAT: u32 = 1;

/// Everything a run reports.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    tool: &'static str,
    format: u32,
    load: Load,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent_of_floor: Option<Percent>,
}

/// The load, as it was run.
#[derive(Debug, Serialize)]
struct Load {
    workload: Workload,
    hosts: Vec<String>,
    conns: usize,
    depth: usize,
    size: usize,
    keys: u64,
    multi_ops: usize,
    writes_percent: u64,
    threads: usize,
    secs: f64,
    warmup_secs: f64,
    count: Option<u64>,
    rate: Option<f64>,
    prefix: String,
}

/// What was measured of one server.
#[derive(Debug, Serialize)]
struct Figures {
    elapsed_secs: f64,
    completed: u64,
    ops_per_sec: f64,
    latency_us: Latency,
    by_kind: BTreeMap<&'static str, Latency>,
    failures: u64,
    failures_by_reason: BTreeMap<String, u64>,
    reconnects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_write_gap_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_write_gap_at_secs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_latency_us: Option<Latency>,
    interrupted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Timeline>,
}

/// Latencies, microseconds.
#[derive(Clone, Debug, Serialize)]
struct Latency {
    count: u64,
    mean: f64,
    min: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// Completions per bucket.
#[derive(Debug, Serialize)]
struct Timeline {
    bucket_ms: u64,
    completed: Vec<u64>,
}

/// Figures of the server as percentages of the floor's. Throughput: higher is better, 100 is the limit; latency: lower is better.
#[derive(Debug, Serialize)]
struct Percent {
    ops_per_sec: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Report {
    /// Puts a report together.
    pub(super) fn new(plan: &Plan, server: Option<Measured>, floor: Option<Measured>) -> Report {
        let server = server.map(|m| Figures::new(plan, m));
        let floor = floor.map(|m| Figures::new(plan, m));
        let percent_of_floor = server.as_ref().zip(floor.as_ref()).map(|(s, f)| Percent::new(s, f));
        let load = Load::new(plan);
        Report { tool: "zabra bench", format: FORMAT, load, server, floor, percent_of_floor }
    }

    /// Writes it to standard output.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        let text = if json { serde_json::to_string_pretty(self)? + "\n" } else { self.table() };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        Ok(())
    }

    /// An error when a server answered nothing well.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        for figures in [&self.server, &self.floor].into_iter().flatten() {
            let why: Vec<String> =
                figures.failures_by_reason.iter().map(|(reason, n)| format!("{n} × {reason}")).collect();
            ensure!(figures.completed > 0, "not one operation succeeded: {}", why.join(", "));
        }
        Ok(())
    }

    /// As text for people.
    fn table(&self) -> String {
        let mut out = self.load.line();
        let head = ["", "ops/s", "p50", "p90", "p99", "p99.9", "max"];
        let mut rows = vec![head.map(str::to_owned)];
        for (name, figures) in [("server", &self.server), ("floor", &self.floor)] {
            rows.extend(figures.iter().flat_map(|f| f.rows(name)));
        }
        rows.extend(self.percent_of_floor.iter().map(Percent::row));
        for row in &rows {
            out += &format!("{:<16}", row[0]);
            row[1..].iter().for_each(|cell| out += &format!("{cell:>12}"));
            out.push('\n');
        }
        for (name, figures) in [("server", &self.server), ("floor", &self.floor)] {
            figures.iter().for_each(|f| out += &f.notes(name));
        }
        out
    }
}

impl Load {
    fn new(plan: &Plan) -> Load {
        let shape = &plan.shape;
        Load {
            workload: shape.workload,
            hosts: plan.hosts.iter().map(ToString::to_string).collect(),
            conns: plan.conns,
            depth: plan.depth,
            size: shape.size,
            keys: shape.keys,
            multi_ops: shape.multi_ops,
            writes_percent: shape.writes_percent,
            threads: plan.threads,
            secs: plan.secs.as_secs_f64(),
            warmup_secs: plan.warmup.as_secs_f64(),
            count: plan.count,
            rate: plan.rate,
            prefix: plan.prefix.clone(),
        }
    }

    fn line(&self) -> String {
        let pace = self.rate.map_or("closed loop".to_owned(), |r| format!("open loop at {r} ops/s"));
        let name = format!("{:?}", self.workload).to_lowercase();
        format!(
            "{name}, {} connections × {} in flight, {} bytes, {} keys, {pace}, {} thread(s)\n",
            self.conns, self.depth, self.size, self.keys, self.threads
        )
    }
}

impl Figures {
    fn new(plan: &Plan, measured: Measured) -> Figures {
        let Measured { totals, elapsed_secs, gap, interrupted } = measured;
        let watches = plan.shape.workload == Workload::Watch;
        let timeline = plan
            .timeline
            .then(|| Timeline { bucket_ms: TIMELINE_NS / 1_000_000, completed: totals.timeline.clone() });
        Figures {
            elapsed_secs,
            completed: totals.completed,
            ops_per_sec: totals.completed as f64 / elapsed_secs,
            latency_us: Latency::new(&totals.latency()),
            by_kind: totals.by_kind.iter().map(|(kind, h)| (kind.name(), Latency::new(h))).collect(),
            failures: totals.failures.values().sum(),
            failures_by_reason: totals.failures.iter().map(|(why, n)| (why.name(), *n)).collect(),
            reconnects: totals.reconnects,
            longest_write_gap_ms: gap.map(|gap| gap.ns as f64 / 1e6),
            longest_write_gap_at_secs: gap.map(|gap| gap.from_ns as f64 / 1e9),
            events: watches.then_some(totals.events),
            event_latency_us: totals.event_latency.as_ref().map(Latency::new),
            interrupted,
            timeline,
        }
    }

    fn rows(&self, name: &str) -> Vec<[String; 7]> {
        let mut rows = vec![self.latency_us.row(name, &format!("{:.0}", self.ops_per_sec))];
        if self.by_kind.len() > 1 {
            rows.extend(self.by_kind.iter().map(|(kind, latency)| latency.row(&format!("  {kind}"), "")));
        }
        rows.extend(self.event_latency_us.iter().map(|latency| latency.row("  event", "")));
        rows
    }

    fn notes(&self, name: &str) -> String {
        let mut out = format!("{name}: {} completed in {:.2} s", self.completed, self.elapsed_secs);
        if let (Some(ms), Some(at)) = (self.longest_write_gap_ms, self.longest_write_gap_at_secs) {
            out += &format!(", longest gap between writes {ms:.1} ms at {at:.2} s");
        }
        if let Some(events) = self.events {
            out += &format!(", {events} events");
        }
        if self.reconnects > 0 {
            out += &format!(", {} reconnects", self.reconnects);
        }
        for (reason, count) in &self.failures_by_reason {
            out += &format!("\n{name}: {count} failed: {reason}");
        }
        if self.interrupted {
            out += "\ninterrupted: the figures cover the time until then";
        }
        out + "\n"
    }
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Latency {
        let us = |ns: u64| (ns as f64 / 1e2).round() / 10.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Latency {
            count: histogram.len(),
            mean: us(histogram.mean() as u64),
            min: us(histogram.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(histogram.max()),
        }
    }

    fn row(&self, name: &str, rate: &str) -> [String; 7] {
        let cells = [self.p50, self.p90, self.p99, self.p999, self.max].map(human_us);
        let [p50, p90, p99, p999, max] = cells;
        [name.to_owned(), rate.to_owned(), p50, p90, p99, p999, max]
    }
}

impl Percent {
    fn new(server: &Figures, floor: &Figures) -> Percent {
        let of = |a: f64, b: f64| if b > 0.0 { (a / b * 1000.0).round() / 10.0 } else { 0.0 };
        let (s, f) = (&server.latency_us, &floor.latency_us);
        Percent {
            ops_per_sec: of(server.ops_per_sec, floor.ops_per_sec),
            p50: of(s.p50, f.p50),
            p99: of(s.p99, f.p99),
            p999: of(s.p999, f.p999),
            max: of(s.max, f.max),
        }
    }

    fn row(&self) -> [String; 7] {
        let cell = |percent: f64| format!("{percent:.1}%");
        let (name, none) = ("server / floor".to_owned(), String::new());
        [name, cell(self.ops_per_sec), cell(self.p50), none, cell(self.p99), cell(self.p999), cell(self.max)]
    }
}

/// Microseconds in the unit that reads best.
fn human_us(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.1} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_well() {
        assert_eq!(human_us(58.04), "58.0 µs");
        assert_eq!(human_us(2_500.0), "2.50 ms");
        assert_eq!(human_us(3_200_000.0), "3.20 s");
    }

    #[test]
    fn latencies_are_microseconds() {
        let mut h = super::super::stats::histogram();
        (1..=1000).for_each(|i| h.record(i * 1000).unwrap());
        let latency = Latency::new(&h);
        assert!((latency.p50 - 500.0).abs() < 1.0 && (latency.max - 1000.0).abs() < 1.0, "{latency:?}");
        assert_eq!(latency.count, 1000);
    }
}
