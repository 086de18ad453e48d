//! Backpressure: a slow client waits or goes, and no other client feels it.

use std::collections::HashMap;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use crate::cases::{Case, cases};
use crate::client::{Client, difference, pump, pump_for};
use crate::member::{Member, Message, gather};
use crate::server::Server;
use crate::watchdog::Ctx;

pub(super) const ECHO: &[Case] = cases![Echo:
    a_client_that_never_reads_is_paused_and_loses_nothing needs 2,
    one_byte_now_and_then_is_cut,
    small_socket_buffers_carry_64_mib,
    a_greedy_sender_leaves_room_for_a_hundred_polite,
    lines_that_are_work_leave_room_for_others,
];

/// For this project's servers.
pub(super) const OWN_ECHO: &[Case] = cases![Echo:
    a_peer_that_takes_its_replies_slowly_is_kept,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    a_slow_member_is_cut_at_the_limit_with_the_reason needs 2,
    a_member_over_the_soft_limit_for_too_long_is_cut needs 2,
    a_hundred_slow_of_a_thousand_are_cut_and_the_rest_get_everything needs 1000,
    a_slow_member_that_recovers_loses_nothing needs 2,
    a_member_that_has_come_below_the_soft_limit_is_not_cut needs 2,
    a_slow_member_of_another_worker_is_cut_at_once needs 2,
    quick_speakers_get_no_reader_cut needs 2,
    quick_speakers_get_no_reader_cut_across_two_workers needs 3,
    a_member_that_asks_is_answered_while_others_speak_without_end needs 3,
    one_byte_now_and_then_does_not_hold_registration_open,
];

/// 22: A client that sends and never reads is no longer read from: the server's memory is bounded,
/// a neighbour is served, and when the client reads at last, everything is there.
fn a_client_that_never_reads_is_paused_and_loses_nothing(ctx: &Ctx) {
    const ENOUGH: usize = 64 << 20;
    let server = ctx.echo(&["--sendq", "1MiB"]);
    let (mut client, mut neighbour) = (server.client_with_buffers(64 * 1024), server.client());
    neighbour.round_trip("before");
    let before = server.usage().resident_kib;
    let text = format!("{}\n", "x".repeat(999)).repeat(ENOUGH / 1000);
    client.reading = false;
    client.queue(text.as_bytes());
    // It is paused when the neighbour has been served a hundred times and nothing more was taken.
    let (mut unsent, mut rounds) = (client.unsent(), 0);
    while rounds < 100 {
        pump_for("the server to pause", slice::from_mut(&mut client), Duration::from_millis(2));
        neighbour.round_trip("meanwhile");
        rounds = if client.unsent() < unsent { 0 } else { rounds + 1 };
        unsent = client.unsent();
        assert!(unsent > 0, "all of {ENOUGH} bytes were taken without one being read");
    }
    let grown = server.usage().peak_kib.saturating_sub(before);
    assert!(grown < 4 * 1024, "a client that never reads made the server grow by {grown} KiB");
    client.reading = true;
    client.expect(&text);
}

/// 25: Progress is a whole line, not a byte: who sends a byte now and then is cut.
fn one_byte_now_and_then_is_cut(ctx: &Ctx) {
    let server = ctx.echo(&["--idle-timeout", "300ms"]);
    dribble(&mut server.client());
    server.serves_a_prompt_client();
}

/// 25: In chat the deadline of registration does not move with every byte.
fn one_byte_now_and_then_does_not_hold_registration_open(ctx: &Ctx) {
    let server = ctx.chat(&["--registration-timeout", "300ms"]);
    dribble(&mut server.client());
    server.prompt_member("newcomer").hears_nothing();
}

/// Sends a byte every 20 ms until the server cuts the connection.
#[track_caller]
fn dribble(client: &mut Client) {
    while client.end().is_none() {
        if client.unsent() == 0 {
            client.queue(b"x");
        }
        pump_for("the server to lose patience", slice::from_mut(client), Duration::from_millis(20));
    }
}

