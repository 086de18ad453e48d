//! What a service manager and an operator expect: sockets that are handed over, word of how the
//! server is, and what it is told in files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::cases::process::{refuse, with_replies_pending};
use crate::cases::{Case, cases, may_have_workers};
use crate::client::{Client, pump_for};
use crate::manager::Manager;
use crate::server::{Outcome, Server};
use crate::surroundings::Surroundings;
use crate::watchdog::Ctx;

pub(super) const ECHO: &[Case] = cases![Echo:
    sockets_that_are_handed_over_are_served,
    several_sockets_are_shared_out_among_the_workers,
    sockets_that_cannot_be_served_are_one_clear_line,
    a_stop_leaves_the_socket_and_its_backlog_to_the_next,
    a_server_that_drains_leaves_the_backlog_alone needs 2,
    the_manager_hears_when_it_listens_and_when_it_stops,
    the_manager_may_have_gone,
    a_file_gives_flags_and_the_command_line_wins,
    a_wrong_file_of_flags_is_one_clear_line,
    several_addresses_are_listened_on,
    signs_of_life_are_given_while_each_worker_serves,
    no_sign_of_life_is_given_while_the_worker_is_stuck,
    the_counters_are_told_over_http,
    the_socket_of_the_counters_may_be_handed_over,
    no_thread_or_descriptor_is_there_unasked_for,
    connections_and_their_ends_are_logged,
    the_reason_of_an_end_is_logged,
    each_line_is_json,
    lines_of_text_have_the_time,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    the_password_comes_from_a_file,
    the_password_comes_from_the_credentials,
    a_wrong_password_file_is_one_clear_line,
    wrong_passwords_are_counted_and_logged,
    a_hangup_reads_the_files_anew,
    a_hangup_with_nothing_to_read_ends_the_server,
    the_files_of_the_service_in_the_docs_are_right,
];

/// A file or a directory that is gone with its case.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("conformance-file-{}", fastrand::u64(..)));
        std::fs::write(&path, text).expect("write a file");
        Self(path)
    }

    /// A directory with one file in it.
    fn directory(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("conformance-files-{}", fastrand::u64(..)));
        std::fs::create_dir(&path).expect("make a directory");
        std::fs::write(path.join(name), text).expect("write a file");
        Self(path)
    }

    pub(super) fn path(&self) -> &str {
        self.0.to_str().expect("a path of plain letters")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0).or_else(|_| std::fs::remove_dir_all(&self.0));
    }
}

/// How many workers to try.
fn workers(ctx: &Ctx) -> &'static [&'static str] {
    if may_have_workers(ctx) { &["1", "2", "3"] } else { &["1"] }
}

/// Several connections to one address, one after another: each is served.
#[track_caller]
fn serves_at(server: &mut Server, addr: SocketAddr) {
    for _ in 0..8 {
        server.at(addr).serves();
    }
}

/// 60: It listens on the sockets that it is handed over (LISTEN_FDS), with each number of workers,
/// and says so.
fn sockets_that_are_handed_over_are_served(ctx: &Ctx) {
    for workers in workers(ctx) {
        let manager = Manager::new(ctx, &["127.0.0.1:0", "127.0.0.2:0"]);
        let mut server = manager.start(ctx, &["--mode", "echo", "--workers", workers]);
        let addrs = [server.addr(), server.another_addr()];
        assert_eq!(addrs, [manager.addr(0), manager.addr(1)], "where it listens");
        for addr in addrs {
            serves_at(&mut server, addr);
        }
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(0), "the exit code");
    }
}

/// 60: Several sockets at one address are shared out among the workers: each socket has a worker,
/// or the connections in its backlog would wait for ever.
fn several_sockets_are_shared_out_among_the_workers(ctx: &Ctx) {
    for workers in workers(ctx) {
        for sockets in 2..=3 {
            let manager = Manager::sharing(ctx, "127.0.0.1:0", sockets);
            let mut server = manager.start(ctx, &["--mode", "echo", "--workers", workers]);
            assert_eq!(server.addr(), manager.addr(0), "where it listens");
            for _ in 0..30 {
                server.serves();
            }
            server.signal(Signal::TERM);
            assert_eq!(server.wait().code(), Some(0), "the exit code");
        }
    }
}

