//! What an examination found, and what to do about it.

use super::{Record, rate_text, span_text, stage_text};
use mirror_engine::{
    meter::Stage,
    replicate::doctor::{Diagnosis, Finding, Verdict, What},
};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct FindingRecord {
    stage: &'static str,
    bits_per_s: Option<u64>,
    bytes: u64,
    elapsed_ms: u64,
    loss: Option<f64>,
    not_measured: Option<String>,
}

impl Record for FindingRecord {
    const TYPE: &'static str = "measurement";
}

/// One measurement.
pub(crate) fn finding_record(finding: &Finding) -> FindingRecord {
    let rate = finding.outcome.as_ref().copied().unwrap_or_default();
    FindingRecord {
        stage: finding.what.name(),
        bits_per_s: rate.bits_per_s(),
        bytes: rate.bytes,
        elapsed_ms: rate.elapsed.as_millis() as u64,
        loss: finding.loss.map(|loss| (loss * 10_000.0).round() / 10_000.0),
        not_measured: finding.outcome.as_ref().err().cloned(),
    }
}

/// One line of the table for people.
pub(crate) fn finding_text(finding: &Finding) -> String {
    let result = match &finding.outcome {
        Ok(rate) => rate.bits_per_s().map_or_else(|| "nothing came through".to_owned(), |bits| rate_text(bits as f64)),
        Err(why) => format!("not measured: {why}"),
    };
    let loss = finding.loss.map(|loss| format!(", {:.1} % lost at three quarters of it", loss * 100.0)).unwrap_or_default();
    format!("{:<34} {result}{loss}", what_text(finding.what))
}

fn what_text(what: What) -> &'static str {
    match what {
        What::ReadHereCold => "disk read here, not cached",
        What::ReadHereWarm => "disk read here, cached",
        What::HashHere => "hash here, one thread",
        What::SealHere => "seal here, one thread",
        What::SealHereAll => "seal here, all threads",
        What::WriteHere => "disk write here, synced",
        What::TcpUp => "link to the peer, raw TCP",
        What::TcpDown => "link from the peer, raw TCP",
        What::UdpUp => "link to the peer, raw UDP",
        What::UdpDown => "link from the peer, raw UDP",
        What::LaneUp => "lane to the peer, encrypted",
        What::LaneDown => "lane from the peer, encrypted",
        What::ReadThere => "disk read at the peer, not cached",
        What::HashThere => "hash at the peer, one thread",
        What::WriteThere => "disk write at the peer, synced",
    }
}

#[derive(Serialize)]
pub(crate) struct DiagnosisRecord<'a> {
    peer: &'a str,
    round_trip_us: u64,
    push: Option<VerdictRecord>,
    pull: Option<VerdictRecord>,
    stages: Vec<FindingRecord>,
}

#[derive(Serialize)]
struct VerdictRecord {
    limiting_stage: &'static str,
    measurement: &'static str,
    bits_per_s: u64,
}

impl Record for DiagnosisRecord<'_> {
    const TYPE: &'static str = "doctor";
}

pub(crate) fn diagnosis_record<'a>(peer: &'a str, diagnosis: &Diagnosis) -> DiagnosisRecord<'a> {
    let record = |verdict: Verdict| VerdictRecord {
        limiting_stage: verdict.stage.name(),
        measurement: verdict.what.name(),
        bits_per_s: verdict.bits_per_s,
    };
    DiagnosisRecord {
        peer,
        round_trip_us: diagnosis.round_trip.as_micros() as u64,
        push: diagnosis.push().map(record),
        pull: diagnosis.pull().map(record),
        stages: diagnosis.findings.iter().map(finding_record).collect(),
    }
}

/// The verdict for people: both directions, and what to do next.
pub(crate) fn diagnosis_text(peer: &str, diagnosis: &Diagnosis) -> String {
    let mut lines = vec![format!("round trip to {peer}: {}", span_text(diagnosis.round_trip))];
    for (operation, verdict) in [("push", diagnosis.push()), ("pull", diagnosis.pull())] {
        let Some(verdict) = verdict else {
            lines.push(format!("{operation}: nothing could be measured"));
            continue;
        };
        let rate = rate_text(verdict.bits_per_s as f64);
        lines.push(format!("{operation} limits: {}, {rate}\n  {}", stage_text(verdict.stage), advice(operation, verdict.stage)));
    }
    lines.join("\n")
}

/// What to do about a stage that limits.
fn advice(operation: &str, stage: Stage) -> &'static str {
    let sender_is_here = operation == "push";
    match stage {
        Stage::Link => "nothing here is slower than the link: a faster one is what helps; compare with --transport tcp and quic",
        Stage::SenderCpu => {
            "encryption and the protocol cost more than the link: try --transport tcp, and more --lanes where there are more cores"
        }
        Stage::Read if sender_is_here => "the disk here: what was read a moment ago comes from memory and is faster",
        Stage::Read => "the disk at the peer: what was read a moment ago comes from memory and is faster",
        Stage::Write | Stage::Sync if sender_is_here => "the disk at the peer: put its vault on a faster one",
        Stage::Write | Stage::Sync => "the disk here: put the vault on a faster one",
        _ => "the processor: is something else running there?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_engine::probe::Rate;
    use std::time::Duration;

    fn diagnosis() -> Diagnosis {
        let rate = Rate { bytes: 117_500_000, elapsed: Duration::from_secs(1) };
        let findings = vec![
            Finding { what: What::TcpUp, outcome: Ok(rate), loss: None },
            Finding { what: What::UdpUp, outcome: Ok(rate), loss: Some(0.0123) },
            Finding { what: What::TcpDown, outcome: Err("port closed".into()), loss: None },
        ];
        Diagnosis { round_trip: Duration::from_millis(12), findings }
    }

    #[test]
    fn people_read_what_limits_and_what_to_do() {
        let text = diagnosis_text("nas", &diagnosis());
        assert!(text.contains("push limits: link, 940.0 Mbit/s (117.5 MB/s)\n  nothing here is slower"), "{text}");
        assert!(text.ends_with("pull: nothing could be measured"), "{text}");
        let lines: Vec<String> = diagnosis().findings.iter().map(finding_text).collect();
        assert!(lines[1].ends_with("940.0 Mbit/s (117.5 MB/s), 1.2 % lost at three quarters of it"), "{}", lines[1]);
        assert!(lines[2].ends_with("not measured: port closed"), "{}", lines[2]);
    }

    #[test]
    fn programs_get_every_measurement_and_both_verdicts() {
        let json = crate::render::json_line(&diagnosis_record("nas", &diagnosis()));
        let expected = r#"{"type":"doctor","peer":"nas","round_trip_us":12000,"push":{"limiting_stage":"link","measurement":"udp_up","bits_per_s":940000000},"pull":null,"stages":[{"stage":"tcp_up","bits_per_s":940000000,"#;
        assert!(json.starts_with(expected), "{json}");
        assert!(json.contains(r#""not_measured":"port closed""#), "{json}");
    }
}
