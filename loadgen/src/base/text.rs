//! Numbers, times and bytes as people read them, and names that they mistype.

use strsim::levenshtein;

/// A number in four figures or so: `1,234,567`, `123.4`, `0.0123`.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => thousands(v.round() as u64),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// A whole number: `1,234,567`.
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds with a fitting unit.
pub fn time(ns: f64) -> String {
    match ns {
        v if v >= 1e9 => format!("{} s", number(v / 1e9)),
        v if v >= 1e6 => format!("{} ms", number(v / 1e6)),
        v if v >= 1e3 => format!("{} µs", number(v / 1e3)),
        v => format!("{} ns", number(v)),
    }
}

/// Bytes with a fitting unit.
pub fn bytes(value: f64) -> String {
    match value {
        v if v >= 1_048_576.0 => format!("{} MiB", number(v / 1_048_576.0)),
        v if v >= 1024.0 => format!("{} KiB", number(v / 1024.0)),
        v => format!("{v:.0} B"),
    }
}

/// A part of a whole, from 0 to 1, with one decimal: `12.3 %`. Nothing is `0.0 %`, of whichever
/// sign: the sum of no numbers is minus zero.
pub fn percent(part: f64) -> String {
    let tenths = (part * 1000.0).round();
    format!("{:.1} %", if tenths == 0.0 { 0.0 } else { tenths / 10.0 })
}

/// Bytes from the network for a message to a person: escaped, and cut to a readable length.
pub fn quoted(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(60)];
    let dots = if cut.len() < bytes.len() { "..." } else { "" };
    format!("\"{}\"{dots}", cut.escape_ascii())
}

/// The name that a mistyped one most likely meant.
pub(crate) fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    let scored = names.iter().map(|name| (levenshtein(typed, name), *name));
    scored.min().filter(|&(score, name)| score <= name.len() / 2).map(|(_, name)| name)
}

/// The same as a question for a message, with a space behind it, or nothing.
pub(crate) fn did_you_mean(typed: &str, names: &[&str]) -> String {
    nearest(typed, names).map(|near| format!("did you mean {near}? ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_figures_or_so() {
        assert_eq!(number(1_234_567.4), "1,234,567");
        assert_eq!([number(123.4), number(12.34), number(1.234)], ["123", "12.3", "1.23"]);
        assert_eq!([time(1500.0), time(2.5e9)], ["1.50 µs", "2.50 s"]);
        assert_eq!([bytes(100.0), bytes(2048.0)], ["100 B", "2.00 KiB"]);
        let nothing: f64 = [0.0; 0].iter().sum();
        assert_eq!([nothing, -0.0004, 0.0].map(percent), ["0.0 %"; 3]);
        assert_eq!([0.123, -0.02, 1.0].map(percent), ["12.3 %", "-2.0 %", "100.0 %"]);
    }
}