/// 60: What is handed over and is no listening TCP socket, or more than was asked for, is told in
/// one line; what is for another process is left alone.
fn sockets_that_cannot_be_served_are_one_clear_line(ctx: &Ctx) {
    let own = "export LISTEN_FDS=1 LISTEN_PID=$$";
    for (prelude, args, named) in [
        (format!("{own}; exec 3</dev/null"), &[][..], "descriptor 3"),
        (format!("{own}; exec 3<&-"), &[], "descriptor 3"),
        ("export LISTEN_FDS=many LISTEN_PID=$$".to_owned(), &[], "LISTEN_FDS"),
    ] {
        let outcome = ctx.outcome_after(&prelude, args);
        is_refused(&outcome, named);
    }
    let manager = Manager::new(ctx, &["127.0.0.1:0"]);
    let outcome = manager.outcome(ctx, &["--listen", "127.0.0.1:0"]);
    is_refused(&outcome, "--listen");
    let manager = Manager::new(ctx, &["0.0.0.0:0"]);
    is_refused(&manager.outcome(ctx, &[]), "--public");
    manager.start(ctx, &["--public"]).serves();
    let mut other = ctx.echo_after("export LISTEN_FDS=1 LISTEN_PID=1", &[]);
    other.serves();
    other.signal(Signal::TERM);
    assert_eq!(other.wait().code(), Some(0), "the exit code");
}

#[track_caller]
fn is_refused(outcome: &Outcome, named: &str) {
    assert_eq!(outcome.code, Some(2), "the exit code: {outcome:?}");
    assert_eq!(outcome.stderr.len(), 1, "one line: {outcome:?}");
    assert!(outcome.stderr[0].contains(named), "it names {named}: {outcome:?}");
}

/// 60: An upgrade: one server stops and another starts, on a socket that the manager keeps. No
/// attempt to connect is refused meanwhile, and who has come while there was no server is served.
fn a_stop_leaves_the_socket_and_its_backlog_to_the_next(ctx: &Ctx) {
    for workers in workers(ctx) {
        let args = ["--mode", "echo", "--workers", workers];
        let manager = Manager::new(ctx, &["127.0.0.1:0"]);
        let mut old = manager.start(ctx, &args);
        for _ in 0..3 {
            old.client().round_trip("before");
            old.signal(Signal::TERM);
            // These may still be accepted, and see the end; but they are not refused.
            let mut meanwhile: Vec<Client> = Vec::new();
            while !old.has_ended() {
                if meanwhile.len() < 50 {
                    meanwhile.push(old.client());
                }
                ctx.watch.awaiting("the old server to end");
            }
            assert_eq!(old.wait().code(), Some(0), "the exit code");
            drop(meanwhile);
            let mut waiting = old.clients(10);
            let next = manager.start(ctx, &args);
            for mut client in waiting.drain(..) {
                client.round_trip("after");
                client.half_close();
                client.expect_end();
            }
            old = next;
        }
    }
}

/// 60: While a server drains, connections that wait in the backlog for the next one do not make it
/// spin: each of its threads waits.
fn a_server_that_drains_leaves_the_backlog_alone(ctx: &Ctx) {
    let mut manager = Manager::new(ctx, &["127.0.0.1:0"]);
    let mut old = manager.start(ctx, &["--sendq", "64MiB", "--drain-timeout", "10m"]);
    let (slow, _) = with_replies_pending(&old);
    old.signal(Signal::TERM);
    manager.is_told("STOPPING=1");
    ctx.watch.until("all its threads to have heard", || old.is_asleep());
    let mut waiting = old.clients(2);
    for _ in 0..20 {
        ctx.watch.until("the draining server to sleep", || old.is_asleep());
    }
    let next = manager.start(ctx, &["--mode", "echo"]);
    for client in &mut waiting {
        client.round_trip("served by the next");
    }
    assert!(!old.has_ended(), "the old one has replies to deliver");
    drop((slow, next));
}

