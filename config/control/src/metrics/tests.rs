use std::collections::HashMap;

use super::*;

fn sources_text(labels: [&str; 3]) -> String {
    named(labels, &[])
}

fn named(labels: [&str; 3], names: &[String]) -> String {
    let cores = [Arc::new(CoreCounters::new(2)), Arc::new(CoreCounters::new(2))];
    cores[0].turns.add(7);
    cores[1].turns.add(9);
    cores[1].drops[Verdict::Land as usize].add(3);
    cores[0].ports[1].rx_packets.add(11);
    let [listener, route, backend] = labels;
    let served = Series::new(listener.into(), route.into(), backend.into(), 2);
    served.cores[0].finished(200, 60_000, 100, 1000);
    served.cores[1].finished(200, 26_000, 100, 1000);
    served.cores[1].finished(503, 99_000_000_000, 10, 20);
    let unused = Series::new("d/g/l".into(), "d/new".into(), "d/b".into(), 2);
    let gone = Series::new("d/g/l".into(), "d/gone".into(), "d/b".into(), 2);
    render(&Sources {
        limits: &[],
        endpoints: &[],
        dns: &[],
        version: "1.2.3",
        cores: &cores,
        ports: &["north".into(), "south".into()],
        series: &[Arc::new(served), Arc::new(unused), Arc::new(gone)],
        in_use: &HashSet::from([SeriesId(1)]),
        devices: &[("north".into(), "rx_missed_errors".into(), 4)],
        configuration: &ConfigurationStatus { accepted: 1_700_000_000, ..ConfigurationStatus::default() },
        epoch: 3,
        restarts: &[("admin", 1)],
        access_log_lost: 5,
        names,
    })
}

/// Reads the format strictly: each family has HELP then TYPE then its samples, all together; names and labels have
/// the allowed characters; no sample comes twice.
fn parse(text: &str) -> HashMap<String, f64> {
    let mut samples = HashMap::new();
    let mut families = HashSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} comes twice");
            kind.clear();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, k) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&k));
            assert_eq!(k == "counter", name.ends_with("_total"), "{name}");
            k.clone_into(&mut kind);
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{line}");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
            assert!(name == family || (kind == "histogram" && base == Some(&*family)), "{line} outside its family");
            let (sample, value) = line.rsplit_once(' ').unwrap();
            if let Some(labels) = sample.strip_prefix(name).and_then(|l| l.strip_prefix('{')) {
                check_labels(labels.strip_suffix('}').unwrap());
            }
            assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{sample} comes twice");
        }
    }
    samples
}

fn check_labels(mut text: &str) {
    loop {
        let (name, rest) = text.split_once("=\"").unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        let mut escaped = false;
        let end = rest
            .bytes()
            .position(|b| match (escaped, b) {
                (false, b'"') => true,
                (true, b) => {
                    assert!(b"\\\"n".contains(&b));
                    escaped = false;
                    false
                }
                (false, b) => {
                    escaped = b == b'\\';
                    false
                }
            })
            .unwrap();
        match rest[end + 1..].strip_prefix(',') {
            Some(more) => text = more,
            None => return assert_eq!(rest.len(), end + 1),
        }
    }
}

#[test]
fn numbers_are_where_they_belong() {
    let text = sources_text(["d/g/l", "d/r", "d/b"]);
    let samples = parse(&text);
    for (sample, value) in [
        ("millrace_build_info{version=\"1.2.3\"}", 1.0),
        ("millrace_core_turns_total{core=\"0\"}", 7.0),
        ("millrace_core_turns_total{core=\"1\"}", 9.0),
        ("millrace_packets_dropped_total{core=\"1\",reason=\"land\"}", 3.0),
        ("millrace_port_rx_packets_total{core=\"0\",port=\"south\"}", 11.0),
        ("millrace_device_statistic_total{port=\"north\",name=\"rx_missed_errors\"}", 4.0),
        ("millrace_access_log_lost_total", 5.0),
        ("millrace_requests_total{listener=\"d/g/l\",route=\"d/r\",backend=\"d/b\",code=\"200\"}", 2.0),
        ("millrace_requests_total{listener=\"d/g/l\",route=\"d/r\",backend=\"d/b\",code=\"503\"}", 1.0),
        ("millrace_requests_total{listener=\"d/g/l\",route=\"d/new\",backend=\"d/b\",code=\"200\"}", 0.0),
        ("millrace_request_bytes_total{listener=\"d/g/l\",route=\"d/r\",backend=\"d/b\"}", 210.0),
        ("millrace_response_bytes_total{listener=\"d/g/l\",route=\"d/r\",backend=\"d/b\"}", 2020.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}\n{text}");
    }
    assert!(!text.contains("d/gone"), "an old series without traffic is not shown");
}

#[test]
fn histograms_are_cumulative() {
    let samples = parse(&sources_text(["d/g/l", "d/r", "d/b"]));
    let series = "listener=\"d/g/l\",route=\"d/r\",backend=\"d/b\"";
    let bucket = |le: &str| samples[&format!("millrace_request_duration_seconds_bucket{{{series},le=\"{le}\"}}")];
    assert_eq!(
        [bucket("0.000025"), bucket("0.00005"), bucket("0.000075"), bucket("30"), bucket("+Inf")],
        [0.0, 1.0, 2.0, 2.0, 3.0]
    );
    assert_eq!(samples[&format!("millrace_request_duration_seconds_count{{{series}}}")], 3.0);
    assert_eq!(samples[&format!("millrace_request_duration_seconds_sum{{{series}}}")], 99.000086);
}

#[test]
fn labels_are_escaped() {
    let text = sources_text(["a\"b", "c\\d", "e\nf"]);
    parse(&text);
    assert!(text.contains(r#"listener="a\"b",route="c\\d",backend="e\nf""#), "{text}");
}

#[test]
fn only_what_is_asked_for_by_name() {
    let names = ["millrace_core_turns_total", "millrace_request_duration_seconds"].map(str::to_owned);
    let text = named(["l", "r", "b"], &names);
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(families, ["millrace_core_turns_total counter", "millrace_request_duration_seconds histogram"]);
    let parsed = parse(&text);
    let all = parse(&sources_text(["l", "r", "b"]));
    assert!(parsed.len() > 2 && parsed.iter().all(|(sample, value)| all.get(sample) == Some(value)), "{parsed:?}");
    assert_eq!(named(["l", "r", "b"], &["millrace_nothing".to_owned()]), "");
}
