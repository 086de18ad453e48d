//! The project's own tidiness: style that matters is a test, not a wish.
//!
//! Each rule is a checker, a pure function from text to complaints; a test that runs it over the
//! workspace; and a test that shows it a bad sample, so that no rule is one that cannot fail.
//! A complaint says where and what to do.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use similar::{ChangeTag, TextDiff};

/// Files, or directories ending in `/`, where unsafe code may stand: the model cannot be spoken
/// without it.
const UNSAFE_ALLOWED: &[&str] = &[
    "crates/serve-may/src/main.rs",
    "crates/serve-polling/examples/bare.rs",
    "crates/serve-polling/src/main.rs",
    "crates/serve-prefork/examples/bare.rs",
    "crates/serve-prefork/src/sys.rs",
    "crates/serve-sigio/examples/bare.rs",
    "crates/serve-sigio/src/signals.rs",
    "crates/serve-uring/examples/bare.rs",
    "crates/serve-uring/src/",
    "loadgen/peers/rust/glommio_echo/src/main.rs",
    "loadgen/peers/rust/monoio_echo/src/main.rs",
];

/// The most lines of code of a server's `main.rs`, a program that is read in ten minutes; comments
/// and blank lines do not count, so none is ever cut to fit.
const SERVER_LINES: usize = 300;

/// The same for a model that needs more, if its README says why with these words.
const LONG_SERVER_LINES: usize = 360;
const EXPLAINED: &str = "more than 300 lines of code";

/// Siblings, and in how many lines of code at most their `main.rs` may differ: what differs is the
/// model, and a change to one of them is made to the other, too.
const SIBLINGS: &[(&str, &str, usize)] = &[
    ("serve-epoll-level", "serve-epoll-edge", 70),
    ("serve-epoll-edge", "serve-mio", 90),
    ("serve-select", "serve-poll", 60),
    ("serve-mio", "serve-polling", 146),
    ("serve-tokio", "serve-smol", 112),
    ("serve-tokio", "serve-async-std", 132),
];

/// The most lines of code of a model bare, which is shown on a screen; comments and blank lines do
/// not count.
const BARE_LINES: usize = 80;

/// The same for those whose system calls no crate wraps.
const RAW_BARE_LINES: usize = 120;
const RAW_BARE: &[&str] = &["serve-sigio", "serve-uring"];

/// A function has fewer lines than this.
const FUNCTION_LINES: usize = 70;

/// The rooms of the generator. Each may use those before it, and none after: so there is no cycle.
const ROOMS: &[&str] = &[
    "base", "workload", "drive", "target", "measure", "results", "record", "compare", "cluster",
    "show", "command",
];

/// Where they are.
const HOUSE: &str = "loadgen/src/";

/// The most lines of code of a file there, its tests included, and of each file of its tests.
const ROOM_LINES: usize = 400;

/// The rules that the suite numbers; those of the chat beyond have no numbers.
const NUMBERS: u32 = 67;

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
    assert_tidy(servers().iter().filter_map(|server| {
        let readme = read(&format!("crates/{}/README.md", server.name));
        too_long(&server.name, &server.main, &readme)
    }));
}

#[test]
fn a_long_server_is_noticed() {
    let lines = |code: usize| format!("{}// note\n\n", "f();\n".repeat(code));
    let reason = format!("It has {EXPLAINED}: it does two things at once.");
    assert!(too_long("serve-x", &lines(SERVER_LINES), "").is_none());
    assert!(too_long("serve-x", &lines(SERVER_LINES + 1), "").is_some());
    assert!(too_long("serve-x", &lines(LONG_SERVER_LINES), &reason).is_none());
    assert!(too_long("serve-x", &lines(LONG_SERVER_LINES + 1), &reason).is_some());
}

#[test]
fn siblings_differ_in_their_models_only() {
    assert_tidy(SIBLINGS.iter().filter_map(|&(one, other, most)| {
        let texts = [one, other].map(|name| read(&format!("crates/{name}/src/main.rs")));
        too_unlike(one, other, [&texts[0], &texts[1]], most)
    }));
}

#[test]
fn a_sibling_that_has_become_unlike_is_noticed() {
    let [one, other] = ["a();\n\nb(); // note\nc();\n", "// note\na();\nd();\nc();\n"];
    assert!(too_unlike("serve-x", "serve-y", [one, other], 2).is_none());
    assert!(too_unlike("serve-x", "serve-y", [one, other], 1).is_some());
}

#[test]
fn every_server_has_its_model_bare_beside_it() {
    assert_tidy(servers().iter().flat_map(|server| {
        let directory = format!("crates/{}", server.name);
        let manifest = read(&format!("{directory}/Cargo.toml"));
        let text = read_if_there(&format!("{directory}/examples/bare.rs"));
        bare(&server.name, &text, &manifest)
    }));
}