/// 18: A client that takes its replies is not silent, however slowly it takes them: so slowly that
/// the kernel does not say within the idle time that there is room again. For that, about a third
/// of the server's buffer must be free.
fn a_peer_that_takes_its_replies_slowly_is_kept(ctx: &Ctx) {
    let idle = Duration::from_secs(2);
    let server = ctx.echo(&["--idle-timeout", "2s", "--sendq", "64MiB"]);
    let text = format!("{}\n", "x".repeat(1023)).repeat(4 << 10);
    let mut client = server.client_with_buffers(4096);
    client.reading = false;
    client.send(&text);
    let began = Instant::now();
    while began.elapsed() < idle * 3 {
        for reading in [false, true] {
            client.reading = reading;
            pump_for("its pace", slice::from_mut(&mut client), idle / 3);
        }
        assert_eq!(client.end(), None, "it has taken {} bytes", client.incoming.len());
    }
    assert_eq!(server.counter("timed_out"), 0);
}

/// 26: Small socket buffers carry 64 MiB, and each byte is right. Not the very smallest: those hold
/// less than two segments with their bookkeeping, and when a server happens to write in pieces, TCP
/// itself then sends 512 bytes every 200 ms.
fn small_socket_buffers_carry_64_mib(ctx: &Ctx) {
    const ROUNDS: usize = 64;
    let server = ctx.echo(&[]);
    let mut client = server.client_with_buffers(8 * 1024);
    let mut rng = ctx.rng();
    let line: String = (0..1023).map(|_| rng.alphanumeric()).chain(['\n']).collect();
    let text = line.repeat(1024);
    for _ in 0..ROUNDS {
        client.exchange(&text, &text);
    }
}

/// 28: One that sends as fast as it can beside a hundred that wait for each reply. Fair means:
/// while a polite one waits for a reply, the greedy one is served a bounded number of bytes.
fn a_greedy_sender_leaves_room_for_a_hundred_polite(ctx: &Ctx) {
    const ROUNDS: usize = 20;
    const BOUND: u64 = 32 << 20;
    let server = ctx.echo(&[]);
    let mut clients = server.clients(101);
    let feast = format!("{}\n", "g".repeat(1023)).repeat(64);
    let mut greedy_bytes = 0;
    let mut asked_at = vec![0; clients.len()];
    let mut rounds = vec![0; clients.len()];
    for client in &mut clients[1..] {
        client.queue(b"please\n");
    }
    pump("a hundred polite clients to be served", &mut clients, |clients| {
        let (greedy, polite) = clients.split_first_mut().expect("there are 101 clients");
        if greedy.unsent() < feast.len() {
            greedy.queue(feast.as_bytes());
        }
        greedy_bytes += greedy.incoming.discard() as u64;
        for (index, client) in polite.iter_mut().enumerate() {
            if *client.incoming == *b"please\n" {
                let meanwhile = greedy_bytes - asked_at[index];
                assert!(meanwhile < BOUND, "one waited while another got {meanwhile} bytes");
                client.incoming.discard();
                asked_at[index] = greedy_bytes;
                rounds[index] += 1;
                if rounds[index] < ROUNDS {
                    client.queue(b"please\n");
                }
            }
        }
        rounds[..polite.len()].iter().all(|&count| count == ROUNDS)
    });
    assert!(greedy_bytes > 0, "the greedy one got nothing at all");
}

/// 28: Nor may one keep the others waiting whose lines are as short as can be and as many, where
/// each of them is work: what one turn does is bounded in lines too.
fn lines_that_are_work_leave_room_for_others(ctx: &Ctx) {
    const BOUND: u64 = 128 << 10;
    let server = ctx.echo(&["--work", "100us"]);
    let (mut greedy, mut polite) = (server.clients(2), server.client());
    for client in &mut greedy {
        client.send("\n".repeat(256 << 10));
    }
    greedy[0].until("the work to be under way", |client| !client.incoming.is_empty());
    let before = server.counter("lines");
    for _ in 0..3 {
        polite.round_trip("please");
    }
    let meanwhile = server.counter("lines") - before;
    assert!(meanwhile < BOUND, "one waited three times while {meanwhile} lines were worked on");
}

