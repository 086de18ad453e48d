//! What the gate found of a server, for people.

use super::table::draw;
use crate::target::gate::{CaseResult, Finding, Tier};

/// All cases, and what the server lacks.
pub fn verification(findings: &[Finding]) -> String {
    let rows: Vec<_> = findings.iter().map(finding_row).collect();
    let mut text = draw(&["case", "required", "result", ""], &rows, 4);
    let lacks = findings.iter().filter(|f| matches!(f.result, CaseResult::Lacks(_)));
    let lacks: Vec<_> = lacks.map(|finding| finding.what).collect();
    if !lacks.is_empty() {
        text.push_str(&format!("  lacks: {}\n", lacks.join(", ")));
    }
    text
}

fn finding_row(finding: &Finding) -> Vec<String> {
    let required = match finding.tier {
        Tier::Must => "of every server",
        Tier::Contract => "by the contract",
    };
    let (result, why) = match &finding.result {
        CaseResult::Pass => ("pass", ""),
        CaseResult::Fail(why) => ("FAIL", why.as_str()),
        CaseResult::Lacks(why) => ("lacks", why.as_str()),
        CaseResult::Unsupported(why) => ("unsupported", why.as_str()),
    };
    [finding.case, required, result, why].map(str::to_owned).to_vec()
}