#[test]
fn a_model_that_is_not_bare_is_noticed() {
    let manifest = "[[example]]\nname = \"bare-x\"\npath = \"examples/bare.rs\"\n";
    let good = "//! Waits in `read`.\n//!\n//! **Who waits where:** in `read`.\n\
                //! **What wakes it:** bytes.\n//! Run: `cargo run -p serve-x --example bare-x`\n\
                //! **What it lacks**, and where `src/main.rs` has it: limits.\nfn main() {}\n";
    assert_eq!(bare("serve-x", good, manifest), [""; 0]);
    for missing in [
        "//! Waits in `read`.\n",
        "Who waits",
        "What wakes",
        "--example bare-x",
        "What it lacks",
        "src/main.rs",
        "fn main() {}",
    ] {
        assert_eq!(bare("serve-x", &good.replacen(missing, "", 1), manifest).len(), 1, "{missing}");
    }
    assert_eq!(bare("serve-x", good, "").len(), 1);
    assert_eq!(bare("serve-x", "", "").len(), 1);
    assert_eq!(bare("serve-x", &format!("{good}use protocol::Lines;\n"), manifest).len(), 1);

    let lines = |code: usize| format!("{good}{}// note\n\n", "f();\n".repeat(code - 1));
    assert_eq!(bare("serve-x", &lines(BARE_LINES), manifest), [""; 0]);
    assert_eq!(bare("serve-x", &lines(BARE_LINES + 1), manifest).len(), 1);
}

#[test]
fn what_a_model_bare_points_to_is_in_its_server() {
    let sources = sources();
    assert_tidy(servers().iter().flat_map(|server| {
        let directory = format!("crates/{}", server.name);
        let bare = read_if_there(&format!("{directory}/examples/bare.rs"));
        let own = sources.iter().filter(|(path, _)| path.starts_with(&format!("{directory}/src/")));
        let code: String = own.map(|(_, text)| code(text)).collect();
        points_nowhere(&server.name, &bare, &code)
    }));
}