/// What the cases below call a slow member: its buffers are small and it does not read.
#[track_caller]
fn slow_member(server: &Server, nick: &str, channel: &str) -> Member {
    let mut member = Member::register(server.client_with_buffers(4096), nick);
    member.join(channel);
    member.client.reading = false;
    member
}

/// 23: A member that does not read is cut at the hard limit, with the reason; the others get every
/// message in order, and one QUIT.
fn a_slow_member_is_cut_at_the_limit_with_the_reason(ctx: &Ctx) {
    let server = ctx.busy_chat(&["--sendq", "64KiB", "--sendq-grace", "60s"]);
    let (mut talker, mut fast) = (server.member("talker"), server.member("fast"));
    gather("#c", &mut [&mut talker, &mut fast]);
    let mut slow = slow_member(&server, "slow", "#c");
    talker.expect("slow JOIN #c");
    fast.expect("slow JOIN #c");
    let said = talk_until_a_member_is_cut(&mut talker, "#c");
    let (quits, heard) = sort_out(fast.sync());
    assert_eq!(quits, ["slow"], "who has quit");
    assert!(heard == (0..said).collect::<Vec<_>>(), "of {said} messages, fast got {heard:?}");
    slow.client.reading = true;
    let last = slow.is_cut();
    assert_eq!(last.text(), "Closing link: SendQ exceeded");
}

/// 23: A member whom another worker serves is cut when it is too slow, not when more is said.
fn a_slow_member_of_another_worker_is_cut_at_once(ctx: &Ctx) {
    let limits = ["--workers", "2", "--sendq", "64KiB", "--sendq-grace", "60s"];
    let server = ctx.busy_chat(&limits);
    let mut talker = server.member("talker");
    talker.join("#c");
    // The kernel chooses the worker: one of eight is not the talker's.
    for nick in ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"] {
        let _slow = slow_member(&server, nick, "#c");
        talker.expect(&format!("{nick} JOIN #c"));
        let (mut heard, before) = (Vec::new(), server.counter("slow_cut"));
        while heard.is_empty() && server.counter("slow_cut") == before {
            talker.client.send(message("#c", 0));
            heard = talker.sync();
        }
        // It is over the limit, and from now on nothing is said.
        let quit = heard.pop().unwrap_or_else(|| talker.next());
        assert_eq!((quit.command.as_str(), quit.from()), ("QUIT", nick));
    }
}

/// Talks until a QUIT comes; gives how many messages were said. Each is answered for (by a PONG)
/// before the next few, so that those who read have the time to.
#[track_caller]
fn talk_until_a_member_is_cut(talker: &mut Member, channel: &str) -> usize {
    let mut said = 0;
    loop {
        let batch: String = (said..said + 20).map(|n| message(channel, n)).collect();
        said += 20;
        talker.client.send(batch);
        let heard = talker.sync();
        if heard.iter().any(|message| message.command == "QUIT") {
            return said;
        }
        assert!(heard.is_empty(), "the talker got {heard:?}");
        assert!(said < 1_000_000, "no member was cut after {said} messages");
    }
}

/// A numbered message of about 400 bytes.
fn message(channel: &str, number: usize) -> String {
    format!("PRIVMSG {channel} :{number} {}\r\n", "x".repeat(370))
}

/// Sorts what a member got: who has quit, and the numbers of the messages.
#[track_caller]
fn sort_out(messages: Vec<Message>) -> (Vec<String>, Vec<usize>) {
    let (mut quits, mut numbers) = (Vec::new(), Vec::new());
    for message in messages {
        match message.command.as_str() {
            "QUIT" => quits.push(message.from().to_owned()),
            "PRIVMSG" => numbers.push(number_of(&message)),
            _ => panic!("neither a QUIT nor a PRIVMSG: {message:?}"),
        }
    }
    (quits, numbers)
}

