//! The process: signals, flags, outputs, exit codes.

use std::mem;
use std::net::TcpListener;
use std::process::Stdio;
use std::slice;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cases::{Case, cases};
use crate::client::{Client, End, pump, pump_for};
use crate::member::{Member, Message, gather};
use crate::server::Server;
use crate::surroundings::Surroundings;
use crate::watchdog::{Ctx, own_addr};

pub(super) const ECHO: &[Case] = cases![Echo:
    sigterm_delivers_what_is_pending_and_exits_zero,
    sigterm_does_not_reset_a_client_that_talks,
    sigterm_and_sigint_with_nothing_to_drain_exit_at_once,
    sigterm_ends_three_hundred_at_once needs 300,
    the_hard_stop_comes_after_the_drain_timeout,
    a_second_signal_ends_it_at_once,
    a_stop_is_seen_while_lines_are_worked_on,
    kill_9_under_load_and_start_again needs 20,
    a_killed_suite_leaves_no_server_behind,
    a_storm_of_signals_loses_no_byte needs 4,
    bad_flags_exit_2_with_one_line,
    other_addresses_need_public,
    a_closed_standard_output_does_not_hurt,
    a_closed_standard_error_does_not_hurt,
    a_full_standard_error_does_not_hurt,
    a_full_standard_output_does_not_hurt,
    the_counters_tell_the_truth,
    a_line_costs_at_most_two_wakeups,
];

/// For this project's servers.
pub(super) const OWN_ECHO: &[Case] = cases![Echo:
    sigterm_leaves_time_to_take_what_the_kernel_holds,
];

/// Where all connections wait while one line is worked on, and what has come is in no socket. A
/// server with a thread for each has read the half line by then, and its client is idle.
pub(super) const URING_ECHO: &[Case] = cases![Echo only "serve-uring":
    sigterm_does_not_reset_a_client_in_the_middle_of_a_line needs 4,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    sigterm_says_goodbye_in_chat needs 2,
    sigterm_ends_three_hundred_in_chat_at_once needs 300,
    sigterm_does_not_wait_for_members_that_have_gone needs 3,
    sigterm_does_not_reset_a_member_that_talks,
];

pub(super) const PREFORK_ECHO: &[Case] = cases![Echo only "serve-prefork":
    a_killed_process_takes_its_client_along_and_is_replaced,
];

pub(super) const PREFORK_CHAT: &[Case] = cases![Chat only "serve-prefork":
    a_killed_process_is_a_quit_and_the_others_miss_nothing,
];

/// How long no server may take that has nothing to wait for; far less than its drain timeout.
pub(super) const AT_ONCE: Duration = Duration::from_secs(20);

/// A client with 8 MiB of replies pending that it has not begun to read. Its buffers are small, so
/// that most of them wait in the server and not in the kernel.
#[track_caller]
pub(super) fn with_replies_pending(server: &Server) -> (Client, String) {
    let mut client = server.client_with_buffers(64 * 1024);
    let text = format!("{}\n", "x".repeat(1023)).repeat(8 * 1024);
    client.reading = false;
    client.send(&text);
    // Taken by the kernel is not yet taken by the server: its own count says when it is.
    server.watch().until("the server to have read it all", || {
        server.counter("bytes_in") >= text.len() as u64
    });
    (client, text)
}

