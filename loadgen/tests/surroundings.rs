//! What loadgen does where its surroundings are not ideal: nothing reads what it says, system calls
//! are denied, signals are inherited as ignored or blocked, its own file is replaced.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::Wrong;
use common::program::{LOADGEN, SHORT, folder, null_server};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::Value;

/// Short runs of one server in two rounds.
const ROUNDS: [&str; 4] = ["--workloads", "ping-pong", "--rounds", "2"];

/// A models file with the null reference as a server of the user's own.
fn models(dir: &Path) -> String {
    let path = dir.join("models.toml");
    let text = format!(
        "[model.one]\ncommand = \"{}\"\nmodes = [\"echo\"]\n[model.one.unsupported]\n\
         split-lines = \"no lines\"\nover-long-line = \"no limit\"\nnot-before-asked = \"no lines\"\n",
        null_server()
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A comparison of that server, which leaves a record in `dir`.
fn comparison(dir: &Path) -> Vec<String> {
    let (file, out) = (models(dir), dir.join("record").display().to_string());
    let args = ["compare", "--models-file", &file, "--models", "one", "--out", &out];
    [&args[..], &ROUNDS, &SHORT].concat().into_iter().map(str::to_owned).collect()
}

/// The end of a pipe that has no reader.
fn closed_pipe() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

/// A disk without room.
fn full_disk() -> Stdio {
    std::fs::File::options().write(true).open("/dev/full").unwrap().into()
}

/// The record of a comparison is whole.
fn assert_kept(dir: &Path, says: &str) {
    let read = |file| std::fs::read_to_string(dir.join("record").join(file)).unwrap();
    assert_eq!(read("runs.jsonl").lines().count(), 6, "three servers in two rounds: {says}");
    serde_json::from_str::<Value>(&read("result.json")).unwrap();
    assert!(read("report.html").contains("</html>"));
}

#[test]
fn progress_that_is_not_read_ends_no_comparison() {
    for (name, stderr) in [("unread", closed_pipe as fn() -> Stdio), ("unwritten", full_disk)] {
        let dir = folder(name);
        let output = Command::new(LOADGEN).args(comparison(&dir)).stderr(stderr()).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{name}: {text}");
        assert!(text.contains("2 of 2 rounds"), "{name}: {text}");
        assert_kept(&dir, name);
    }
}

#[test]
fn messages_that_are_not_read_change_no_exit_code() {
    let dir = folder("messages");
    let page = dir.join("page.html").display().to_string();
    let record = dir.join("record").display().to_string();
    let made = Command::new(LOADGEN).args(comparison(&dir)).output().unwrap();
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    let command = null_server();
    let run = [&["run", "--cmd", &command][..], &SHORT].concat();
    let calibrate = [&["calibrate", "--pairs", "1", "--rounds", "6"][..], &SHORT].concat();
    let cases: [(&[&str], i32); 7] = [
        (&["list"], 0),
        (&run, 0),
        (&calibrate, 0),
        (&["report", &record, "--html", &page], 0),
        (&["report", &record, "--against", &record], 2),
        (&["run", "--addr", "here"], 2),
        (&["run", "--cmd", "/no/such/server {addr}"], 1),
    ];
    for stderr in [closed_pipe as fn() -> Stdio, full_disk] {
        for (args, code) in cases {
            let output = Command::new(LOADGEN).args(args).stderr(stderr()).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{args:?}");
        }
    }
}

#[test]
fn a_result_that_is_not_read_is_kept_in_the_record() {
    for (name, stdout, code) in
        [("left", closed_pipe as fn() -> Stdio, 0), ("no-room", full_disk, 1)]
    {
        let dir = folder(name);
        let mut compare = Command::new(LOADGEN);
        let output =
            compare.args(comparison(&dir)).stdout(stdout()).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {stderr}");
        assert_kept(&dir, &stderr);
        assert!(!stderr.contains("panicked"), "{name}: {stderr}");
    }
}

#[test]
fn help_ends_as_the_other_results_do() {
    for (args, stdout, code) in [
        (["--help"], closed_pipe as fn() -> Stdio, 0),
        (["--help"], full_disk, 1),
        (["--version"], full_disk, 1),
    ] {
        let output = Command::new(LOADGEN).args(args).stdout(stdout()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}

/// What loadgen says where the kernel answers `EPERM` to a system call.
fn denied(call: libc::c_long, args: &[&str]) -> Output {
    let filter = SeccompFilter::new(
        [(call, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    // The filter is this thread's, and of the processes that it starts.
    std::thread::scope(|scope| {
        let deny = || {
            seccompiler::apply_filter(&filter).unwrap();
            Command::new(LOADGEN).args(args).output().unwrap()
        };
        scope.spawn(deny).join().unwrap()
    })
}

/// What loadgen says when `env` has changed its signals.
fn with_signals(change: &[&str], args: &[&str]) -> Output {
    Command::new("env").args(change).arg(LOADGEN).args(args).output().unwrap()
}

/// A server that is run, one that is verified and one that is compared end as usual, and one that
/// dies at once is reported as such.
fn assert_servers_end(what: &str, loadgen: &dyn Fn(&[&str]) -> Output) {
    let command = null_server();
    let output = loadgen(&[&["run", "--cmd", &command, "--json"][..], &SHORT].concat());
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{what}: {}", String::from_utf8_lossy(&output.stderr)));
    let reasons = value["run"]["verdict"]["reasons"].to_string();
    assert!(!reasons.contains("did not end") && !reasons.contains("ended by"), "{what}: {reasons}");
    let dir = folder(&format!("signals-{}", what.replace(|c: char| !c.is_alphanumeric(), "-")));
    let args = comparison(&dir);
    let output = loadgen(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{what}: {text}{stderr}");
    assert!(!text.contains("did not end"), "{what}: {text}");
    let output = loadgen(&["run", "--cmd", "false {addr}"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("did not start: exit code 1"), "{what}: {stderr}");
}

#[test]
fn without_pidfds_servers_end_as_usual() {
    assert_servers_end("no pidfd", &|args| denied(libc::SYS_pidfd_open, args));
}

#[test]
fn whatever_signals_are_inherited_servers_end_as_usual() {
    for change in [
        &["--ignore-signal=CHLD"][..],
        &["--ignore-signal=TERM"],
        &["--block-signal"],
        &["--ignore-signal", "--block-signal"],
    ] {
        assert_servers_end(&change.concat(), &|args| with_signals(change, args));
    }
}

#[test]
fn servers_inherit_neither_ignored_nor_blocked_signals() {
    let dir = folder("inherited");
    let script = dir.join("server.sh");
    let status = dir.join("status");
    // `grep` is started by the shell, which has changed nothing for it.
    let text = format!(
        "grep -E '^Sig(Blk|Ign)' /proc/self/status > {}\nexec {LOADGEN} null-server --listen $1\n",
        status.display()
    );
    std::fs::write(&script, text).unwrap();
    let command = format!("sh {} {{addr}}", script.display());
    let args = [&["run", "--cmd", &command][..], &SHORT].concat();
    let output = with_signals(&["--ignore-signal", "--block-signal"], &args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let masks = std::fs::read_to_string(&status).unwrap();
    let mask = |name: &str| {
        let line = masks.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0, "{masks}");
    // What a program's own fault raises cannot be ignored, whatever is set: SIGILL, SIGFPE. Two
    // belong to the C library. What nohup asks for is kept: SIGHUP.
    let of = |signal: i32| 1u64 << (signal - 1);
    let meaningless = of(libc::SIGILL) | of(libc::SIGFPE) | of(32) | of(33);
    assert_eq!(mask("SigIgn:") & !meaningless, of(libc::SIGHUP), "{masks}");
}

/// Echoes on every connection; before its first answer it suspends `loadgen`, which waits for that
/// answer, and lets it go on.
fn suspending_echo(listener: &TcpListener, loadgen: &Child) {
    let pid = rustix::process::Pid::from_child(loadgen);
    let process = procfs::process::Process::new(loadgen.id() as i32).unwrap();
    let reaches = |wanted| loop {
        match process.stat().unwrap().state {
            'Z' => panic!("loadgen has ended"),
            state if state == wanted => break,
            _ => std::thread::yield_now(),
        }
    };
    let (mut first, _) = listener.accept().unwrap();
    let mut line = [0; 6];
    first.read_exact(&mut line).unwrap();
    reaches('S');
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    reaches('T');
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    first.write_all(&line).unwrap();
    let listener = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        for peer in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &peer, &mut &peer));
        }
    });
}

#[test]
fn it_may_be_suspended_while_it_waits_for_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let mut run = Command::new(LOADGEN);
    run.args(["run", "--addr", &addr, "--connections", "4"]).args(SHORT);
    let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    suspending_echo(&listener, &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_the_right_to_pin_it_runs_unpinned_and_says_so() {
    let command = null_server();
    for more in [&[][..], &["--server-cpus", "0"]] {
        let args = [&["run", "--cmd", &command, "--json"][..], more, &SHORT].concat();
        let output = denied(libc::SYS_sched_setaffinity, &args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
        let verdict = &value["run"]["verdict"];
        assert_eq!((output.status.code(), &verdict["status"]), (Some(0), &"SUSPECT".into()));
        assert!(verdict["reasons"].to_string().contains("not pinned"), "{verdict}");
        assert!(stderr.contains("note: ") && stderr.contains("not pinned"), "{stderr}");
        assert_eq!(value["run"]["settings"]["server_cpus"], serde_json::json!([]));
    }
    let output = denied(libc::SYS_sched_setaffinity, &["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("not pinned"), "{text}");
}

#[test]
fn without_the_right_to_ask_for_processors_it_runs_unpinned() {
    let command = null_server();
    let args = [&["run", "--cmd", &command][..], &SHORT].concat();
    let output = denied(libc::SYS_sched_getaffinity, &args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("SUSPECT") && text.contains("not pinned"), "{text}");
}

#[test]
fn its_own_file_may_be_replaced_meanwhile() {
    let dir = folder("replaced");
    let own = dir.join("loadgen");
    // A link, and no copy: a process that another test starts meanwhile would have the copy open
    // for writing until it becomes its program, and what is open for writing cannot be run.
    std::fs::hard_link(LOADGEN, &own).unwrap();
    let args = comparison(&dir);
    let mut child = Command::new(&own)
        .args(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.starts_with("round 1 of 2")));
    // What a build leaves: another file under the name.
    std::fs::remove_file(&own).unwrap();
    std::fs::write(&own, "not a program").unwrap();
    let stderr: Vec<_> = lines.collect();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}\n{stderr:#?}");
    assert!(text.contains("2 of 2 rounds"), "{text}");
}

#[test]
fn exactly_the_rate_is_sent_by_any_number_of_threads() {
    let addr = common::echo(Wrong::Nothing).to_string();
    for (rate, threads, duration, messages) in [
        ("1", "4", "2s", 2),
        ("1", "8", "3s", 3),
        ("100", "7", "1s", 100),
        ("100", "7", "700ms", 70),
        ("3", "5", "500ms", 2),
    ] {
        for arrivals in ["poisson", "uniform"] {
            let args = ["run", "--addr", &addr, "--rate", rate, "--threads", threads, "--json"];
            let more = ["--duration", duration, "--warmup", "20ms", "--arrivals", arrivals];
            let output = Command::new(LOADGEN).args(args).args(more).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let value: Value = serde_json::from_slice(&output.stdout).expect(&stderr);
            let scheduled = &value["run"]["measured"]["open_loop"]["scheduled"];
            assert_eq!(scheduled, messages, "{rate}/s on {threads} threads in {duration}");
        }
    }
}

#[test]
fn all_addresses_of_a_name_are_tried_and_the_one_that_answered_is_named() {
    let dir = folder("names");
    let hosts = dir.join("hosts");
    std::fs::write(&hosts, "::1 many.test\n127.0.0.1 many.test\n").unwrap();
    // A view of the file system of its own, in which the name has two addresses.
    let in_view = |args: &[&str]| {
        let view = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
        let mut command = Command::new("unshare");
        command.args(["-rm", "bash", "-c", &view, "bash"]).args(args).output().unwrap()
    };
    if !in_view(&["true"]).status.success() {
        return eprintln!("skipped: no name may be given two addresses here");
    }
    let port = common::echo(Wrong::Nothing).port();
    let name = format!("many.test:{port}");
    let run = [&[LOADGEN, "run", "--addr", &name, "--json"][..], &SHORT].concat();
    let output = in_view(&run);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["run"]["server"], format!("{name} (127.0.0.1:{port})"));
    let output = in_view(&[LOADGEN, "verify", "--addr", &name, "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["server"], format!("{name} (127.0.0.1:{port})"));
    // Where none answers, each is named with its reason.
    let (_held, free) = common::refusing();
    let free = free.port();
    let output = in_view(&[LOADGEN, "run", "--addr", &format!("many.test:{free}")]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for part in
        [&format!("[::1]:{free}: "), &format!("127.0.0.1:{free}: "), "is a server listening"]
    {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn a_server_that_dies_at_once_is_reported_at_once() {
    let began = Instant::now();
    let output = Command::new(LOADGEN).args(["run", "--cmd", "false {addr}"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("did not start: exit code 1"), "{stderr}");
    // It is given up after ten.
    assert!(began.elapsed() < Duration::from_secs(9));
}

#[test]
fn a_port_that_another_program_has_taken_meanwhile_is_given_up() {
    let dir = folder("taken");
    let mark = dir.join("second").display().to_string();
    // The first time it is as if the port were taken.
    let shell = format!(
        "if [ -e {mark} ]; then exec {LOADGEN} null-server --listen $0; fi; \
         touch {mark}; echo bind: Address already in use >&2; exit 1"
    );
    let command = format!("sh -c '{shell}' {{addr}}");
    let run = |command: &str| {
        let args = ["run", "--cmd", command, "--duration", "50ms", "--warmup", "0s"];
        Command::new(LOADGEN).args(args).output().unwrap()
    };
    let output = run(&command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(std::path::Path::new(&mark).exists());
    let always = "sh -c 'echo bind: Address already in use >&2; exit 1' {addr}";
    assert_eq!(run(always).status.code(), Some(1), "it is not tried for ever");
}