#[track_caller]
fn number_of(message: &Message) -> usize {
    let number = message.text().split(' ').next().and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no number in {message:?}"))
}

/// 23: Over the soft limit (a quarter of the hard one) for longer than the grace time is too slow.
fn a_member_over_the_soft_limit_for_too_long_is_cut(ctx: &Ctx) {
    let server = ctx.busy_chat(&["--sendq", "16MiB", "--sendq-grace", "300ms"]);
    let mut talker = server.member("talker");
    talker.join("#c");
    let slow = slow_member(&server, "slow", "#c");
    talker.expect("slow JOIN #c");
    // 4 MiB are the soft limit; this is twice as much, and half the hard one.
    let batch: String = (0..20_000).map(|n| message("#c", n)).collect();
    talker.client.send(batch);
    let quit = talker.gets("QUIT");
    assert_eq!(quit.from(), "slow");
    assert!(quit.text().contains("SendQ exceeded"), "the reason: {quit:?}");
    drop(slow);
}

/// 24: A thousand members in ten channels, a hundred of them slow: those are cut, and the other
/// nine hundred get everything.
fn a_hundred_slow_of_a_thousand_are_cut_and_the_rest_get_everything(ctx: &Ctx) {
    const CHANNELS: usize = 10;
    let server = ctx.busy_chat(&["--sendq", "32KiB", "--sendq-grace", "60s"]);
    let mut talker = server.member("talker");
    let mut slow = Vec::new();
    let mut fast = Vec::new();
    for channel in (0..CHANNELS).map(|n| format!("#c{n}")) {
        talker.join(&channel);
        for n in 0..90 {
            fast.push(Member::register(server.client(), &format!("fast{n}{}", &channel[1..])));
        }
        for n in 0..10 {
            slow.push(slow_member(&server, &format!("slow{n}{}", &channel[1..]), &channel));
        }
        talker.sync();
    }
    for (n, member) in fast.iter_mut().enumerate() {
        member.join(&format!("#c{}", n / 90));
    }
    talker.sync();
    fast.iter_mut().for_each(|member| drop(member.sync()));
    let said = talk_to_all(&mut talker, &mut fast, slow.len(), CHANNELS);
    for member in &mut fast {
        let (_, heard) = sort_out(member.sync());
        assert!(heard == (0..said).collect::<Vec<_>>(), "{} got {heard:?}", member.nick);
    }
    server.member("newcomer").join("#c0");
}

/// Talks to all channels until as many have quit as are slow; the fast ones read all the while.
#[track_caller]
fn talk_to_all(talker: &mut Member, fast: &mut [Member], slow: usize, channels: usize) -> usize {
    let (mut said, mut gone) = (0, 0);
    while gone < slow {
        for number in said..said + 20 {
            for channel in 0..channels {
                talker.client.queue(message(&format!("#c{channel}"), number).as_bytes());
            }
        }
        said += 20;
        gone += talker.sync().iter().filter(|message| message.command == "QUIT").count();
        // Each reads to the last message of this round, so that none of them is a slow one.
        let last = format!(":{} ", said - 1);
        let mut caught_up = 0;
        pump("the fast members to have read", fast, |fast| {
            let rest = fast[caught_up..].iter();
            caught_up += rest.take_while(|member| has_got(member, last.as_bytes())).count();
            caught_up == fast.len()
        });
        assert!(said < 100_000, "after {said} messages {gone} of {slow} were cut");
    }
    said
}

/// Whether what has come lately holds these bytes.
fn has_got(member: &Member, bytes: &[u8]) -> bool {
    let recent = member.client.incoming.len().saturating_sub(8 * 1024);
    member.client.incoming[recent..].windows(bytes.len()).any(|window| window == bytes)
}

