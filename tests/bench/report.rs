//! One page that needs nothing but itself.

use super::bench;
use crate::support::Sandbox;

const RECORDS: &str = r#"{"type":"measurement","operation":"local","name":"mirror push, tcp","unit":"bit/s","wire":"encrypted","rounds":3,"median":8e9,"least":7e9,"most":9e9,"ratio_to_raw":0.4,"bytes":1073741824,"elapsed_ms":1000.0,"cpu_s_per_gib":1.9,"cpu_s_per_gib_sender":0.7,"cpu_s_per_gib_receiver":1.2,"peak_bytes":1000000,"limiting_stage":"link","progress":[[0.0,0],[100.0,100000000],[200.0,250000000]]}
{"type":"measurement","operation":"small","name":"<b>push</b>","unit":"objects/s","wire":"encrypted","rounds":1,"median":50000,"least":50000,"most":50000,"ratio_to_raw":null,"cpu_s_per_gib":null,"peak_bytes":null,"limiting_stage":null,"progress":[]}
{"type":"latency","operation":"latency","start":"cold","transport":"tcp","object_bytes":1024,"count":5,"mean_us":9.0,"percentiles":[[0.0,1000],[50.0,2000],[100.0,9000]]}
{"type":"latency","operation":"latency","start":"warm","transport":"tcp","object_bytes":1024,"count":5,"mean_us":9.0,"percentiles":[[0.0,500],[50.0,600],[100.0,700]]}
{"type":"summary","operation":"push","transport":"tcp","stages":{"read_ms":10,"link_ms":30}}
{"type":"check","name":"add.allocations","value":1.0,"unit":"/GiB","rule":"most","limit":2.0,"ok":true}
{"type":"pairs","name":"add.cpu","pairs":20,"old_median_s":1.0,"new_median_s":1.1,"median":1.1,"low":1.05,"high":1.15}
{"type":"skipped","what":"sendme","reason":"not installed"}
"#;
const HISTORY: &str = r#"{
 "machine": "linux", "revision": "abc", "measured": "2026-01-01T00:00:00Z", "measured_ms": 1767225600000, "size_bytes": 1,
 "metrics": {"add.allocations": 10.0}, "units": {"add.allocations": "/GiB"}
}"#;

#[test]
fn a_report_holds_every_kind_of_plot_and_points_nowhere_else() {
    let sandbox = Sandbox::new();
    sandbox.write("records.json", RECORDS);
    sandbox.write("history.json", HISTORY);
    let ran = bench(&sandbox, &["report", "records.json", "history.json", "-o", "page.html", "--title", "A <title>"]).ok();
    assert_eq!(ran.last("report")["plots"], 8);
    let page = String::from_utf8(sandbox.read("page.html")).unwrap();
    for title in
        ["Throughput", "Throughput over time", "Where the time goes", "Latency of one small object", "History", "Gate", "Not measured"]
    {
        assert!(page.contains(&format!("<h2>{title}</h2>")), "{title}");
    }
    for outside in ["http:", "https:", "<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("8.0 Gbit/s (1.0 GB/s)") && page.contains("prefers-color-scheme:dark"));
    assert!(page.contains("tcp, cold (1024 B)") && page.contains("tcp, warm (1024 B)"));
    assert!(page.contains("&lt;b&gt;push") && page.contains("A &lt;title&gt;"));
    assert_eq!(page.matches("<svg").count(), page.matches("aria-label=").count());
}

#[test]
fn what_is_no_record_is_refused_with_its_line() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.json", "{\"type\":\"summary\"}\nnot json\n");
    let error = bench(&sandbox, &["report", "bad.json"]).ended_with(2).last("error");
    assert!(error["message"].as_str().unwrap().contains("line 2"), "{error}");
}