/// 61: The manager hears READY=1 once the server listens, and STOPPING=1 once it was told to stop.
fn the_manager_hears_when_it_listens_and_when_it_stops(ctx: &Ctx) {
    let mut manager = Manager::new(ctx, &[]);
    let mut server = manager.start(ctx, &["--mode", "echo", "--listen", "127.0.0.1:0"]);
    manager.is_told("READY=1");
    server.serves();
    server.signal(Signal::TERM);
    manager.is_told("STOPPING=1");
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 61: A manager that does not listen to it does not hurt.
fn the_manager_may_have_gone(ctx: &Ctx) {
    for socket in ["@iomodels-conformance-none", "/nonexistent/socket", "relative", "@", "/"] {
        let mut server = ctx.echo_after(&format!("export NOTIFY_SOCKET={socket}"), &[]);
        server.serves();
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(0), "the exit code with {socket}");
    }
}

/// 62: A file gives flags by their names; the command line wins.
fn a_file_gives_flags_and_the_command_line_wins(ctx: &Ctx) {
    let file = Scratch::new(
        "# of a unit\nlisten = [\"127.0.0.2:0\", \"127.0.0.3:0\"]\nmax-line = \"32B\"\nworkers = 1\n\
         public = false\nno-flood-control = true\nutf8-only = true\n",
    );
    let mut server = ctx.flags(&["--config", file.path(), "--mode", "echo"]);
    let addrs = [server.addr(), server.another_addr()].map(|addr| addr.ip().to_string());
    assert_eq!(addrs, ["127.0.0.2", "127.0.0.3"]);
    let long = format!("{}\n", "x".repeat(40));
    server.client().exchange(&long, "ERR line too long\r\n");
    let args = ["--config", file.path(), "--max-line", "64B", "--listen", "127.0.0.1:0"];
    let server = ctx.flags(&args);
    assert_eq!(server.addr().ip().to_string(), "127.0.0.1", "the command line wins");
    server.client().exchange(&long, &long);
}

/// 62: What is wrong in a file is told in one line that names the file and what is wrong.
fn a_wrong_file_of_flags_is_one_clear_line(ctx: &Ctx) {
    for (text, named) in [
        ("max-lin = 5", "--max-line"),
        ("listem = \"127.0.0.1:0\"", "--listen"),
        ("max-line = 5", "--max-line"),
        ("max-line = 1.5", "max-line"),
        ("workers = \"many\"", "many"),
        ("public = \"yes\"", "public"),
        ("[listen]\na = 1", "listen"),
        ("config = \"x\"", "config"),
        ("help = true", "help"),
        ("\"a=b\" = 1", "a=b"),
        ("mode = ", "line 1"),
        ("motd = \"/nonexistent/motd\"", "/nonexistent/motd"),
    ] {
        let file = Scratch::new(text);
        let line = refuse(ctx, Surroundings::Usual, &["--config", file.path()]);
        assert!(line.contains(named), "for {text:?} it says {line:?}");
        let read = !text.starts_with("motd");
        assert!(!read || line.contains(file.path()), "the file is named: {line:?}");
    }
    for file in ["/nonexistent/config", "/dev/zero"] {
        let line = refuse(ctx, Surroundings::Usual, &["--config", file]);
        assert!(line.contains(file), "for {file} it says {line:?}");
    }
}

