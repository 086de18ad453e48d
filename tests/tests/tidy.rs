//! The project's own tidiness: style that matters is a test, not a wish.
//!
//! Each rule is a checker, a pure function from text to complaints; a test that runs it over the
//! workspace; and a test that shows it a bad sample, so that no rule is one that cannot fail.
//! A complaint says where and what to do.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Files, or directories ending in `/`, where unsafe code may stand: the model cannot be spoken
/// without it.
const UNSAFE_ALLOWED: &[&str] = &[
    "crates/serve-may/src/main.rs",
    "crates/serve-polling/src/main.rs",
    "crates/serve-prefork/src/sys.rs",
    "crates/serve-sigio/src/signals.rs",
    "crates/serve-uring/src/",
];

/// The most lines of a server's `main.rs`: a program that is read in ten minutes.
const SERVER_LINES: usize = 400;

/// A function has fewer lines than this.
const FUNCTION_LINES: usize = 70;

/// The rules that the suite numbers; those of the chat beyond have no numbers.
const NUMBERS: u32 = 56;

/// The most columns of a line.
const COLUMNS: usize = 100;

#[test]
fn every_server_introduces_itself() {
    assert_tidy(servers().iter().flat_map(|server| header(&server.name, &server.main)));
}

#[test]
fn a_bad_header_is_noticed() {
    let good = "//! Waits in `read`.\n//!\n//! **Who waits where:** each thread, in `read`.\n\
                //! **What wakes it:** bytes.\n//! Run: `cargo run -p serve-x`\n\
                //! Read next: `serve-y`\nfn main() {}\n";
    assert_eq!(header("serve-x", good), [""; 0]);
    for missing in ["//! Waits in `read`.\n", "Who waits", "What wakes", "-p serve-x", "`serve-y`"]
    {
        assert_eq!(header("serve-x", &good.replacen(missing, "", 1)).len(), 1, "{missing}");
    }
}

#[test]
fn every_server_can_be_read_in_ten_minutes() {
    assert_tidy(servers().iter().filter_map(|server| too_long(&server.name, &server.main)));
}

#[test]
fn a_long_server_is_noticed() {
    assert!(too_long("serve-x", &"// line\n".repeat(SERVER_LINES)).is_none());
    assert!(too_long("serve-x", &"// line\n".repeat(SERVER_LINES + 1)).is_some());
}

#[test]
fn main_comes_first_in_every_server() {
    assert_tidy(servers().iter().filter_map(|server| main_first(&server.name, &server.main)));
}

#[test]
fn a_helper_before_main_is_noticed() {
    assert!(main_first("serve-x", "const A: u8 = 1;\nfn main() {}\nfn help() {}\n").is_none());
    assert!(main_first("serve-x", "fn help() {}\nfn main() {}\n").is_some());
    assert!(main_first("serve-x", "// fn main() {}\n").is_some());
}

#[test]
fn every_server_is_listed_and_described() {
    let models = read("loadgen/models.toml");
    let docs = ["README.md", "docs/ARCHITECTURE.md", "docs/MODELS.md"].map(read_if_there).concat();
    assert_tidy(servers().iter().flat_map(|server| {
        let directory = root().join("crates").join(&server.name);
        let has = |file: &str| directory.join(file).is_file();
        listed(&server.name, &models, &docs, has)
    }));
}

#[test]
fn a_server_that_nobody_knows_is_noticed() {
    let models = "[model.x]\npackage = \"serve-x\"\n";
    assert_eq!(listed("serve-x", models, "see serve-x", |_| true), [""; 0]);
    assert_eq!(listed("serve-x", "", "see serve-x", |_| true).len(), 1);
    assert_eq!(listed("serve-x", models, "see serve-xy", |_| true).len(), 1);
    assert_eq!(listed("serve-x", models, "see serve-x", |file| file != "README.md").len(), 1);
    assert_eq!(listed("serve-x", models, "see serve-x", |file| file == "README.md").len(), 1);
}

#[test]
fn functions_are_short() {
    assert_tidy(sources().iter().flat_map(|(path, text)| long_functions(path, text)));
}