/// 27: A member that is over the soft limit, but recovers within the grace time, loses nothing.
fn a_slow_member_that_recovers_loses_nothing(ctx: &Ctx) {
    const MESSAGES: usize = 15_000;
    let server = ctx.busy_chat(&["--sendq", "16MiB", "--sendq-grace", "60s"]);
    let mut talker = server.member("talker");
    talker.join("#c");
    let mut slow = slow_member(&server, "slow", "#c");
    talker.expect("slow JOIN #c");
    let batch: String = (0..MESSAGES).map(|n| message("#c", n)).collect();
    talker.client.send(batch);
    talker.hears_nothing();
    slow.client.reading = true;
    let (quits, heard) = sort_out(slow.sync());
    assert!(quits.is_empty(), "{quits:?} have quit");
    let heard: Vec<u8> = heard.iter().flat_map(|n| n.to_ne_bytes()).collect();
    let expected: Vec<u8> = (0..MESSAGES).flat_map(|n: usize| n.to_ne_bytes()).collect();
    assert_eq!(difference(&heard, &expected), None, "eight times the first wrong message");
    talker.hears_nothing();
}

/// 27: So too if it does not take all of it, but enough to be below the soft limit, and stays there
/// for longer than the grace time.
fn a_member_that_has_come_below_the_soft_limit_is_not_cut(ctx: &Ctx) {
    const SOFT: u64 = 2 << 20;
    const GRACE: Duration = Duration::from_secs(2);
    let server = ctx.busy_chat(&["--sendq", "8MiB", "--sendq-grace", "2s"]);
    let mut talker = server.member("talker");
    talker.join("#c");
    let mut slow = slow_member(&server, "slow", "#c");
    talker.expect("slow JOIN #c");
    let (mut said, mut waiting) = (0, 0);
    while waiting < SOFT / 2 * 3 {
        talker.client.send((said..said + 200).map(|n| message("#c", n)).collect::<String>());
        said += 200;
        talker.hears_nothing();
        waiting = server.counter("queue_bytes");
    }

    // If the kernel held no more than before, three quarters of the soft limit would be left. It
    // does hold some more, for a client that reads.
    let enough = waiting - SOFT / 4 * 3;
    slow.client.reading = true;
    slow.client.until("it to be below the soft limit", |slow| slow.incoming.len() as u64 >= enough);
    slow.client.reading = false;

    let below = Instant::now();
    while below.elapsed() < GRACE * 3 / 2 {
        // This paces the talker, and decides nothing.
        thread::sleep(GRACE / 20);
        talker.client.send(message("#c", said));
        said += 1;
        talker.hears_nothing();
    }
    slow.client.reading = true;
    let (quits, heard) = sort_out(slow.sync());
    assert!(quits.is_empty(), "{quits:?} have quit");
    assert!(heard == (0..said).collect::<Vec<_>>(), "of {said} messages, slow got {heard:?}");
}

/// 23: However quick those who speak are, no member is cut who reads: the server hears them as it
/// brings what they say, and not faster.
fn quick_speakers_get_no_reader_cut(ctx: &Ctx) {
    outrun(&ctx.busy_chat(&["--sendq", "16KiB"]));
}

/// 23: The same where a worker speaks and another one has to bring it.
fn quick_speakers_get_no_reader_cut_across_two_workers(ctx: &Ctx) {
    outrun(&ctx.busy_chat(&["--sendq", "16KiB", "--workers", "2"]));
}