#[test]
fn a_model_bare_that_points_nowhere_is_noticed() {
    let bare = "//! In `read`.\n//! **What it lacks**, and where `src/main.rs` has it:\n\
                //! - limits: `accept` and `Conn::run`, which calls `protocol`.\nfn main() {}\n";
    let server = "impl Conn {\n    async fn run() {}\n}\nfn accept() {}\n";
    assert_eq!(points_nowhere("serve-x", bare, server), [""; 0]);
    assert_eq!(points_nowhere("serve-x", bare, &server.replace("run", "runs")).len(), 1);
    assert_eq!(points_nowhere("serve-x", bare, &server.replace("Conn", "Connection")).len(), 1);
    assert_eq!(points_nowhere("serve-x", bare, "").len(), 2);
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
    let docs = ["README.md", "docs/ARCHITECTURE.md"].map(read).concat();
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
    let tests = |path: &str| path.contains("/tests/") || path.ends_with("/tests.rs");
    let sources = sources().into_iter();
    let sources =
        sources.filter(|(path, _)| path.starts_with("crates/protocol/src/") && !tests(path));
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
fn printing_never_ends_a_program() {
    let of_a_program = |path: &str| {
        let folder = |name: &str| path.starts_with("crates/") && path.contains(name);
        path.starts_with("loadgen/src/") || folder("/src/") || folder("/examples/")
    };
    let sources: Vec<_> = sources().into_iter().filter(|(path, _)| of_a_program(path)).collect();
    assert!(sources.iter().any(|(path, _)| path.ends_with("/examples/bare.rs")), "none is bare");
    assert_tidy(sources.iter().flat_map(|(path, text)| printing(path, text)));
}

#[test]
fn a_print_that_can_panic_is_noticed() {
    for name in PRINTING {
        assert_eq!(printing("a.rs", &format!("fn f() {{\n    {name}!(\"a\");\n}}\n")).len(), 1);
    }
    let harmless = "// println!\nlet a = \"print!\";\nwriteln!(out)?;\n\
                    #[cfg(test)]\nmod tests {\n    println!();\n}\n";
    assert_eq!(printing("a.rs", harmless), [""; 0]);
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

#[test]
fn every_promise_names_the_cases_that_show_it() {
    let in_suite = |(path, _): &(String, String)| path.starts_with("tests/src/cases/");
    let cases: String = sources().into_iter().filter(in_suite).map(|(_, text)| text).collect();
    assert_tidy(unshown("docs/RELIABILITY.md", &read("docs/RELIABILITY.md"), &cases));
}

#[test]
fn a_promise_without_a_case_is_noticed() {
    let cases = "fn a(ctx: &Ctx) {\n}\nfn b(ctx: &Ctx) {\n}\nfn help(ctx: &Ctx) -> u8 {\n}\n";
    let good = "| what | case |\n|---|---|\n| it stops | `a`, `b` |\n\n| else |\n|---|\n| `c` |\n";
    assert_eq!(unshown("X.md", good, cases), [""; 0]);
    assert_eq!(unshown("X.md", &good.replace("`b`", "`wrong`"), cases).len(), 1);
    assert_eq!(unshown("X.md", &good.replace("`b`", "`help`"), cases).len(), 1);
    assert_eq!(unshown("X.md", &good.replace("`a`, `b`", ""), cases).len(), 1);
    assert_eq!(unshown("X.md", "no table", cases).len(), 1);
}

#[test]
fn every_file_that_is_named_is_there() {
    let (files, entries) = (named_in(), entries());
    assert_tidy(files.iter().flat_map(|(path, text)| names_nothing(path, text, &entries)));
}

#[test]
fn a_file_that_is_not_there_is_noticed() {
    // With another sign for the slash, so that these are no names of files that this file names.
    let slashes = |text: &str| text.replace('%', "/");
    let there = ["README.md", "crates%x", "crates%x%src%main.rs", "docs", "docs%A.md"];
    let there: BTreeSet<String> = there.into_iter().map(slashes).collect();
    for (path, good) in [
        ("README.md", "see [it](docs%A.md), [a part](docs%A.md#part) and [more](#more)"),
        ("README.md", "see <https:%%a.b%docs%C.md> and [that](https:%%a.b%c.md)"),
        ("docs%A.md", "see [up](..%README.md), `main.rs`, `src%main.rs` and `crates%x%`"),
        ("docs%A.md", "for each `crates%serve-NAME%src%main.rs` or `crates%*`: `1%wait`"),
        ("crates%x%src%main.rs", "// As docs%A.md says, and `main.rs`."),
        ("crates%x%src%main.rs", "read(\"docs%A.md\"); format!(\"docs%{name}.md\")"),
    ] {
        assert_eq!(names_nothing(&slashes(path), &slashes(good), &there), [""; 0], "{good}");
    }
    for (path, bad) in [
        ("README.md", "see [it](docs%B.md)"),
        ("docs%A.md", "see [it](docs%A.md)"),
        ("docs%A.md", "see `docs%B.md`"),
        ("docs%A.md", "in `crates%y%`"),
        ("docs%A.md", "see `src%B.md`"),
        ("crates%x%src%main.rs", "// As docs%B.md says."),
        ("crates%x%src%main.rs", "//! | `src%hub.rs` | what it is |"),
        ("crates%x%src%main.rs", "read(\"docs%B.md\")"),
    ] {
        assert_eq!(names_nothing(&slashes(path), &slashes(bad), &there).len(), 1, "{path}: {bad}");
    }
}

#[test]
fn every_name_that_links_to_a_source_is_declared_there() {
    let documents = files(|path| path.extension().is_some_and(|extension| extension == "md"));
    let places = |(_, text): &(String, String)| text.lines().flat_map(named_places).count();
    assert!(
        documents.iter().map(places).sum::<usize>() > 100,
        "are the places not links any more?"
    );
    assert_tidy(documents.iter().flat_map(|(path, text)| undeclared(path, text, read_if_there)));
}

#[test]
fn a_name_that_is_not_declared_is_noticed() {
    let source = "pub struct Loop<T> {\n    pub now: T,\n}\n\nimpl<T> Loop<T> {\n    const A: u8 = 1;\n\n    fn run() {\n        gone();\n    }\n}\n\n\
                  enum Step {\n    Send,\n    Pause(u8),\n}\n\nconst MOST: u8 = 1;\n\
                  impl Drop for Step {\n    fn drop(&mut self) {}\n}\n// fn gone() {}\n";
    let complaints = |document: &str| undeclared("A.md", document, |_| source.to_owned());
    for good in ["run", "Loop", "Loop::run", "Loop::now", "Step::Pause", "Step::drop", "MOST"] {
        assert_eq!(complaints(&format!("see [`{good}`](b/../a.rs) and")), [""; 0], "{good}");
    }
    for bad in ["gone", "ru", "Loop::Send", "Step::run", "Loop::gone", "Gone::run", "Send"] {
        assert_eq!(complaints(&format!("[`run`](a.rs), [`{bad}`](a.rs#L1)")).len(), 1, "{bad}");
    }
    assert_eq!(complaints("[`gone`](a.md), [`gone 2`](a.rs), [gone](a.rs)"), [""; 0]);
}

#[test]
fn every_idea_in_the_index_has_a_place() {
    assert_tidy(placeless("docs/INDEX.md", &read("docs/INDEX.md")));
}

#[test]
fn an_idea_without_a_place_is_noticed() {
    let index = "| idea | where |\n|---|---|\n| a | [`f`](a.rs) |\n";
    assert_eq!(placeless("A.md", index), [""; 0]);
    assert_eq!(placeless("A.md", &format!("{index}| b | in `f` |\n")).len(), 1);
    assert_eq!(placeless("A.md", "").len(), 1);
}

#[test]
fn the_rooms_of_the_generator_use_those_before_them() {
    let house = house();
    let arrows: Vec<Arrow> = house.iter().flat_map(|(path, text)| arrows(path, text)).collect();
    for room in &ROOMS[1..] {
        let seen = arrows.iter().any(|arrow| arrow.from == *room && arrow.to != *room);
        assert!(seen, "no file of {room} uses another room: are the paths still read rightly?");
    }
    assert_tidy(arrows.iter().filter_map(Arrow::complaint));
    assert_tidy(house.iter().flat_map(|(path, text)| roundabout(path, text)));
}

#[test]
fn an_arrow_up_is_noticed() {
    let complaints = |path: &str, text: &str| -> Vec<String> {
        let path = format!("{HOUSE}{path}");
        let arrows = arrows(&path, text);
        let up = arrows.iter().filter_map(Arrow::complaint);
        up.chain(roundabout(&path, text)).collect()
    };
    for (path, good) in [
        ("drive/line.rs", "use crate::workload::{Mode, Workload};\nuse super::Poller;\n"),
        ("drive/line.rs", "// use crate::show;\nlet a = \"crate::show::run\";\n"),
        ("drive/gate/a.rs", "use super::super::line::Conn;\nuse crate::drive::Phase;\n"),
        ("drive/line.rs", "#[cfg(test)]\nmod tests {\n    use super::super::Poller;\n}\n"),
        ("drive/mod.rs", "mod a;\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n"),
        ("command/run.rs", "use crate::{base, show};\npub(crate) fn f() {}\n"),
    ] {
        assert_eq!(complaints(path, good), [""; 0], "{path}: {good}");
    }
    for (path, bad) in [
        ("drive/line.rs", "use crate::target::Server;\n"),
        ("drive/line.rs", "use crate::{base::text, target::Server};\n"),
        (
            "drive/line.rs",
            "use crate::{\n    base::{self, exit::{Misuse, asked}},\n    show,\n};\n",
        ),
        ("base/text.rs", "fn f(a: crate::workload::Mode) {}\n"),
        ("base/text.rs", "#[cfg(test)]\nmod tests {\n    use crate::drive::histogram;\n}\n"),
        ("drive/line.rs", "use super::super::target::Server;\n"),
        ("drive/mod.rs", "use super::target::Server;\n"),
        ("drive/line.rs", "use crate::*;\n"),
        ("judge.rs", "use crate::base::text;\n"),
    ] {
        assert_eq!(complaints(path, bad).len(), 1, "{path}: {bad}");
    }
}

#[test]
fn every_room_of_the_generator_introduces_itself() {
    assert_tidy(ROOMS.iter().flat_map(|room| introduction(room, &read_room(room))));
    let declared = read("loadgen/src/lib.rs");
    assert_tidy(ROOMS.iter().filter_map(|room| {
        let declared = declared.lines().any(|line| line == format!("pub mod {room};"));
        (!declared).then(|| format!("loadgen/src/lib.rs declares no room {room}"))
    }));
}

#[test]
fn a_room_that_does_not_introduce_itself_is_noticed() {
    let good = "//! What is asked.\n//!\n//! **Lives here:** a, and\n//! b.\n//!\n\
                //! **May use:** `base`,\n//! `workload`.\n//!\n//! **Must not know:** c.\n";
    assert_eq!(introduction("drive", good), [""; 0]);
    for missing in ["//! What is asked.\n", "Lives here", "`base`,", "Must not know"] {
        let bad = good.replacen(missing, "", 1);
        assert_eq!(introduction("drive", &bad).len(), 1, "{missing}");
    }
    assert_eq!(introduction("workload", good).len(), 1);
    assert_eq!(introduction("base", &good.replace("`base`,\n//! `workload`", "nothing")), [""; 0]);
    assert_eq!(introduction("command", good).len(), 1);
}

#[test]
fn the_files_of_the_generator_are_of_a_readable_length() {
    let mut files = house();
    files.extend(sources().into_iter().filter(|(path, _)| path.starts_with("loadgen/tests/")));
    assert!(files.iter().any(|(path, _)| path == "loadgen/tests/cli.rs"));
    assert_tidy(files.iter().filter_map(|(path, text)| too_long_for_a_room(path, text)));
}

#[test]
fn a_long_file_of_the_generator_is_noticed() {
    let lines = |code: usize| format!("{}// note\n\n", "f();\n".repeat(code));
    assert!(too_long_for_a_room("a.rs", &lines(ROOM_LINES)).is_none());
    assert!(too_long_for_a_room("a.rs", &lines(ROOM_LINES + 1)).is_some());
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

fn too_long(server: &str, main: &str, readme: &str) -> Option<String> {
    let most = if readme.contains(EXPLAINED) { LONG_SERVER_LINES } else { SERVER_LINES };
    let count = code_lines(&code(main));
    (count > most).then(|| {
        format!(
            "crates/{server}/src/main.rs has {count} lines of code, more than {most}: what never \
             waits goes to `protocol` or `launch`; if the model needs more, its README says why \
             ({EXPLAINED:?})"
        )
    })
}

fn too_unlike(one: &str, other: &str, texts: [&str; 2], most: usize) -> Option<String> {
    let [old, new] = texts.map(|text| {
        let code = code(text);
        code.lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    });
    let diff = TextDiff::from_lines(&old, &new);
    let count = diff.iter_all_changes().filter(|it| it.tag() != ChangeTag::Equal).count();
    (count > most).then(|| {
        format!(
            "{one} and {other} differ in {count} lines of code, more than {most}: write what is no \
             part of the model alike, with the same names in the same order"
        )
    })
}

/// Lines of `code`, a text without comments, that are not blank.
fn code_lines(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// The model bare of a server: its text, and the manifest that names its program.
fn bare(server: &str, text: &str, manifest: &str) -> Vec<String> {
    let path = format!("crates/{server}/examples/bare.rs");
    if text.is_empty() {
        return vec![format!("{path} is missing: show the model there, and nothing else")];
    }
    let name = server.replacen("serve-", "bare-", 1);
    let header: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let described = header.first().is_some_and(|line| line.ends_with('.') && !line.contains("**"));
    let header = header.join("\n");
    let most = if RAW_BARE.contains(&server) { RAW_BARE_LINES } else { BARE_LINES };
    let code = code(text);
    let count = code_lines(&code);
    let starts_with_main = code.lines().find_map(function_name) == Some("main");
    let foreign = ["protocol", "launch", "clap", "conformance"];
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    let own = !words.any(|word| foreign.contains(&word));
    let rules = [
        (described, "begin with one sentence (`//! ….`) that says what the model is".to_owned()),
        (header.contains("Who waits where"), "say who waits where".to_owned()),
        (header.contains("What wakes it"), "say what wakes it".to_owned()),
        (
            header.contains("cargo run") && header.contains(&format!("--example {name}")),
            format!("say how to run it (`cargo run --release -p {server} --example {name}`)"),
        ),
        (
            header.contains("What it lacks") && header.contains("src/main.rs"),
            "say what it lacks, and where `src/main.rs` has it".to_owned(),
        ),
        (count <= most, format!("have at most {most} lines of code, not {count}")),
        (starts_with_main, "begin with `main`, and have helpers below".to_owned()),
        (own, "use nothing of the project: no `protocol`, no `launch`, no `clap`".to_owned()),
        (
            manifest.contains(&format!("[[example]]\nname = \"{name}\"\n")),
            format!("be an `[[example]]` named {name:?} in Cargo.toml: names are unique"),
        ),
    ];
    let broken = rules.into_iter().filter(|(kept, _)| !kept);
    broken.map(|(_, what)| format!("{path}: it must {what}")).collect()
}

/// The functions that the header of a model bare names as the place of what it lacks, and that the
/// code of its server does not have.
fn points_nowhere(server: &str, bare: &str, code: &str) -> Vec<String> {
    let header = bare.lines().map_while(|line| line.strip_prefix("//!"));
    let lacks = header.skip_while(|line| !line.contains("What it lacks"));
    let lacks = lacks.collect::<Vec<_>>().join("\n");
    let mut complaints = Vec::new();
    for name in lacks.split('`').skip(1).step_by(2) {
        let (owner, function) = name.rsplit_once("::").unwrap_or(("", name));
        let is_declared = |word: &str| {
            let rest = |at: usize| code[at + word.len()..].starts_with([' ', '(', '<']);
            code.match_indices(word).any(|(at, _)| rest(at))
        };
        let is_function = is_declared(&format!("fn {function}"));
        let has_owner = owner.is_empty() || is_declared(&format!("impl {owner}"));
        let is_type = is_declared(&format!("struct {name}"));
        let is_elsewhere = name == "protocol" || name.ends_with(".rs");
        if !(is_function && has_owner || is_type || is_elsewhere) {
            complaints.push(format!(
                "crates/{server}/examples/bare.rs: its header points to `{name}`, which the server \
                 does not have: name the function that has it"
            ));
        }
    }
    complaints
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
            "neither README.md nor docs/ARCHITECTURE.md mentions {server}: list it there"
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

/// Macros that panic where nothing reads what they print, or a disk is full.
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

fn printing(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, line) in without_tests(&code(text)).lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '!');
        if words.any(|word| word.strip_suffix('!').is_some_and(|name| PRINTING.contains(&name))) {
            complaints.push(format!(
                "{path}:{}: `{}` panics where it cannot be written: write to the stream, and \
                 handle or leave the error",
                at + 1,
                line.trim()
            ));
        }
    }
    complaints
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

/// Of each table whose last column is headed `case`, the rows that name none there, or one that the
/// suite does not have.
fn unshown(path: &str, text: &str, cases: &str) -> Vec<String> {
    let declares = |line: &str, name: &str| line == format!("fn {name}(ctx: &Ctx) {{");
    let is_case = |name: &str| cases.lines().any(|line| declares(line, name));
    let (mut complaints, mut in_table, mut rows) = (Vec::new(), false, 0);
    for (at, line) in text.lines().enumerate() {
        let last = line.strip_suffix(" |").and_then(|row| Some(row.rsplit_once("| ")?.1));
        let Some(last) = last else {
            in_table &= line.starts_with("|--");
            continue;
        };
        if last == "case" {
            in_table = true;
        } else if in_table {
            rows += 1;
            let names: Vec<_> = last.split('`').skip(1).step_by(2).collect();
            if names.is_empty() {
                complaints.push(format!("{path}:{}: name the case that shows it", at + 1));
            }
            for name in names.into_iter().filter(|name| !is_case(name)) {
                complaints.push(format!("{path}:{}: there is no case {name}", at + 1));
            }
        }
    }
    if rows == 0 {
        complaints.push(format!("{path}: no table has a last column headed `case`"));
    }
    complaints
}

/// What a name of a file ends in.
const EXTENSIONS: &[&str] = &["md", "rs", "toml", "sh", "py", "json", "mjs", "go", "css"];

/// Where the files of the workspace are.
const FOLDERS: &[&str] = &["crates/", "docs/", "loadgen/", "tests/", "book/", ".ci/"];

/// Words that stand for a name of the reader's own.
const PLACEHOLDERS: &[&str] = &["NAME", "SERVER", "PACKAGE", "DIR", "X", "Y"];

/// A file may be named by its whole path or by the end of it, and a link by where it is from the
/// document's own folder. What stands in backticks is looked at, and what begins with one of
/// [`FOLDERS`]; what else has a dot in it may be anything.
fn names_nothing(path: &str, text: &str, there: &BTreeSet<String>) -> Vec<String> {
    let part_of_a_path = |c: char| c.is_alphanumeric() || "._-/{}<>*".contains(c);
    let is_there = |name: &str| {
        let name = name.trim_end_matches('/');
        there.contains(name) || there.iter().any(|entry| entry.ends_with(&format!("/{name}")))
    };
    let is_own = |name: &str| {
        let mut parts = name.split(|c: char| !c.is_alphanumeric());
        name.contains(['{', '}', '<', '>', '*']) || parts.any(|part| PLACEHOLDERS.contains(&part))
    };
    let has_extension = |name: &str| {
        name.rsplit_once('.')
            .is_some_and(|(stem, end)| !stem.is_empty() && EXTENSIONS.contains(&end))
    };
    let in_folder = |name: &str| FOLDERS.iter().any(|folder| name.starts_with(folder));
    let mut complaints = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        let quoted = quoted.filter(|name| !name.is_empty() && name.chars().all(part_of_a_path));
        let quoted = quoted.filter(|name| has_extension(name) || in_folder(name));
        let bare = line.split(|c| !part_of_a_path(c)).map(|word| word.trim_end_matches('.'));
        let bare = bare.filter(|name| has_extension(name) && in_folder(name));
        let named: BTreeSet<&str> = quoted.chain(bare).collect();
        let missing = named.into_iter().filter(|name| !is_own(name) && !is_there(name));
        let links = if path.ends_with(".md") { links(line) } else { Vec::new() };
        let broken = links.into_iter().filter(|link| !there.contains(&linked(path, link)));
        for name in missing.chain(broken).collect::<BTreeSet<_>>() {
            complaints.push(format!("{path}:{}: there is no {name}: name what is there", at + 1));
        }
    }
    complaints
}

/// The files of the workspace that a line of a document links to.
fn links(line: &str) -> Vec<&str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains("://")).collect()
}