/// 58: `--listen` may stand several times.
fn several_addresses_are_listened_on(ctx: &Ctx) {
    for workers in workers(ctx) {
        let args = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--workers", workers];
        let mut server = ctx.echo(&args);
        let addrs = [server.addr(), server.another_addr()];
        assert_eq!(addrs.map(|addr| addr.ip().to_string()), ["127.0.0.1", "127.0.0.2"]);
        for addr in addrs {
            serves_at(&mut server, addr);
        }
    }
    // None of them may be left out silently.
    let args = ["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0"];
    let line = refuse(ctx, Surroundings::Usual, &args);
    assert!(line.contains("--public") && line.contains("0.0.0.0:0"), "it says {line:?}");
}

/// With this password there is a way in, and with no other.
#[track_caller]
fn asks_for(server: &Server, password: &str) {
    for (pass, numeric) in [(password, " 001 "), ("wrong", " 464 "), ("", " 464 ")] {
        let mut client = server.client();
        if !pass.is_empty() {
            client.queue(format!("PASS :{pass}\r\n").as_bytes());
        }
        client.queue(b"NICK ann\r\nUSER ann 0 * :Ann\r\nQUIT\r\n");
        let heard = String::from_utf8_lossy(&client.read_to_end()).into_owned();
        assert!(heard.contains(numeric), "after {pass:?}: {heard:?}");
    }
}

/// 63: `--password-file`: the first line of a file is the password.
fn the_password_comes_from_a_file(ctx: &Ctx) {
    for text in ["open sesame\n", "open sesame", "open sesame\r\n"] {
        let file = Scratch::new(text);
        let server = ctx.chat(&["--password-file", file.path()]);
        asks_for(&server, "open sesame");
    }
    let shown = ctx.chat(&["--password", "sesame"]);
    asks_for(&shown, "sesame");
    let (_, said) = shown.end();
    assert!(said.iter().any(|line| line.contains("--password-file")), "it warns: {said:?}");
    assert!(said.iter().all(|line| !line.contains("sesame")), "it does not tell it: {said:?}");
}

/// 63: Without a flag, it is the credential `password`, where a service manager gives one.
fn the_password_comes_from_the_credentials(ctx: &Ctx) {
    let own = "export CREDENTIALS_DIRECTORY=$(mktemp -d)";
    let given = format!("{own}; echo sesame >$CREDENTIALS_DIRECTORY/password");
    asks_for(&ctx.chat_after(&given, &[]), "sesame");
    asks_for(&ctx.chat_after(&given, &["--password", "other"]), "other");
    ctx.chat_after(own, &[]).member("ann");
}

/// 63: A password that cannot be had is no reason to let anybody in.
fn a_wrong_password_file_is_one_clear_line(ctx: &Ctx) {
    let long = "x".repeat(600);
    for text in ["", "\n", "one\ntwo\n", "nul\0", &long] {
        let file = Scratch::new(text);
        let args = ["--mode", "chat", "--password-file", file.path()];
        let line = refuse(ctx, Surroundings::Usual, &args);
        assert!(line.contains(file.path()), "for {text:?} it says {line:?}");
    }
    for path in ["/nonexistent/password", "/dev/zero", "/"] {
        let args = ["--mode", "chat", "--password-file", path];
        let line = refuse(ctx, Surroundings::Usual, &args);
        assert!(line.contains("--password-file"), "for {path} it says {line:?}");
    }
    let file = Scratch::new("sesame\n");
    let args = ["--mode", "chat", "--password", "sesame", "--password-file", file.path()];
    let line = refuse(ctx, Surroundings::Usual, &args);
    assert!(line.contains("--password-file"), "it says {line:?}");
}

/// 61: A manager that asks for signs of life gets them, with any number of workers.
fn signs_of_life_are_given_while_each_worker_serves(ctx: &Ctx) {
    for workers in workers(ctx) {
        let mut manager = Manager::new(ctx, &[]).watching(200_000);
        let args = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--workers", workers];
        let mut server = manager.start(ctx, &args);
        for _ in 0..3 {
            manager.is_told("WATCHDOG=1");
        }
        server.serves();
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(0), "the exit code");
    }
}