#[test]
fn a_long_function_is_noticed() {
    let function =
        |lines: usize| format!("impl A {{\n    fn f() {{\n{}    }}\n}}\n", "//\n".repeat(lines));
    assert_eq!(long_functions("a.rs", &function(FUNCTION_LINES - 3)), [""; 0]);
    assert_eq!(long_functions("a.rs", &function(FUNCTION_LINES - 2)).len(), 1);
}

#[test]
fn lines_are_short() {
    assert_tidy(sources().iter().flat_map(|(path, text)| long_lines(path, text)));
}

#[test]
fn a_long_line_is_noticed() {
    assert_eq!(long_lines("a.rs", &"x".repeat(COLUMNS)), [""; 0]);
    assert_eq!(long_lines("a.rs", &"x".repeat(COLUMNS + 1)).len(), 1);
    assert_eq!(long_lines("a.rs", &format!("let a = \"{}\";", "x".repeat(COLUMNS))), [""; 0]);
}

#[test]
fn protocol_depends_on_nothing() {
    assert_tidy(dependencies(&read("crates/protocol/Cargo.toml")));
}

#[test]
fn a_dependency_of_protocol_is_noticed() {
    assert_eq!(dependencies("[dependencies]\n[dev-dependencies]\nproptest = \"1\"\n"), [""; 0]);
    assert_eq!(dependencies("[dependencies]\nmemchr = \"2\"\n").len(), 1);
    assert_eq!(dependencies("[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n").len(), 1);
}

#[test]
fn protocol_never_waits() {
    let sources =
        sources().into_iter().filter(|(path, _)| path.starts_with("crates/protocol/src/"));
    assert_tidy(sources.flat_map(|(path, text)| impure(&path, &text)));
}

#[test]
fn impurity_is_noticed() {
    for bad in [
        "use std::net::TcpStream;",
        "use std::io;",
        "std::thread::spawn(f);",
        "use std::{io, mem};",
        "use std::sync::{Arc, Mutex};",
        "static ONCE: OnceLock<u8> = OnceLock::new();",
        "let now = Instant::now();",
        "let now = SystemTime::now();",
    ] {
        assert_eq!(impure("a.rs", bad).len(), 1, "{bad}");
    }
    let harmless = "// No Mutex here.\nuse std::sync::Arc;\nlet a = \"std::io\";\n\
                    #[cfg(test)]\nmod tests {\n    use std::thread;\n}\n";
    assert_eq!(impure("a.rs", harmless), [""; 0]);
}

#[test]
fn unsafe_code_stands_where_it_may_and_says_why() {
    assert_tidy(sources().iter().flat_map(|(path, text)| unsafe_code(path, text, UNSAFE_ALLOWED)));
}

#[test]
fn unsafe_code_is_noticed() {
    let bare = "fn f() {\n    unsafe { g() }\n}\n";
    let said = "fn f() {\n    // SAFETY: g may be called.\n    unsafe { g() }\n}\n";
    assert_eq!(unsafe_code("sys/a.rs", said, &["sys/"]), [""; 0]);
    assert_eq!(unsafe_code("sys/a.rs", bare, &["sys/"]).len(), 1);
    assert_eq!(unsafe_code("other/a.rs", said, &["sys/"]).len(), 1);
    assert_eq!(unsafe_code("a.rs", "#![forbid(unsafe_code)] // not unsafe", &[]), [""; 0]);
}

#[test]
fn every_crate_opts_into_the_workspace_lints() {
    let workspace = read("Cargo.toml");
    let complaint = |(path, text): &(String, String)| lints(path, text, &workspace, UNSAFE_ALLOWED);
    assert_tidy(manifests().iter().filter_map(complaint));
}