/// The path from the workspace's root of what `document` links to.
fn linked(document: &str, link: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in link.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// What a document names as a link to the source that declares it, and that source: `f` of
/// `[`f`](a.rs)`.
fn named_places(line: &str) -> Vec<(&str, &str)> {
    let links = line
        .split("[`")
        .skip(1)
        .filter_map(|rest| rest.split_once("`]("))
        .filter_map(|(name, rest)| Some((name, rest.split(')').next()?.split('#').next()?)));
    let is_name = |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':');
    links.filter(|(name, file)| is_name(name) && file.ends_with(".rs")).collect()
}

fn undeclared(path: &str, text: &str, source: impl Fn(&str) -> String) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (name, file) in named_places(line) {
            if !declares(&code(&source(&linked(path, file))), name) {
                complaints.push(format!(
                    "{path}:{}: {file} declares no {name}: name what is there",
                    at + 1
                ));
            }
        }
    }
    complaints
}

/// Whether `code` declares `name`: an item, or with its type before it (`Type::name`) a method, a
/// variant or a field.
fn declares(code: &str, name: &str) -> bool {
    let Some((owner, member)) = name.split_once("::") else {
        return code.lines().any(|line| item_name(line) == Some(name));
    };
    let (mut in_type, mut in_impl) = (false, false);
    code.lines().any(|line| {
        if !line.is_empty() && !line.starts_with([' ', '}']) {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            in_type = item_name(line) == Some(owner);
            in_impl = line.starts_with("impl") && words.any(|word| word == owner);
        }
        // rustfmt sees to it that what stands in four columns is a member.
        let Some(line) = line.strip_prefix("    ").filter(|line| !line.starts_with(' ')) else {
            return false;
        };
        let field_or_variant = in_type && first_word(without_visibility(line)) == member;
        field_or_variant || (in_type || in_impl) && item_name(line) == Some(member)
    })
}

