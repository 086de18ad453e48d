//! A run that goes on, in the text format of OpenMetrics.

use std::fmt::Write;

use crate::measure::Now;
use crate::workload::Workload;

/// All of it. The name of the server may be anything that a user has written.
pub fn metrics(server: &str, workload: &Workload, now: &Now) -> String {
    let mut text = String::new();
    let labels =
        [("server", server), ("workload", &workload.name), ("version", env!("CARGO_PKG_VERSION"))];
    let labels = labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).join(",");
    text.push_str("# TYPE loadgen info\n# HELP loadgen What is driven, and by which version.\n");
    // Writing to a string does not fail.
    let _ = writeln!(text, "loadgen_info{{{labels}}} 1");
    text.push_str("# TYPE loadgen_messages counter\n");
    text.push_str("# HELP loadgen_messages Messages checked, those of the warm-up included.\n");
    let _ = writeln!(text, "loadgen_messages_total {}", now.messages);
    let mut gauge = |name: &str, unit: &str, help: &str, value: Option<f64>| {
        let Some(value) = value else { return };
        let _ = writeln!(text, "# TYPE loadgen_{name} gauge");
        if !unit.is_empty() {
            let _ = writeln!(text, "# UNIT loadgen_{name} {unit}");
        }
        let _ = writeln!(text, "# HELP loadgen_{name} {help}\nloadgen_{name} {value}");
    };
    let p99 = now.p99.map(|p99| p99.as_secs_f64());
    let help = "99th percentile of the latency in the last second, of the slowest thread.";
    gauge("latency_p99_seconds", "seconds", help, p99);
    let left = now.left.map(|left| left.as_secs_f64());
    gauge("left_seconds", "seconds", "Time that the run still takes.", left);
    let connections = Some(f64::from(workload.connections));
    gauge("connections", "", "Connections that are asked for.", connections);
    gauge("rate_asked", "", "Messages for each second of an open loop.", workload.rate);
    text.push_str("# EOF\n");
    text
}

/// A value of a label: OpenMetrics knows these three escapes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::workload::Changes;

    #[test]
    fn what_is_not_known_is_left_out() {
        let second = Duration::from_secs(1);
        let workload = Workload::find("ping-pong", &Changes::default(), second, second).unwrap();
        let mut now = Now { messages: 17, ..Now::default() };
        let text = metrics("a \"server\"\\", &workload, &now);
        assert!(text.starts_with("# TYPE loadgen info\n"), "{text}");
        assert!(text.contains("{server=\"a \\\"server\\\"\\\\\",workload=\"ping-pong\""), "{text}");
        assert!(text.contains("\nloadgen_messages_total 17\n") && text.ends_with("\n# EOF\n"));
        for unknown in ["p99", "left", "rate_asked"] {
            assert!(!text.contains(unknown), "{unknown}: {text}");
        }
        now.p99 = Some(Duration::from_micros(1500));
        let text = metrics("x", &workload, &now);
        assert!(text.contains("\nloadgen_latency_p99_seconds 0.0015\n"), "{text}");
    }
}