/// 61: That the process is there is no sign of life: while its one worker is stuck, here with a
/// second of work, there is none. (How long there was none, no clock of this process can tell: it
/// may lose its processor between a sign and its coming.)
fn no_sign_of_life_is_given_while_the_worker_is_stuck(ctx: &Ctx) {
    let mut manager = Manager::new(ctx, &[]).watching(200_000);
    let server = manager.start(ctx, &["--listen", "127.0.0.1:0", "--work", "1s"]);
    manager.is_told("WATCHDOG=1");
    let mut client = server.client();
    client.send("work\n");
    ctx.watch.until("the worker to have read the line", || server.counter("bytes_in") > 0);
    manager.has_been_told("WATCHDOG=1");
    let mut signs = 0;
    loop {
        let told = manager.has_been_told("WATCHDOG=1");
        // Asked for afterwards: as long as nothing has been written, the worker was stuck.
        if server.counter("bytes_out") > 0 {
            break;
        }
        signs += told;
        let pace = Duration::from_millis(10);
        pump_for("the work to be done", slice::from_mut(&mut client), pace);
    }
    // One may have been on its way. There would be ten if the process were all that they tell of.
    assert!(signs <= 1, "{signs} signs of life while the worker was stuck");
    client.expect("work\n");
    manager.is_told("WATCHDOG=1");
}

/// What an HTTP server answers to this request.
#[track_caller]
fn ask(server: &mut Server, addr: SocketAddr, request: &str) -> String {
    let own = server.addr();
    let mut client = server.at(addr).client();
    server.at(own);
    client.send(request);
    String::from_utf8(client.read_to_end()).expect("text")
}