/// 28: Some speak as fast as they can to fifty who read, and do not end. No member is cut, and fair
/// means: while another member waits for the answer to a PING, the fifty hear a bounded number of
/// bytes, whichever of the workers has to bring them. Those who speak go on as the others hear:
/// while this process stands still, and the server does not, no member reads.
fn a_member_that_asks_is_answered_while_others_speak_without_end(ctx: &Ctx) {
    const SPEAKERS: usize = 3;
    const GUESTS: usize = 8;
    const ROUNDS: usize = 8;
    const ENOUGH: u64 = 128 << 20;
    const BOUND: u64 = 4 * ENOUGH;
    /// What may be said and not yet heard: more than waits in a queue before its member is behind,
    /// and less than a queue holds.
    const UNHEARD: u64 = 512 << 10;
    let server = ctx.busy_chat(&["--workers", "2"]);
    let mut members: Vec<_> = (0..50).map(|n| server.member(&format!("m{n}"))).collect();
    gather("#c", &mut members.iter_mut().collect::<Vec<_>>());
    let speech = "PRIVMSG #c :hello\r\n".repeat(200);
    // What a member hears of it that does not speak itself.
    let relayed = ":m0!m0@127.0.0.1 PRIVMSG #c :hello\r\n".repeat(200).len() as u64;
    let (mut said, mut heard_by) = (0, vec![0; members.len()]);
    let (mut heard, mut asked_at, mut answers) = (0, [0; GUESTS], [0; GUESTS]);
    for n in 0..GUESTS {
        let mut guest = server.member(&format!("guest{n}"));
        guest.client.queue(b"PING x\r\n");
        members.insert(n, guest);
    }
    pump("the guests to be answered", &mut members, |members| {
        let (guests, inside) = members.split_at_mut(GUESTS);
        for (member, sum) in inside.iter_mut().zip(&mut heard_by) {
            assert_eq!(member.client.end(), None, "{} was cut, who reads", member.nick);
            *sum += member.client.incoming.discard() as u64;
        }
        heard = heard_by.iter().sum();
        let least = heard_by[SPEAKERS..].iter().min().copied().unwrap_or_default();
        for speaker in &mut inside[..SPEAKERS] {
            if speaker.client.unsent() < speech.len() && said - least < UNHEARD {
                speaker.client.queue(speech.as_bytes());
                said += relayed;
            }
        }
        for (n, guest) in guests.iter_mut().enumerate() {
            let meanwhile = heard - asked_at[n];
            if guest.client.incoming.ends_with(b"\n") {
                guest.client.incoming.discard();
                (asked_at[n], answers[n]) = (heard, answers[n] + 1);
                guest.client.queue(b"PING x\r\n");
            }
            assert!(meanwhile < BOUND, "{} waited while others got {meanwhile} bytes", guest.nick);
        }
        answers.iter().all(|&count| count >= ROUNDS) && heard > ENOUGH
    });
    assert_eq!(server.counter("slow_cut"), 0, "those who were cut");
}

/// Some speak all at once and say far more than a send queue holds, but less than each member's
/// socket would take if it were not read at all: only the server itself can be too slow.
#[track_caller]
fn outrun(server: &Server) {
    const SPEAKERS: usize = 4;
    const MESSAGES: usize = 400;
    let mut members: Vec<_> = (0..12).map(|n| server.member(&format!("m{n}"))).collect();
    gather("#c", &mut members.iter_mut().collect::<Vec<_>>());
    let all: String = (0..MESSAGES).map(|n| message("#c", n)).collect();
    let (speakers, _) = members.split_at_mut(SPEAKERS);
    speakers.iter_mut().for_each(|speaker| speaker.client.queue(all.as_bytes()));
    pump("all to be said", &mut members, |members| {
        members.iter().all(|member| member.client.unsent() == 0)
    });
    for (n, member) in members.iter_mut().enumerate() {
        let others = SPEAKERS - usize::from(n < SPEAKERS);
        let mut heard: HashMap<String, usize> = HashMap::new();
        for _ in 0..others * MESSAGES {
            let message = member.gets("PRIVMSG");
            let next = heard.entry(message.from().to_owned()).or_default();
            assert_eq!(number_of(&message), *next, "{} got {message:?}", member.nick);
            *next += 1;
        }
        member.hears_nothing();
    }
}
