//! The page: sections with a plot and its numbers, in the order in which a reader asks.

use super::{
    plot::{self, Bar, Line, Words, escape},
    read::{Check, Found, Latency, Measurement},
};
use crate::render::{bytes_text, rate_text, rfc3339};
use std::time::{SystemTime, UNIX_EPOCH};

/// Light and dark by the reader's setting; eight hues that differ in lightness too (after Okabe and Ito, 2008).
const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--fg:#1b1f24;--dim:#59636e;--edge:#d9dee3;--grid:#e8ebee;--ok:#1a7f37;--bad:#c0262d;
--k0:#0072b2;--k1:#d55e00;--k2:#009e73;--k3:#b8569a;--k4:#b58900;--k5:#56a0d3;--k6:#6b6f76;--k7:#7a4fbf}
@media(prefers-color-scheme:dark){:root{--bg:#101418;--card:#181d23;--fg:#e6eaee;--dim:#9aa5b1;--edge:#2c343c;--grid:#262d35;--ok:#4ac26b;--bad:#ff7b72;
--k0:#58a6e6;--k1:#f28b46;--k2:#3fc49a;--k3:#e28cc4;--k4:#e3b341;--k5:#9bd0f5;--k6:#9aa5b1;--k7:#b391f0}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:0 0 .25rem}
p{margin:.25rem 0 1rem;color:var(--dim);max-width:65ch}
section{background:var(--card);border:1px solid var(--edge);border-radius:12px;padding:1.4rem 1.5rem;margin:1.4rem 0}
svg{display:block;width:100%;height:auto;margin:.6rem 0}
svg text{fill:var(--fg);font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
svg .tick{fill:var(--dim);font-size:11px}svg .axis{fill:var(--dim);font-size:12px}svg .value{font-size:12px;font-weight:600}
.grid{stroke:var(--grid)}.whisker{stroke:var(--fg);stroke-width:1.4;fill:none;opacity:.75}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round}.d1{stroke-dasharray:7 4}.d2{stroke-dasharray:2 3}
.c0{fill:var(--k0)}.c1{fill:var(--k1)}.c2{fill:var(--k2)}.c3{fill:var(--k3)}.c4{fill:var(--k4)}.c5{fill:var(--k5)}.c6{fill:var(--k6)}.c7{fill:var(--k7)}
.s0{stroke:var(--k0)}.s1{stroke:var(--k1)}.s2{stroke:var(--k2)}.s3{stroke:var(--k3)}.s4{stroke:var(--k4)}.s5{stroke:var(--k5)}.s6{stroke:var(--k6)}.s7{stroke:var(--k7)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.82rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.4rem .6rem;border-top:1px solid var(--edge);white-space:nowrap}
th{color:var(--dim);font-weight:600;border-top:0}th:first-child,td:first-child{text-align:left}
.ok{color:var(--ok);font-weight:600}.bad{color:var(--bad);font-weight:600}
";

pub(super) fn page(title: &str, found: &Found) -> String {
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    let sections = [
        rates(found, "bit/s"),
        rates(found, "objects/s"),
        throughput(found),
        cost(found),
        stages(found),
        latency(&found.latencies),
        gate(found),
        history(found),
        skipped(found),
    ];
    let body: String = sections.into_iter().flatten().collect();
    let body =
        if body.is_empty() { "<section><h2>Nothing was measured</h2><p>The files hold no results.</p></section>".into() } else { body };
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><main><h1>{title}</h1><p>Made {}. Bars are medians, whiskers reach from the \
         least to the most of all rounds.</p>\n{body}</main></body></html>\n",
        rfc3339(made)
    )
}

fn section(title: &str, says: &str, inside: &str) -> String {
    format!("<section><h2>{}</h2><p>{}</p>{inside}</section>\n", escape(title), escape(says))
}

/// Cells are markup already.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let heads: String = head.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape(name))).collect();
    let row = |cells: &Vec<String>| format!("<tr>{}</tr>", cells.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>());
    let rows: String = rows.iter().map(row).collect();
    format!("<div class=\"wide\"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>")
}

fn rate(measurement: &Measurement, value: f64) -> String {
    if measurement.unit == "bit/s" { rate_text(value) } else { format!("{value:.0} objects/s") }
}