/// Where the server says that its counters are.
#[track_caller]
fn metrics_addr(server: &Server) -> SocketAddr {
    let line = server.says("metrics are on http://");
    let addr = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    addr.and_then(|addr| addr.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"))
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

/// 64: `--metrics`: the counters in the text format of OpenMetrics, and true.
fn the_counters_are_told_over_http(ctx: &Ctx) {
    let mut server = ctx.echo(&["--metrics", "127.0.0.1:0"]);
    let addr = metrics_addr(&server);
    let mut client = server.client();
    client.exchange("one\ntwo\n", "one\ntwo\n");
    let mut told = String::new();
    ctx.watch.until("the metrics to tell the truth", || {
        told = ask(&mut server, addr, GET);
        ["iomodels_lines_total 2", "iomodels_bytes_out_total 8", "iomodels_connections 1"]
            .iter()
            .all(|line| told.lines().any(|other| other == *line))
    });
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    assert!(told.contains("application/openmetrics-text"), "{told}");
    assert!(told.ends_with("\n# EOF\n"), "{told}");
    drop(client);
    ctx.watch.until("the connection to be gone", || {
        ask(&mut server, addr, GET).contains("\niomodels_connections 0\n")
    });
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("HEAD /metrics HTTP/1.0\r\n\r\n", "200"),
        ("GET /metrics?a=b HTTP/1.1\r\n\r\n", "200"),
    ] {
        let answer = ask(&mut server, addr, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    let line = refuse(ctx, Surroundings::Usual, &["--metrics", "0.0.0.0:0"]);
    assert!(line.contains("--metrics") && line.contains("--public"), "it says {line:?}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 64: The socket of the counters may be handed over as well, by its name.
fn the_socket_of_the_counters_may_be_handed_over(ctx: &Ctx) {
    let manager = Manager::new(ctx, &["127.0.0.1:0", "127.0.0.1:0"]).naming("chat:metrics");
    let mut server = manager.start(ctx, &[]);
    assert_eq!(server.addr(), manager.addr(0), "where it listens");
    assert!(ask(&mut server, manager.addr(1), GET).ends_with("# EOF\n"));
    server.serves();
}

/// 64: What is not asked for does not run.
fn no_thread_or_descriptor_is_there_unasked_for(ctx: &Ctx) {
    let plain = ctx.echo(&[]);
    let asked = ctx.echo(&["--metrics", "127.0.0.1:0"]);
    metrics_addr(&asked);
    for server in [&plain, &asked] {
        server.client().round_trip("here");
    }
    ctx.watch.until("a descriptor less without the flag", || {
        plain.usage().descriptors < asked.usage().descriptors
    });
    let names = |server: &Server| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.processes()[0]));
        let names = tasks.into_iter().flatten().flatten();
        names.filter_map(|it| std::fs::read_to_string(it.path().join("comm")).ok()).collect()
    };
    let names: Vec<String> = names(&plain);
    assert!(names.iter().all(|name| !["metrics\n", "watchdog\n"].contains(&name.as_str())));
}

/// 65: `--log-level connections`: each connection from its beginning to its end; by default none.
fn connections_and_their_ends_are_logged(ctx: &Ctx) {
    let server = ctx.echo(&["--log-level", "connections"]);
    server.client().round_trip("here");
    let begins = server.says("from 127.0.0.1 begins");
    let name = begins.split("connection ").nth(1).and_then(|rest| rest.split(" from").next());
    let name = name.unwrap_or_else(|| panic!("no name in {begins:?}"));
    server.says(&format!("connection {name} from 127.0.0.1 ends"));
    let quiet = ctx.echo(&[]);
    quiet.client().round_trip("here");
    ctx.watch.until("the connection to be gone", || quiet.counter("connections") == 0);
    assert!(quiet.said().iter().all(|line| !line.contains("127.0.0.1")), "{:?}", quiet.said());
}

/// 65: And why a connection has ended, each reason once.
fn the_reason_of_an_end_is_logged(ctx: &Ctx) {
    let mut server = ctx.echo(&["--log-level", "connections"]);
    server.client().round_trip("closes");
    server.says("client from 127.0.0.1 leaves: Connection closed");
    let mut client = server.client();
    client.round_trip("resets");
    client.reset();
    server.says("client from 127.0.0.1 leaves: Connection reset");
    let mut client = server.client();
    client.round_trip("stays");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
    let last = "client from 127.0.0.1 leaves: Server shutting down";
    let lines = server.last_words();
    assert!(lines.iter().any(|line| line.ends_with(last)), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains(" leaves: ")).count(), 3, "{lines:?}");
    let impatient = ctx.echo(&["--log-level", "connections", "--idle-timeout", "200ms"]);
    let _silent = impatient.client();
    impatient.says("client from 127.0.0.1 leaves: Timed out");
}

/// 65: `--log json`: each line is an object with the time, also that of a wrong command line.
fn each_line_is_json(ctx: &Ctx) {
    let args = ["--log", "json", "--log-level", "connections", "--metrics", "127.0.0.1:0"];
    let mut server = ctx.echo(&args);
    server.client().round_trip("here");
    server.says("\"ends\"");
    server.counters();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
    let mut lines = server.last_words();
    lines.push(refuse(ctx, Surroundings::Usual, &["--nonsense", "--log", "json"]));
    assert!(lines.len() > 5, "{lines:?}");
    for line in lines {
        let object: Value = serde_json::from_str(&line).unwrap_or_default();
        for key in ["time", "server", "level"] {
            assert!(object[key].is_string(), "{key} in {line:?}");
        }
    }
}

/// 65: A line of text begins with the time, in UTC.
fn lines_of_text_have_the_time(ctx: &Ctx) {
    let mut server = ctx.echo(&[]);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
    let line = server.says("told to stop");
    let time = line.split(' ').next().unwrap_or_default();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{line}");
}

/// 63: Wrong passwords are counted, and logged with the address they come from.
fn wrong_passwords_are_counted_and_logged(ctx: &Ctx) {
    let file = Scratch::new("sesame\n");
    let server = ctx.chat(&["--password-file", file.path()]);
    asks_for(&server, "sesame");
    ctx.watch.until("two to be counted", || server.counter("wrong_passwords") == 2);
    let line = server.says("wrong password");
    assert!(line.contains("127.0.0.1") && !line.contains("sesame"), "it says {line:?}");
}

/// 66: SIGHUP: the message of the day and the password are read anew; members stay, and the manager
/// is told.
fn a_hangup_reads_the_files_anew(ctx: &Ctx) {
    let (motd, password) = (Scratch::new("the old day\n"), Scratch::new("old\n"));
    let mut manager = Manager::new(ctx, &[]);
    let args = ["--mode", "chat", "--listen", "127.0.0.1:0"];
    let files = ["--motd", motd.path(), "--password-file", password.path()];
    let server = manager.start(ctx, &[&args[..], &files].concat());
    asks_for(&server, "old");
    std::fs::write(&motd.0, "the new day\n").expect("write a file");
    std::fs::write(&password.0, "new\n").expect("write a file");
    asks_for(&server, "old");
    let mut told = manager.is_told_after("RELOADING=1", || server.signal(Signal::HUP));
    assert!(told.starts_with("MONOTONIC_USEC="), "the manager is told {told:?}");
    told = manager.next_told("READY=1");
    assert_eq!(told, "READY=1");
    asks_for(&server, "new");
    let mut client = server.client();
    client.queue(b"PASS new\r\nNICK ann\r\nUSER ann 0 * :Ann\r\nQUIT\r\n");
    let heard = String::from_utf8_lossy(&client.read_to_end()).into_owned();
    assert!(heard.contains("the new day") && !heard.contains("the old day"), "{heard}");
    // A file that is wrong now changes nothing.
    std::fs::write(&password.0, "").expect("write a file");
    manager.is_told_after("RELOADING=1", || server.signal(Signal::HUP));
    manager.is_told("READY=1");
    server.says("stays with what it has");
    asks_for(&server, "new");
}

/// 66: With nothing to read anew SIGHUP stays what it is: the end, as with a terminal.
fn a_hangup_with_nothing_to_read_ends_the_server(ctx: &Ctx) {
    // The suite may have inherited it as ignored, as `nohup` leaves it.
    let mut server = ctx.chat_after("exec env --default-signal=HUP \"$0\" \"$@\"", &[]);
    server.signal(Signal::HUP);
    assert_eq!(server.wait().code(), None, "it was ended by the signal");
    let mut server = ctx.chat_after("trap '' HUP", &[]);
    server.signal(Signal::HUP);
    server.member("ann");
    assert!(!server.has_ended(), "ignored, it is ignored");
}

/// 62: The unit file and the file of flags in the docs start the server, on a socket that is handed
/// over and with the credential; what the unit reloads with reloads it.
fn the_files_of_the_service_in_the_docs_are_right(ctx: &Ctx) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/service");
    let unit = std::fs::read_to_string(docs.join("iomodels-chat.service")).expect("the unit");
    let setting = |name: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name} in the unit"))
    };
    assert_eq!(setting("Type="), "notify");
    assert_eq!(setting("ExecReload="), "/bin/kill -HUP $MAINPID");
    let flags = docs.join("chat.toml").to_string_lossy().into_owned();
    let motd = Scratch::new("Welcome.\n");
    let mut args: Vec<&str> = setting("ExecStart=").split(' ').skip(1).collect();
    for arg in &mut args {
        if *arg == "/etc/iomodels/chat.toml" {
            *arg = &flags;
        }
    }
    args.extend(["--motd", motd.path()]);
    let (credential, _) = setting("LoadCredential=").split_once(':').expect("ID:PATH");
    let directory = Scratch::directory(credential, "sesame\n");

    let mut manager = Manager::new(ctx, &["127.0.0.1:0"]).giving(&directory.0);
    let mut server = manager.start(ctx, &args);
    manager.is_told("READY=1");
    asks_for(&server, "sesame");
    manager.is_told_after("RELOADING=1", || server.signal(Signal::HUP));
    manager.is_told("READY=1");
    server.says("read anew");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}