/// The name of the item that is declared on this line of code.
fn item_name(line: &str) -> Option<&str> {
    let kinds = ["struct", "enum", "trait", "type", "const", "static", "mod"];
    let (kind, rest) = without_visibility(line).split_once(' ')?;
    function_name(line).or_else(|| kinds.contains(&kind).then(|| first_word(rest)))
}

fn without_visibility(line: &str) -> &str {
    let line = line.trim_start();
    let visible = ["pub(crate) ", "pub(super) ", "pub "].iter();
    visible.filter_map(|word| line.strip_prefix(word)).next().unwrap_or(line)
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The rows of an index that name no place, and an index without rows.
fn placeless(path: &str, text: &str) -> Vec<String> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| idea");
    let rows: Vec<&str> = text.lines().filter(is_row).collect();
    let empty = rows.iter().filter(|row| named_places(row).is_empty());
    let complaints = empty.map(|row| format!("{path}: {row}: link to the place in the code"));
    let none = rows.is_empty().then(|| format!("{path}: there is no row: list ideas and places"));
    complaints.chain(none).collect()
}

/// One use of a room by a file of the generator.
struct Arrow {
    path: String,
    line: usize,
    from: String,
    to: String,
}

impl Arrow {
    /// What is wrong with it, if it does not point to a room before its own, or to its own.
    fn complaint(&self) -> Option<String> {
        let Self { path, line, from, to } = self;
        let place = |room: &str| ROOMS.iter().position(|known| *known == room);
        match (place(from), place(to)) {
            (Some(from), Some(to)) if to <= from => None,
            (Some(_), Some(_)) => Some(format!(
                "{path}:{line}: {from} uses {to}, which comes after it: move what is needed into \
                 {from} or a room before it"
            )),
            (None, _) => Some(format!("{path}:{line}: it is in no room: move it into one")),
            (_, None) => Some(format!("{path}:{line}: crate::{to} is no room: name the room")),
        }
    }
}