#[test]
fn a_crate_without_lints_is_noticed() {
    let workspace = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\nb = \"warn\"\n";
    let lints = |manifest, allowed| lints("a/Cargo.toml", manifest, workspace, allowed);
    assert!(lints("[lints]\nworkspace = true\n", &[]).is_none());
    assert!(lints("[package]\nname = \"a\"\n", &[]).is_some());
    let repeated = "[lints.rust]\nunsafe_code = \"allow\"\nb = \"warn\"\n";
    assert!(lints(repeated, &["a/main.rs"]).is_none());
    assert!(lints(repeated, &["ab/main.rs"]).is_some());
    assert!(lints("[lints.rust]\nunsafe_code = \"allow\"\n", &["a/main.rs"]).is_some());
}

#[test]
fn nothing_is_left_for_later() {
    assert_tidy(sources().iter().flat_map(|(path, text)| left_for_later(path, text)));
}

#[test]
fn a_note_for_later_is_noticed() {
    for word in LATER {
        assert_eq!(left_for_later("a.rs", &format!("fn f() {{}} // {word}: more")).len(), 1);
    }
    assert_eq!(left_for_later("a.rs", "let a = \"TODO\"; // done"), [""; 0]);
}

#[test]
fn every_number_has_a_case_and_the_list_of_cases_is_true() {
    let in_suite = |(path, _): &(String, String)| path.starts_with("tests/src/cases/");
    let cases: String = sources().into_iter().filter(in_suite).map(|(_, text)| text).collect();
    assert_tidy(cases_unlisted(&read("tests/README.md"), &cases, NUMBERS));
}

#[test]
fn a_case_that_is_not_listed_is_noticed() {
    let cases = "/// 1: A\n/// rule.\nfn a(ctx: &Ctx) {}\n\n/// 2: B.\nfn b(ctx: &Ctx) {}\n";
    let list = "| 1 | first | `a` |\n| 2 | second | `b` |\n";
    assert_eq!(cases_unlisted(list, cases, 2), [""; 0]);
    assert_eq!(cases_unlisted(&list.replace("`b`", ""), cases, 2).len(), 1);
    assert_eq!(cases_unlisted(&list.replace("`b`", "`b`, `c`"), cases, 2).len(), 1);
    assert_eq!(cases_unlisted(list, cases, 3).len(), 1);
}

/// A server's `main.rs`.
struct Server {
    name: String,
    main: String,
}

fn header(server: &str, main: &str) -> Vec<String> {
    let lines: Vec<&str> = main.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let text = lines.join("\n").to_lowercase();
    let sibling = |(at, _): (usize, &str)| !text[at..].starts_with(server);
    let described = lines.first().is_some_and(|line| {
        let words = ["who waits", "what wakes", "run:", "read next"];
        line.ends_with('.') && !words.iter().any(|word| line.to_lowercase().contains(word))
    });
    let rules = [
        (described, "begin with one sentence (`//! ….`) that says what the model is"),
        (text.contains("who waits where"), "say who waits where (`Who waits where: …`)"),
        (text.contains("what wakes it"), "say what wakes it (`What wakes it: …`)"),
        (
            text.contains("cargo run") && text.contains(&format!("-p {server}")),
            "say how to run it (`Run: cargo run --release -p SERVER`)",
        ),
        (
            text.contains("read next") && text.match_indices("serve-").any(sibling),
            "say which sibling to read next (`Read next: serve-…`)",
        ),
    ];
    let broken = rules.iter().filter(|(kept, _)| !kept);
    broken.map(|(_, what)| format!("crates/{server}/src/main.rs: the header must {what}")).collect()
}

fn too_long(server: &str, main: &str) -> Option<String> {
    let count = main.lines().count();
    (count > SERVER_LINES).then(|| {
        format!(
            "crates/{server}/src/main.rs has {count} lines, more than {SERVER_LINES}: what never \
             waits goes to `protocol` or `launch`"
        )
    })
}

fn main_first(server: &str, main: &str) -> Option<String> {
    let first = code(main).lines().find_map(|line| function_name(line).map(str::to_owned));
    (first.as_deref() != Some("main")).then(|| {
        format!("crates/{server}/src/main.rs: `main` comes first, the helpers below, not {first:?}")
    })
}