/// 46: SIGTERM while replies are pending: each arrives, then the end of the stream; exit code 0.
fn sigterm_delivers_what_is_pending_and_exits_zero(ctx: &Ctx) {
    let mut server = ctx.echo(&["--sendq", "64MiB", "--drain-timeout", "60s"]);
    let (mut client, text) = with_replies_pending(&server);
    server.signal(Signal::TERM);
    client.reading = true;
    client.expect(&text);
    client.expect_end();
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 46: A client that talks and has not read when the server stops: all that was written to it comes
/// and then the end of the stream. Closed with something unread, its connection would be reset, and
/// a reset throws away what the kernel has taken and the client has not.
fn sigterm_does_not_reset_a_client_that_talks(ctx: &Ctx) {
    let mut server = ctx.echo(&["--drain-timeout", "60s"]);
    let mut client = server.client();
    let text = format!("{}\n", "x".repeat(1023)).repeat(64 << 10);
    client.reading = false;
    client.queue(text.as_bytes());
    // It has stopped reading when it has told its count often, and it was the same.
    let (mut taken, mut rounds) = (0, 0);
    while rounds < 50 {
        let patience = Duration::from_millis(2);
        pump_for("the server to pause", slice::from_mut(&mut client), patience);
        let before = mem::replace(&mut taken, server.counter("bytes_in"));
        rounds = if taken > before { 0 } else { rounds + 1 };
    }
    server.signal(Signal::TERM);
    client.reading = true;
    let heard = client.read_to_end();
    assert_eq!(client.end(), Some(End::Closed), "how the stream ended");
    drop(client);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
    assert_eq!(server.last_counters()["bytes_out"], heard.len(), "the bytes that were written");
    assert!(text.as_bytes().starts_with(&heard), "the bytes that came back");
}

/// 46: A client whose replies have all been written, and that has not taken them yet, is not idle:
/// they wait in the kernel. Closed at once, its connection would be reset when it talks again, and
/// the replies be thrown away.
fn sigterm_leaves_time_to_take_what_the_kernel_holds(ctx: &Ctx) {
    let mut server = ctx.echo(&["--drain-timeout", "60s"]);
    // Much more than the client's buffers hold, and less than the server's.
    let mut client = server.client_with_buffers(4096);
    let text = format!("{}\n", "x".repeat(1023)).repeat(32);
    client.reading = false;
    client.send(&text);
    server.watch().until("the server to have written it all", || {
        server.counter("bytes_out") >= text.len() as u64
    });
    server.signal(Signal::TERM);
    // A server that takes the client for idle closes it about as soon as the listening socket. A
    // line that came before that would only show that a client which talks is none.
    server.says("told to stop");
    server.watch().until("the port to be free", || TcpListener::bind(server.addr()).is_ok());
    let patience = Duration::from_millis(50);
    pump_for("the stop to come to it", slice::from_mut(&mut client), patience);
    client.send("one more\n");
    client.reading = true;
    let heard = client.read_to_end();
    assert_eq!(client.end(), Some(End::Closed), "how the stream ended");
    assert!(heard.starts_with(text.as_bytes()), "{} bytes came back", heard.len());
    drop(client);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 46: Nor a client that is in the middle of a line, which has come but has not been looked at: the
/// server is at work meanwhile, and more than it reads at once has come from others before.
fn sigterm_does_not_reset_a_client_in_the_middle_of_a_line(ctx: &Ctx) {
    let mut server = ctx.echo(&["--work", "500ms", "--drain-timeout", "60s"]);
    let (mut busy, mut crowd, mut talker) = (server.client(), server.clients(2), server.client());
    server.watch().until("all to be accepted", || server.counter("accepts") >= 4);
    busy.send("work\n");
    server.watch().until("the line to be read", || server.counter("bytes_in") >= 5);
    for client in &mut crowd {
        client.send("x".repeat(48 << 10));
    }
    talker.send("half a ");
    server.signal(Signal::TERM);
    talker.expect_end();
    // It may go on until it has seen the end. The first line would be answered with a reset.
    for _ in 0..2 {
        talker.send("line\n");
    }
    assert!(!talker.is_refused(), "closed before the client had ended its stream");
    drop((busy, crowd, talker));
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 46: With nothing to drain it exits at once, and an idle client sees the end of the stream.
fn sigterm_and_sigint_with_nothing_to_drain_exit_at_once(ctx: &Ctx) {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = ctx.echo(&["--drain-timeout", "10m"]);
        let mut idle = server.client();
        idle.round_trip("here");
        let started = std::time::Instant::now();
        server.signal(signal);
        idle.expect_end();
        assert_eq!(server.wait().code(), Some(0), "the exit code after {signal:?}");
        assert!(started.elapsed() < AT_ONCE, "{:?} for nothing", started.elapsed());
        assert!(server.last_counters()["accepts"].is_u64(), "counters on exit");
    }
}

/// 46: A client that never reads does not keep it longer than the drain timeout.
fn the_hard_stop_comes_after_the_drain_timeout(ctx: &Ctx) {
    let mut server = ctx.echo(&["--sendq", "64MiB", "--drain-timeout", "500ms"]);
    let (client, _) = with_replies_pending(&server);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
    drop(client);
}

/// 46: A second signal ends it at once, whatever is pending. The signals repeat until it is gone:
/// two that come too close may be taken for one.
fn a_second_signal_ends_it_at_once(ctx: &Ctx) {
    let mut server = ctx.echo(&["--sendq", "64MiB", "--drain-timeout", "10m"]);
    let (mut client, _) = with_replies_pending(&server);
    let started = std::time::Instant::now();
    while !server.has_ended() {
        server.signal(Signal::TERM);
        pump_for("the server to end", slice::from_mut(&mut client), Duration::from_millis(50));
    }
    assert!(started.elapsed() < AT_ONCE, "it took {:?}", started.elapsed());
}

/// 46: Lines that are work do not keep it longer than the drain timeout, though all of them have
/// been read when the signal comes: here they are twenty seconds of work.
fn a_stop_is_seen_while_lines_are_worked_on(ctx: &Ctx) {
    let mut server = ctx.echo(&["--work", "20ms", "--drain-timeout", "2s"]);
    let mut client = server.client();
    client.round_trip("here");
    client.send("\n".repeat(1024));
    let before = server.usage().ticks;
    server.watch().until("the server to be at work", || server.usage().ticks > before + 5);
    let started = std::time::Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
    let took = started.elapsed();
    assert!(took < AT_ONCE / 2, "it took {took:?}, with two seconds to drain");
}

/// 46: Members that have closed when it says goodbye answer with a reset, and are not waited for.
fn sigterm_does_not_wait_for_members_that_have_gone(ctx: &Ctx) {
    let mut server = ctx.chat(&["--drain-timeout", "10m"]);
    let members: Vec<Member> = (0..20).map(|n| server.member(&format!("m{n}"))).collect();
    server.freeze();
    drop(members);
    server.signal(Signal::TERM);
    server.thaw();
    assert_eq!(server.wait().code(), Some(0), "the exit code");
    assert_eq!(server.last_counters()["timed_out"], 0, "of those who had gone");
}

/// 46: However many there are, a stop reaches all of them, and the drain timeout need not help.
fn sigterm_ends_three_hundred_at_once(ctx: &Ctx) {
    stop_three_hundred(ctx.echo(&["--drain-timeout", "10m"]));
}

/// 46: The same in chat, where each has last words to come.
fn sigterm_ends_three_hundred_in_chat_at_once(ctx: &Ctx) {
    stop_three_hundred(ctx.chat(&["--drain-timeout", "10m"]));
}

fn stop_three_hundred(mut server: Server) {
    let mut clients: Vec<Client> = (0..300).map(|_| server.client()).collect();
    while server.counter("accepts") < 300 {}
    server.signal(Signal::TERM);
    for client in &mut clients {
        client.read_to_end();
    }
    drop(clients);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 46: In chat everybody is told, then the stream ends.
fn sigterm_says_goodbye_in_chat(ctx: &Ctx) {
    let mut server = ctx.chat(&[]);
    let (mut ann, mut bob) = (server.member("ann"), server.member("bob"));
    gather("#c", &mut [&mut ann, &mut bob]);
    server.signal(Signal::TERM);
    ann.is_cut();
    bob.is_cut();
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 46: Nor does a member lose its last words that is talking when the server stops: closed with
/// something unread, its connection would be reset, and a reset may overtake what was sent before.
fn sigterm_does_not_reset_a_member_that_talks(ctx: &Ctx) {
    let mut server = ctx.chat(&["--max-recvq", "1MiB"]);
    let mut ann = server.member("ann");
    // Far over its ration: most of it waits in the kernel.
    ann.client.send("PING t\r\n".repeat(30_000));
    ann.gets("PONG");
    server.signal(Signal::TERM);
    ann.is_cut();
    assert_eq!(ann.client.end(), Some(End::Closed), "how the stream ended");
    drop(ann);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 47: Killed under load, it starts again on the same port and serves.
fn kill_9_under_load_and_start_again(ctx: &Ctx) {
    let mut server = ctx.echo(&["--listen", &own_addr()]);
    let addr = server.addr();
    let mut clients = server.clients(20);
    for client in &mut clients {
        client.queue("load\n".repeat(100_000).as_bytes());
    }
    pump("the load to be under way", &mut clients, |clients| {
        clients.iter().all(|client| client.incoming.len() > 1000)
    });
    server.kill();
    pump("the killed server's connections to end", &mut clients, |clients| {
        clients.iter().all(|client| client.end().is_some())
    });
    let server = ctx.echo(&["--listen", &addr.to_string()]);
    server.serves();
}

/// 47: Killed itself, the suite takes the server along, all processes of it: none listens any
/// more. (It is the promise of the suite, and of a server that its own processes end with it.)
fn a_killed_suite_leaves_no_server_behind(ctx: &Ctx) {
    let mut suite = ctx.echo_held(&["--listen", &own_addr()]);
    let mut client = suite.client();
    client.round_trip("here");
    suite.kill();
    client.read_to_end();
    ctx.watch.until("the port to be free", || TcpListener::bind(suite.addr()).is_ok());
}

/// 48: The process of one client is killed while all are served: only that client notices. Then all
/// are killed that serve none or have lost their client; there are new ones to take their place.
fn a_killed_process_takes_its_client_along_and_is_replaced(ctx: &Ctx) {
    for workers in ["1", "3"] {
        let server = ctx.echo(&["--workers", workers]);
        let mut clients = server.clients(8);
        let text = "served all the while\n".repeat(100_000);
        for client in &mut clients {
            client.queue(text.as_bytes());
        }
        pump("all to be served", &mut clients, |clients| {
            clients.iter().all(|client| client.incoming.len() > 1000)
        });
        let mut victim = clients.remove(0);
        kill(server.process_of(&victim));
        victim.read_to_end();
        for client in &mut clients {
            client.expect(&text);
        }
        let busy: Vec<_> = clients.iter().map(|client| server.process_of(client)).collect();
        let mut idle = server.processes().split_off(1);
        idle.retain(|pid| !busy.contains(pid));
        idle.iter().copied().for_each(kill);
        // One that is still on its way out may have accepted a newcomer and take it along.
        server.watch().until("the killed to be gone", || {
            server.processes().iter().all(|pid| !idle.contains(pid))
        });
        server.clients(8).iter_mut().for_each(|client| client.round_trip("new here"));
        clients.iter_mut().for_each(|client| client.round_trip("old here"));
    }
}

/// 48: In chat it is a QUIT for those who share a channel, in the middle of what others say, and
/// the nickname is free.
fn a_killed_process_is_a_quit_and_the_others_miss_nothing(ctx: &Ctx) {
    const LINES: usize = 2000;
    for workers in ["1", "3"] {
        let server = ctx.busy_chat(&["--workers", workers]);
        let mut ann = server.member("ann");
        let (mut bob, mut cid) = (server.member("bob"), server.member("cid"));
        gather("#c", &mut [&mut ann, &mut bob, &mut cid]);
        let speech: String = (0..LINES).map(|n| format!("PRIVMSG #c :{n}\r\n")).collect();
        bob.client.send(speech);
        cid.expect("bob PRIVMSG #c 0");
        kill(server.process_of(&ann.client));
        ann.client.read_to_end();
        let heard: Vec<_> = (0..LINES).map(|_| cid.next()).collect();
        let quits = heard.iter().filter(|message| message.command == "QUIT");
        assert_eq!(quits.map(Message::from).collect::<Vec<_>>(), ["ann"], "who quit");
        let lines = heard.iter().filter(|message| message.command == "PRIVMSG");
        assert!(lines.map(Message::text).eq((1..LINES).map(|n| n.to_string())), "{heard:?}");
        assert_eq!(bob.gets("QUIT").from(), "ann");
        let mut heir = server.member("ann");
        heir.join("#c");
        assert_eq!(bob.briefs(), ["ann JOIN #c"]);
        assert_eq!(cid.briefs(), ["ann JOIN #c"]);
    }
}

#[track_caller]
pub(super) fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).expect("kill a process of the server");
}

/// 49: Stopped, continued and asked for its counters again and again while 8 MiB go through: no
/// byte is lost, though many a system call is interrupted.
fn a_storm_of_signals_loses_no_byte(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut clients = server.clients(4);
    let text = format!("{}\n", "storm".repeat(50)).repeat(8 << 10);
    for client in &mut clients {
        client.queue(text.as_bytes());
    }
    let (mut rounds, mut next) = (0, 0);
    pump("8 MiB to pass through the storm", &mut clients, |clients| {
        let received = clients.iter().map(|client| client.incoming.len()).sum::<usize>();
        if received >= next && rounds < 100 {
            let signal = [Signal::USR1, Signal::WINCH, Signal::CHILD, Signal::URG][rounds % 4];
            server.signal(signal);
            if rounds % 5 == 0 {
                server.freeze();
                server.thaw();
            }
            (rounds, next) = (rounds + 1, received + 64 * 1024);
        }
        clients.iter().all(|c| c.incoming.len() >= text.len() || c.end().is_some())
    });
    for client in &mut clients {
        client.expect(&text);
    }
}

/// Runs the program with these arguments only, to its end.
#[track_caller]
pub(super) fn refuse(ctx: &Ctx, surroundings: Surroundings, args: &[&str]) -> String {
    let outcome = ctx.spawn(surroundings, args, Stdio::piped()).outcome();
    assert_eq!(outcome.code, Some(2), "the exit code for {args:?}: {outcome:?}");
    assert_eq!(outcome.stdout, "", "standard output for {args:?}");
    assert_eq!(outcome.stderr.len(), 1, "one line for {args:?}: {outcome:?}");
    outcome.stderr[0].clone()
}

/// 50: Wrong use ends with exit code 2 and one line that names what is wrong.
fn bad_flags_exit_2_with_one_line(ctx: &Ctx) {
    for (args, named) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["stray"], "stray"),
        (&["--mode", "telnet"], "telnet"),
        (&["--listen", "nowhere"], "nowhere"),
        (&["--listen", "127.0.0.1:99999"], "127.0.0.1:99999"),
        (&["--idle-timeout", "soon"], "soon"),
        (&["--max-line", "many"], "many"),
        (&["--max-line", "0"], "--max-line"),
        (&["--workers", "0"], "--workers"),
        (&["--max-connections", "-1"], "-1"),
        (&["--workers"], "--workers"),
        (&["--log", "xml"], "xml"),
        (&["--mode", "chat", "--motd", "/nonexistent/motd"], "/nonexistent/motd"),
    ] {
        let line = refuse(ctx, Surroundings::Usual, args);
        assert!(line.contains(named), "for {args:?} it says {line:?}");
    }
}

/// 50: Any other address than loopback needs `--public`, and is told so.
fn other_addresses_need_public(ctx: &Ctx) {
    for addr in ["0.0.0.0:0", "[::]:0"] {
        let line = refuse(ctx, Surroundings::Usual, &["--listen", addr]);
        assert!(line.contains("--public"), "for {addr} it says {line:?}");
    }
}

/// 51: The process that started it may stop listening to it.
fn a_closed_standard_output_does_not_hurt(ctx: &Ctx) {
    let mut server = ctx.echo(&[]);
    server.close_outputs();
    server.serves();
    server.counters();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 51: The same for standard error, on which it would log and count.
fn a_closed_standard_error_does_not_hurt(ctx: &Ctx) {
    let mut server = ctx.echo_after("exec 2>&-", &[]);
    server.signal(Signal::USR1);
    server.serves();
    server.client().reset();
    server.serves();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 51: Nor does it wait for what has stopped reading what it logs: its standard error is a pipe
/// that is full and stays so. It serves, counts unread, and stops when told to.
fn a_full_standard_error_does_not_hurt(ctx: &Ctx) {
    let fill = "pipe=$(mktemp -u) && mkfifo \"$pipe\" && exec 2<>\"$pipe\" && \
        dd if=/dev/zero of=\"$pipe\" bs=4096 oflag=nonblock 2>/dev/null; rm \"$pipe\"";
    let mut server = ctx.echo_after(fill, &["--drain-timeout", "10m"]);
    let mut client = server.client();
    client.round_trip("here");
    server.signal(Signal::USR1);
    client.round_trip("still here");
    server.signal(Signal::TERM);
    client.expect_end();
    assert_eq!(server.wait().code(), Some(0), "the exit code");
}

/// 51: A standard output that takes nothing is an operator's mistake, not a reason to fall over: it
/// either serves or says why not.
fn a_full_standard_output_does_not_hurt(ctx: &Ctx) {
    let addr = own_addr();
    let args = ["--mode", "echo", "--listen", &addr];
    let full = std::fs::File::create("/dev/full").expect("open /dev/full");
    let process = ctx.spawn(Surroundings::Usual, &args, full);
    let mut server = Server::unheard(process, &addr);
    if server.has_ended() {
        assert_eq!(server.wait().code(), Some(1), "the exit code");
    } else {
        server.serves();
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(0), "the exit code");
    }
}

/// The counters are one line of JSON on standard error, after SIGUSR1 and on exit, and true.
fn the_counters_tell_the_truth(ctx: &Ctx) {
    let mut server = ctx.echo(&[]);
    let mut client = server.client();
    client.exchange("one\ntwo\nthree", "one\ntwo\n");
    let expected = [("accepts", 1), ("lines", 2), ("bytes_in", 13), ("bytes_out", 8)];
    // A write is counted a moment after its bytes have gone.
    ctx.watch.until("the counters to tell the truth", || {
        let counters = server.counters();
        expected.iter().all(|(name, value)| counters[name].as_u64() == Some(*value))
    });
    let counters = server.counters();
    for name in ["wakeups", "would_blocks", "slow_cut"] {
        assert!(counters[name].is_u64(), "{name} in {counters}");
    }
    assert!(counters["errors"].is_object(), "errors in {counters}");
    client.half_close();
    client.expect_end();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "the exit code");
    let last = server.last_counters();
    for (name, value) in expected {
        assert_eq!(last[name].as_u64(), Some(value), "{name} at the end, in {last}");
    }
}

/// A line that comes and a line that goes end a wait each, if the model waits for both. A third
/// wake-up for each line has no cause but a fault, such as a request to send nothing.
fn a_line_costs_at_most_two_wakeups(ctx: &Ctx) {
    let server = ctx.echo(&[]);
    let mut client = server.client();
    for _ in 0..200 {
        client.round_trip("hello");
    }
    let counters = server.counters();
    let (wakeups, lines) = (counters["wakeups"].as_u64(), counters["lines"].as_u64());
    assert_eq!(lines, Some(200));
    // A few more are the connection's beginning, and bystanders of the machine's load.
    assert!(wakeups <= Some(450), "more than two wake-ups for each line, in {counters}");
}