/// What a file of the generator names by `crate::`, in `use` lines and elsewhere, tests included.
/// What stands at the crate's root, `lib.rs` and `main.rs`, may use all rooms.
fn arrows(path: &str, text: &str) -> Vec<Arrow> {
    let inside = path.strip_prefix(HOUSE).unwrap_or(path);
    let mut arrows = Vec::new();
    if ["lib.rs", "main.rs"].contains(&inside) {
        return arrows;
    }
    let from = inside.split_once('/').map_or("", |(room, _)| room);
    let code = code(text);
    for (at, prefix) in code.match_indices("crate::") {
        let line = 1 + code[..at].matches('\n').count();
        for to in rooms_of(&code[at + prefix.len()..]) {
            arrows.push(Arrow { path: path.to_owned(), line, from: from.to_owned(), to });
        }
    }
    arrows
}

/// The first words of a path, or of each path in a group `{…}`, at the beginning of `rest`.
fn rooms_of(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else { return vec![first_word(rest).to_owned()] };
    let (mut depth, mut rooms, mut path) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => rooms.push(std::mem::take(&mut path)),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 0 => path.push(c),
            _ => {}
        }
    }
    rooms.push(path);
    let words = rooms.iter().map(|path| first_word(path.trim()).to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

/// Paths that leave their room through `super`: what they lead to would not be seen by [`arrows`].
fn roundabout(path: &str, text: &str) -> Vec<String> {
    let inside = path.strip_prefix(HOUSE).unwrap_or(path);
    if !inside.contains('/') {
        return Vec::new();
    }
    // So many steps up lead from the file's module to the crate's root; from its tests one more.
    let depth = inside.matches('/').count() + usize::from(!inside.ends_with("/mod.rs"));
    let code = code(text);
    let leaves = |code: &str, steps: usize| code.contains(&"super::".repeat(steps));
    let leads_out = leaves(&without_tests(&code), depth) || leaves(&code, depth + 1);
    let complaint = format!("{path}: a path leaves the room by super: write crate::ROOM");
    leads_out.then_some(complaint).into_iter().collect()
}

/// What the header of a room's `mod.rs` does not say. The rooms that it may use are those before
/// it, all of them by name; the last one need not name them.
fn introduction(room: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let described = lines.first().is_some_and(|line| line.ends_with('.') && !line.contains("**"));
    let header = lines.join(" ");
    let place = ROOMS.iter().position(|known| *known == room).unwrap_or_default();
    let may_use = header.split("**May use:**").nth(1).unwrap_or_default();
    let may_use = may_use.split("**").next().unwrap_or_default();
    let named: Vec<&str> = may_use.split('`').skip(1).step_by(2).collect();
    let all = place + 1 == ROOMS.len() && may_use.contains("every other room");
    let rules = [
        (described, "begin with one sentence (`//! ….`) that says what the room is".to_owned()),
        (header.contains("**Lives here:**"), "say what lives there (`**Lives here:** …`)".into()),
        (
            all || named == ROOMS[..place],
            format!("say what it may use (`**May use:** …`): {}", ROOMS[..place].join(", ")),
        ),
        (header.contains("**Must not know:**"), "say what it must not know".into()),
    ];
    let broken = rules.into_iter().filter(|(kept, _)| !kept);
    broken.map(|(_, what)| format!("{HOUSE}{room}/mod.rs: the header must {what}")).collect()
}

fn too_long_for_a_room(path: &str, text: &str) -> Option<String> {
    let count = code_lines(&code(text));
    (count > ROOM_LINES)
        .then(|| format!("{path} has {count} lines of code, more than {ROOM_LINES}: part it"))
}

/// The sources of the generator.
fn house() -> Vec<(String, String)> {
    sources().into_iter().filter(|(path, _)| path.starts_with(HOUSE)).collect()
}

/// The `mod.rs` of a room of the generator.
fn read_room(room: &str) -> String {
    read(&format!("{HOUSE}{room}/mod.rs"))
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
    // A workspace has no code of its own.
    manifests.retain(|(_, text)| text.contains("[package]"));
    manifests
}

/// The documents and sources that may name a file.
fn named_in() -> Vec<(String, String)> {
    let kinds = ["md", "rs", "toml", "sh", "py", "mjs", "go"];
    files(|path| path.extension().is_some_and(|kind| kinds.iter().any(|&one| kind == one)))
}

fn files(wanted: impl Fn(&Path) -> bool) -> Vec<(String, String)> {
    let paths = entries().into_iter().filter(|path| {
        let path = root().join(path);
        path.is_file() && wanted(&path)
    });
    paths.map(|path| (path.clone(), read(&path))).collect()
}

/// The paths from the root of all files and folders, what is built or hidden left out.
fn entries() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("list a directory of the workspace") {
            let path = entry.expect("an entry of a directory").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_built = name.starts_with("target") && folder == root();
            if is_built || name.starts_with('.') && name != ".ci" {
                continue;
            }
            let from_root = path.strip_prefix(root()).expect("below the root");
            found.insert(from_root.display().to_string());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}