fn listed(server: &str, models: &str, docs: &str, has: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    if !models.contains(&format!("package = \"{server}\"")) {
        complaints.push(format!("loadgen/models.toml has no model of {server}: add an entry"));
    }
    if !docs.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == server) {
        complaints.push(format!(
            "none of README.md, docs/ARCHITECTURE.md and docs/MODELS.md mentions {server}"
        ));
    }
    for (file, what) in [
        ("README.md", "say what the model is and what was measured"),
        ("tests/conformance.rs", "run the suite, as its siblings do"),
    ] {
        if !has(file) {
            complaints.push(format!("crates/{server} has no {file}: {what}"));
        }
    }
    complaints
}

/// A function begins where its name stands and ends at the brace in the same column: rustfmt sees
/// to that.
fn long_functions(path: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let lines: Vec<&str> = code.lines().collect();
    let mut complaints = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let ends =
            |line: &&str| line.trim_end() == closing || line.starts_with(&format!("{closing} "));
        let body = lines[start + 1..].iter().position(ends).map_or(0, |end| end + 2);
        // A function of one line, or one without a body, has no brace of its own to look for.
        let whole = line.trim_end().ends_with(['}', ';']);
        if !whole && body >= FUNCTION_LINES {
            complaints.push(format!(
                "{path}:{}: {name} has {body} lines, not fewer than {FUNCTION_LINES}: take it apart",
                start + 1
            ));
        }
    }
    complaints
}

/// The name of the function that is declared on this line of code.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let words = ["pub", "const", "async", "unsafe", "extern"];
    let qualifier = |word: &str| words.contains(&word) || word.starts_with("pub(");
    let declares =
        before.split_whitespace().all(|w| qualifier(w) || w.ends_with(')') || w == "\"\"");
    let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (declares && !name.is_empty()).then_some(name)
}

fn long_lines(path: &str, text: &str) -> Vec<String> {
    let long = text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS);
    // A string that cannot be broken without a change of what it says, or a link.
    let excused = |line: &str| line.contains('"') || line.contains("https://");
    long.filter(|(_, line)| !excused(line))
        .map(|(at, _)| format!("{path}:{}: more than {COLUMNS} columns: break the line", at + 1))
        .collect()
}

fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("a manifest");
    let mut tables = vec![&manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let kinds = ["dependencies", "build-dependencies"];
    let found = tables.iter().flat_map(|t| kinds.iter().filter_map(|&kind| t.get(kind)));
    found
        .filter_map(toml::Value::as_table)
        .flat_map(|names| names.keys())
        .map(|name| format!("crates/protocol/Cargo.toml: it depends on {name}: do without"))
        .collect()
}

fn impure(path: &str, text: &str) -> Vec<String> {
    const WORDS: &[&str] = &[
        "Mutex",
        "RwLock",
        "Condvar",
        "Barrier",
        "Once",
        "OnceLock",
        "LazyLock",
        "mpsc",
        "Instant",
        "SystemTime",
    ];
    const MODULES: &[&str] = &["net", "io", "thread", "fs", "process", "os"];
    let mut complaints = Vec::new();
    for (at, line) in without_tests(&code(text)).lines().enumerate() {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let module = words.contains(&"std") && words.iter().any(|word| MODULES.contains(word));
        if module || words.iter().any(|word| WORDS.contains(word)) {
            complaints.push(format!(
                "{path}:{}: `{}`: protocol has no I/O, thread, lock or clock; bytes and the time \
                 come in from the server",
                at + 1,
                line.trim()
            ));
        }
    }
    complaints
}

fn unsafe_code(path: &str, text: &str, allowed: &[&str]) -> Vec<String> {
    let may = allowed
        .iter()
        .any(|place| path == *place || place.ends_with('/') && path.starts_with(place));
    let lines: Vec<&str> = text.lines().collect();
    let mut complaints = Vec::new();
    for (at, line) in code(text).lines().enumerate() {
        if !line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
            continue;
        }
        let above = lines[..at].iter().rev().take_while(|line| {
            let line = line.trim_start();
            line.starts_with("//") || line.starts_with("#[")
        });
        let says_why =
            above.chain([&lines[at]]).any(|l| l.contains("SAFETY:") || l.contains("# Safety"));
        if !may {
            complaints.push(format!(
                "{path}:{}: unsafe code: use a safe wrapper, or add the file to UNSAFE_ALLOWED",
                at + 1
            ));
        } else if !says_why {
            complaints.push(format!(
                "{path}:{}: say in a `SAFETY:` comment above it which fact this relies on",
                at + 1
            ));
        }
    }
    complaints
}