fn rates(found: &Found, unit: &str) -> Option<String> {
    let chosen: Vec<&Measurement> = found.measurements.iter().filter(|measurement| measurement.unit == unit).collect();
    let (scale, x) = if unit == "bit/s" { (1e9, "Gbit/s (1 Gbit/s is 0.125 GB/s)") } else { (1e3, "thousand objects a second") };
    let bar = |measurement: &&Measurement| Bar {
        name: measurement.name.clone(),
        value: measurement.median / scale,
        least: measurement.least / scale,
        most: measurement.most / scale,
        text: rate(measurement, measurement.median),
        group: match measurement.wire.as_str() {
            "encrypted" => 0,
            "plain" => 6,
            _ => 2,
        },
    };
    let bars: Vec<Bar> = chosen.iter().map(bar).collect();
    let title = if unit == "bit/s" { "Throughput" } else { "Small objects" };
    let says = "Blue is encrypted on the wire, grey is plain, green never left the machine.";
    let plot = plot::bars(Words { title, x, y: "" }, &bars);
    (!bars.is_empty()).then(|| section(title, says, &(plot + &measured(&chosen))))
}

fn measured(chosen: &[&Measurement]) -> String {
    let optional = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let row = |measurement: &&Measurement| {
        vec![
            escape(&measurement.name),
            rate(measurement, measurement.median),
            optional(measurement.ratio_to_raw.map(|ratio| format!("{:.0} %", ratio * 100.0))),
            optional(measurement.cpu_s_per_gib.map(|cpu| format!("{cpu:.2}"))),
            optional(measurement.peak_bytes.map(bytes_text)),
            if measurement.wire == "none" { "–".to_owned() } else { measurement.wire.clone() },
            optional(measurement.limiting_stage.as_deref().map(escape)),
            measurement.rounds.to_string(),
        ]
    };
    let head = ["what", "median", "of raw tcp", "CPU-s/GiB", "peak memory", "wire", "limited by", "rounds"];
    table(&head, &chosen.iter().map(row).collect::<Vec<_>>())
}

fn throughput(found: &Found) -> Option<String> {
    let curve = |measurement: &Measurement| {
        let points = measurement.progress.windows(2).filter_map(|pair| {
            let [(t0, b0), (t1, b1)] = pair else { return None };
            (t1 > t0).then(|| (f64::midpoint(*t0, *t1) / 1e3, b1.saturating_sub(*b0) as f64 * 8.0 / ((t1 - t0) / 1e3) / 1e9))
        });
        Line { name: measurement.name.clone(), points: points.collect() }
    };
    let lines: Vec<Line> = found.measurements.iter().map(curve).filter(|line| line.points.len() > 1).collect();
    let words = Words { title: "Throughput over time", x: "seconds since the start", y: "Gbit/s" };
    let says = "Bytes handed to the transport between two looks, in a typical round. 1 Gbit/s is 125 MB/s.";
    (!lines.is_empty()).then(|| section(words.title, says, &plot::lines(words, &lines)))
}

fn cost(found: &Found) -> Option<String> {
    let bar = |measurement: &Measurement| {
        let cpu = measurement.cpu_s_per_gib?;
        let name = measurement.name.clone();
        Some(Bar { name, value: cpu, least: cpu, most: cpu, text: format!("{cpu:.2} CPU-s/GiB"), group: 1 })
    };
    let bars: Vec<Bar> = found.measurements.iter().filter_map(bar).collect();
    let words = Words { title: "What it costs", x: "CPU-seconds for each GiB, all processes of both ends", y: "" };
    (!bars.is_empty()).then(|| section(words.title, "Less is better.", &plot::bars(words, &bars)))
}

fn stages(found: &Found) -> Option<String> {
    let words = Words { title: "Where the time goes", x: "", y: "" };
    let says = "The share of each stage in what all of them took. Stages run side by side, so that this is not the time that passed.";
    (!found.stages.is_empty()).then(|| section(words.title, says, &plot::shares(words, &found.stages)))
}

fn latency(latencies: &[Latency]) -> Option<String> {
    let name = |latency: &Latency| format!("{}, {} ({} B)", latency.transport, latency.start, latency.object_bytes);
    let line = |latency: &Latency| Line {
        name: name(latency),
        points: latency.percentiles.iter().map(|(at, us)| (*at, *us as f64 / 1e3)).collect(),
    };
    let lines: Vec<Line> = latencies.iter().map(line).collect();
    let row = |latency: &Latency| {
        let at = |wanted: f64| latency.percentiles.iter().find(|(at, _)| *at == wanted);
        let ms = |wanted| at(wanted).map_or_else(|| "–".to_owned(), |(_, us)| format!("{:.2}", *us as f64 / 1e3));
        vec![escape(&name(latency)), latency.count.to_string(), ms(0.0), ms(50.0), ms(90.0), ms(99.0), ms(99.9), ms(100.0)]
    };
    let head = ["milliseconds", "count", "least", "median", "p90", "p99", "p99.9", "most"];
    let words = Words { title: "Latency of one small object", x: "percentile", y: "milliseconds" };
    let says = "Until the peer has said that it is on its disk. Cold dials anew each time; warm is in a session that stays.";
    let rows: Vec<Vec<String>> = latencies.iter().map(row).collect();
    (!lines.is_empty()).then(|| section(words.title, says, &(plot::lines(words, &lines) + &table(&head, &rows))))
}

fn gate(found: &Found) -> Option<String> {
    let row = |check: &Check| {
        let sign = if check.rule == "least" { "≥" } else { "≤" };
        let verdict = if check.ok { "<span class=\"ok\">✓ ok</span>" } else { "<span class=\"bad\">✗ failed</span>" };
        let (name, unit) = (escape(&check.name), escape(&check.unit));
        vec![name, format!("{:.4}", check.value), format!("{sign} {:.4}", check.limit), unit, escape(&check.rule), verdict.to_owned()]
    };
    let checks: Vec<Vec<String>> = found.checks.iter().map(row).collect();
    let bar = |pairs: &super::read::Pairs| Bar {
        name: pairs.name.clone(),
        value: pairs.median,
        least: pairs.low,
        most: pairs.high,
        text: format!("× {:.3}, {} pairs", pairs.median, pairs.pairs),
        group: 4,
    };
    let bars: Vec<Bar> = found.pairs.iter().map(bar).collect();
    let words = Words { title: "New against old", x: "times the older build; whiskers are bounds with 98 % confidence", y: "" };
    let plot = if bars.is_empty() { String::new() } else { plot::bars(words, &bars) };
    let head = ["what", "measured", "limit", "unit", "rule", ""];
    let numbers = if checks.is_empty() { String::new() } else { table(&head, &checks) };
    let inside = plot + &numbers;
    (!inside.is_empty()).then(|| section("Gate", "Counts and ratios against their limits.", &inside))
}

/// Each number in times its first value, so that all fit one pair of axes.
fn history(found: &Found) -> Option<String> {
    let first = found.history.first()?;
    let days = |ms: u64| ms.saturating_sub(first.measured_ms) as f64 / 86_400_000.0;
    let line = |(name, value): (&String, &f64)| {
        let points = found.history.iter().filter_map(|entry| Some((days(entry.measured_ms), entry.metrics.get(name)? / value)));
        Line { name: name.clone(), points: points.collect() }
    };
    let lines: Vec<Line> = first.metrics.iter().filter(|(_, value)| **value > 0.0).map(line).collect();
    let row = |entry: &crate::bench::gate::Baseline| {
        vec![escape(&entry.measured), escape(&entry.revision), escape(&entry.machine), entry.metrics.len().to_string()]
    };
    let rows: Vec<Vec<String>> = found.history.iter().map(row).collect();
    let words = Words { title: "History", x: "days since the first", y: "times the first" };
    let inside = plot::lines(words, &lines) + &table(&["measured", "revision", "machine", "numbers"], &rows);
    Some(section(words.title, "What gate has counted, each in times its first value.", &inside))
}

fn skipped(found: &Found) -> Option<String> {
    let rows: Vec<Vec<String>> = found.skipped.iter().map(|skipped| vec![escape(&skipped.what), escape(&skipped.reason)]).collect();
    (!rows.is_empty()).then(|| section("Not measured", "What could not be, and why.", &table(&["what", "why"], &rows)))
}