/// The workspace's lints forbid unsafe code and cannot be softened in one place, so a crate where
/// it may stand repeats them all, with that one changed.
fn lints(path: &str, manifest: &str, workspace: &str, allowed: &[&str]) -> Option<String> {
    let manifest: toml::Table = manifest.parse().expect("a manifest");
    let own = manifest.get("lints");
    let opts_in = own.and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
    let directory = path.strip_suffix("Cargo.toml").expect("a manifest's path");
    let workspace: toml::Table = workspace.parse().expect("a manifest");
    let repeats = |level: &str| {
        let mut lints = workspace["workspace"]["lints"].clone();
        lints["rust"]["unsafe_code"] = level.into();
        own == Some(&lints)
    };
    let may_repeat = allowed.iter().any(|place| place.starts_with(directory));
    let tidy = opts_in == Some(true) || may_repeat && (repeats("allow") || repeats("deny"));
    (!tidy).then(|| {
        format!(
            "{path}: add `[lints]` with `workspace = true`, or where unsafe code may stand repeat \
             the workspace's with `unsafe_code = \"allow\"`"
        )
    })
}

/// What people write who mean to come back.
const LATER: &[&str] = &["TODO", "FIXME", "XXX"];

fn left_for_later(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, (line, code)) in text.lines().zip(code(text).lines()).enumerate() {
        // What is in the line and not in its code is a comment or a string; a comment has slashes.
        let comment = line.find("//").filter(|_| code.trim_end().len() < line.trim_end().len());
        let Some(from) = comment else { continue };
        let mut words = line[from..].split(|c: char| !c.is_alphanumeric());
        if let Some(word) = words.find(|word| LATER.contains(word)) {
            complaints.push(format!("{path}:{}: {word}: do it now, or file an issue", at + 1));
        }
    }
    complaints
}

/// The code alone: comments and what stands in literals are taken out, the lines stay.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = literal_or_comment(rest, code.chars().next_back());
        let length = skipped.unwrap_or(c.len_utf8());
        match skipped {
            None => code.push(c),
            Some(length) if c != '/' => {
                // A literal leaves its quotes, so that what stands around it does not run together.
                code.push_str("\"\"");
                code.extend(rest[..length].chars().filter(|&c| c == '\n'));
            }
            Some(length) => code.extend(rest[..length].chars().filter(|&c| c == '\n')),
        }
        rest = &rest[length..];
    }
    code
}

/// The length of the comment or literal that `rest` begins with, if it does.
fn literal_or_comment(rest: &str, before: Option<char>) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let raw = rest.trim_start_matches(['b', 'c']).strip_prefix('r').filter(|_| !in_word);
    if let Some(after) = raw {
        let hashes = after.len() - after.trim_start_matches('#').len();
        if after[hashes..].starts_with('"') {
            let closing = format!("\"{}", "#".repeat(hashes));
            let from = rest.len() - after.len() + hashes + 1;
            return Some(
                rest[from..].find(&closing).map_or(rest.len(), |at| from + at + closing.len()),
            );
        }
    }
    rest.starts_with('"').then(|| string(rest))
}

/// The length of the string literal that `rest` begins with.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of the character literal that `rest` begins with; none if it is a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inside = &rest[1..];
    if let Some(escape) = inside.strip_prefix('\\') {
        // The character after the backslash may itself be a quote.
        let skip = escape.chars().next()?.len_utf8();
        return escape[skip..].find('\'').map(|end| 2 + skip + end + 1);
    }
    let length = inside.chars().next()?.len_utf8();
    inside[length..].starts_with('\'').then_some(length + 2)
}

#[test]
fn code_is_told_from_comments_and_literals() {
    for (text, expected) in [
        ("a // b\nc", "a \nc"),
        ("a /* b\n */ c", "a \n c"),
        (r#"f("a \" // b") + 1"#, r#"f("") + 1"#),
        ("f(r#\"a \" b\"#)", "f(\"\")"),
        ("f('\"', '\\'', 'x')", "f(\"\", \"\", \"\")"),
        ("fn f<'a>(a: &'a str) {}", "fn f<'a>(a: &'a str) {}"),
        ("for r in b {}", "for r in b {}"),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
}

/// The code without its test modules; the lines stay.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let (mut about_to_skip, mut skipping) = (false, false);
    for line in code.lines() {
        about_to_skip |= line.starts_with("#[cfg(test)]");
        skipping |= about_to_skip && line.starts_with("mod ") && line.trim_end().ends_with('{');
        if !about_to_skip {
            kept.push_str(line);
        }
        kept.push('\n');
        if about_to_skip && (line == "}" || !skipping && line.trim_end().ends_with(';')) {
            (about_to_skip, skipping) = (false, false);
        }
    }
    kept
}

/// Compares the list of cases, rows of a number, a topic and names, with the numbers in the
/// comments of the cases themselves.
fn cases_unlisted(list: &str, cases: &str, numbers: u32) -> Vec<String> {
    let rows = list.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        Some((cells.next()?.parse::<u32>().ok()?, cells.nth(1)?))
    });
    let listed: BTreeSet<_> = rows
        .flat_map(|(number, names)| names.split('`').skip(1).step_by(2).map(move |n| (number, n)))
        .collect();
    let (mut written, mut number) = (BTreeSet::new(), None);
    for line in cases.lines() {
        if let Some((digits, _)) = line.strip_prefix("/// ").and_then(|text| text.split_once(": "))
        {
            // What else begins so is a numeric of the chat.
            number = digits.parse().ok().filter(|n| *n <= numbers).or(number);
        } else if !line.starts_with("///") {
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split_once("(ctx: &Ctx)"));
            written.extend(number.take().zip(name.map(|(name, _)| name)));
        }
    }
    let without = (1..=numbers).filter(|n| !written.iter().any(|(number, _)| number == n));
    let without = without.map(|n| format!("number {n} has no case: write one"));
    let differing = listed.symmetric_difference(&written);
    let differing = differing.map(|(n, name)| {
        format!("{n} {name}: make the comment of the case and the list in tests/README.md agree")
    });
    without.chain(differing).collect()
}

#[track_caller]
fn assert_tidy(complaints: impl IntoIterator<Item = String>) {
    let list = complaints.into_iter().fold(String::new(), |mut list, complaint| {
        write!(list, "\n  {complaint}").expect("a string takes anything");
        list
    });
    assert!(list.is_empty(), "not tidy:{list}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read_if_there(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

fn servers() -> Vec<Server> {
    let servers: Vec<Server> = sources()
        .into_iter()
        .filter_map(|(path, main)| {
            let name = path.strip_prefix("crates/")?.strip_suffix("/src/main.rs")?;
            name.starts_with("serve-").then(|| Server { name: name.to_owned(), main })
        })
        .collect();
    assert!(!servers.is_empty(), "no server was found: are they still in crates/serve-*?");
    servers
}

/// Every Rust file of the workspace: its path from the root, and its text.
fn sources() -> Vec<(String, String)> {
    files(|path| path.extension().is_some_and(|extension| extension == "rs"))
}

/// The manifests of all crates, the workspace's own left out.
fn manifests() -> Vec<(String, String)> {
    let mut manifests = files(|path| path.file_name().is_some_and(|name| name == "Cargo.toml"));
    manifests.retain(|(path, _)| path != "Cargo.toml");
    manifests
}

fn files(wanted: impl Fn(&Path) -> bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("list a directory of the workspace") {
            let path = entry.expect("an entry of a directory").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with("target") && !name.starts_with('.') {
                directories.push(path);
            } else if wanted(&path) {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push((name.clone(), read(&name)));
            }
        }
    }
    found.sort();
    found
}
