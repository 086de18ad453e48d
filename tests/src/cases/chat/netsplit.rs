//! A netsplit: half of a channel leaves and comes back at full speed, while operators kick and set
//! modes, and every member hears the same.

use crate::cases::{Case, cases};
use crate::client::{Client, pump};
use crate::member::{Member, Message, gather};
use crate::server::Server;
use crate::watchdog::Ctx;

pub(super) const CASES: &[Case] = cases![Chat:
    a_netsplit_of_two_hundred_comes_once_and_in_one_order needs 200,
    a_netsplit_of_two_hundred_comes_once_and_in_one_order_across_two_workers needs 200,
];

/// Members in all. The first of them stay; of those, the first are operators, and the last do not
/// read until all is over.
const MEMBERS: usize = 200;
const OPERATORS: usize = 10;
const STAYING: usize = 100;
const NOT_READING: usize = 10;

/// How often each of the others leaves and comes back.
const ROUNDS: usize = 4;
/// How often each operator kicks, gives voice and bans. Each member that moves is given voice once.
const STEPS: usize = (MEMBERS - STAYING) / OPERATORS;

/// What a connection may queue, and hold without having been handled, in KiB.
const SENDQ: u64 = 256;
const RECVQ: u64 = 16;

/// 53: JOIN, PART, KICK and MODE of a channel of two hundred, all at once. Each member hears each
/// of them once and in one order, and memory stays within its bound.
fn a_netsplit_of_two_hundred_comes_once_and_in_one_order(ctx: &Ctx) {
    split(&netsplit_server(ctx, &[]));
}

/// 54: The same across workers.
fn a_netsplit_of_two_hundred_comes_once_and_in_one_order_across_two_workers(ctx: &Ctx) {
    split(&netsplit_server(ctx, &["--workers", "2"]));
}

#[track_caller]
fn netsplit_server(ctx: &Ctx, args: &[&str]) -> Server {
    let (sendq, recvq) = (format!("{SENDQ}KiB"), format!("{RECVQ}KiB"));
    let most = MEMBERS.to_string();
    let bounds = ["--sendq", &sendq, "--max-recvq", &recvq, "--max-connections", &most];
    ctx.busy_chat(&[&bounds, args].concat())
}

#[track_caller]
fn split(server: &Server) {
    let mut members = channel_of_all(server);
    let before = server.usage().resident_kib;
    for (index, member) in members.iter_mut().enumerate() {
        member.client.reading = !is_slow(index);
        member.client.queue(format!("{}PING over\r\n", script(index).concat()).as_bytes());
    }
    pump("each who reads to have done everything", &mut members, |members| {
        members.iter().filter(|member| member.client.reading).all(|member| has(member, "over"))
    });
    // What the server has decided by then comes before what is asked after it.
    for member in &mut members {
        member.client.reading = true;
        member.client.queue(b"PING heard\r\n");
    }
    pump("each to have heard everything", &mut members, |members| {
        members.iter().all(|member| has(member, "heard"))
    });
    let grown = server.usage().peak_kib.saturating_sub(before);

    let heard: Vec<Heard> = members.iter_mut().map(Heard::of).collect();
    let order = &heard[0].events;
    assert_each_command_once(order, &heard);
    for (index, heard) in heard.iter().enumerate() {
        if index < STAYING {
            heard.assert_all_of(order);
        } else {
            heard.assert_what_it_was_there_for(order);
        }
    }
    let bound = u64::try_from(MEMBERS).expect("a small number") * (SENDQ + RECVQ);
    assert!(grown <= bound, "memory grew by {grown} KiB, and the bound is {bound} KiB");
}

/// All members in one channel, with all operators.
#[track_caller]
fn channel_of_all(server: &Server) -> Vec<Member> {
    let mut members: Vec<Member> = (0..MEMBERS)
        .map(|index| {
            let client =
                if is_slow(index) { server.client_with_buffers(8192) } else { server.client() };
            Member::register(client, &nick(index))
        })
        .collect();
    gather("#c", &mut members.iter_mut().collect::<Vec<_>>());
    for index in 1..OPERATORS {
        members[0].ask(&format!("MODE #c +o {}", nick(index)), "MODE");
    }
    for member in &mut members {
        member.sync();
    }
    members
}

fn nick(index: usize) -> String {
    format!("m{index}")
}

fn is_slow(index: usize) -> bool {
    (STAYING - NOT_READING..STAYING).contains(&index)
}

/// What a member sends, line by line.
fn script(index: usize) -> Vec<String> {
    let moving = MEMBERS - STAYING;
    let round = |round| format!("PART #c :round {round}\r\nJOIN #c\r\n");
    let step = |step| {
        let (voiced, kicked) = (index * STEPS + step, index * STEPS + step + moving / 3);
        let voice = format!("MODE #c +v {}\r\n", nick(STAYING + voiced % moving));
        let kick = format!("KICK #c {} :step {step}\r\n", nick(STAYING + kicked % moving));
        let ban = format!("*!*@{index}-{step}.example");
        format!("{voice}{kick}MODE #c +b {ban}\r\nMODE #c -b {ban}\r\n")
    };
    match index {
        _ if index < OPERATORS => (0..STEPS).map(step).collect(),
        _ if index < STAYING => Vec::new(),
        _ => (0..ROUNDS).map(round).collect(),
    }
}

/// Whether the answer to this PING has come. It is the last line that comes for now, or others are
/// behind it: so the end is searched first.
fn has(member: &Member, token: &str) -> bool {
    let wanted = format!(":{token}\r\n");
    member.client.incoming.windows(wanted.len()).rev().any(|part| part == wanted.as_bytes())
}

/// What a member has heard.
struct Heard {
    nick: String,
    /// What members did, in the order in which it came.
    events: Vec<Message>,
    /// The numerics of the errors it got for its own commands.
    errors: Vec<String>,
}

impl Heard {
    fn of(member: &mut Member) -> Self {
        let client: &mut Client = &mut member.client;
        let bytes = client.incoming.take(client.incoming.len());
        let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let messages: Vec<_> = lines.filter(|line| !line.is_empty()).map(Message::parse).collect();
        let errors = messages.iter().filter(|message| message.is_error());
        let errors = errors.map(|message| message.command.clone()).collect();
        // What the server itself says has no user in its source.
        let events = messages.into_iter().filter(|message| message.source.contains('!'));
        Self { nick: member.nick.clone(), events: events.collect(), errors }
    }

    #[track_caller]
    fn assert_all_of(&self, order: &[Message]) {
        let nick = &self.nick;
        for (at, (heard, decided)) in self.events.iter().zip(order).enumerate() {
            assert_eq!(heard, decided, "event {at} as {nick} and m0 heard it");
        }
        assert_eq!(self.events.len(), order.len(), "events that {nick} heard");
        assert!(self.errors.iter().all(|error| error == "441"), "{nick} got {:?}", self.errors);
    }

    /// From each of its own JOINs to its next PART or KICK it has heard all, and else nothing.
    #[track_caller]
    fn assert_what_it_was_there_for(&self, order: &[Message]) {
        let nick = &self.nick;
        let mut inside = true;
        let mut heard = self.events.iter();
        for (at, decided) in order.iter().enumerate() {
            inside |= decided.command == "JOIN" && decided.from() == nick;
            if inside {
                assert_eq!(heard.next(), Some(decided), "event {at} as {nick} and m0 heard it");
            }
            inside &= leaver(decided) != Some(nick);
        }
        assert_eq!(heard.next(), None, "what {nick} heard beyond that");
        assert!(self.errors.iter().all(|error| error == "442"), "{nick} got {:?}", self.errors);
    }
}

/// The member that is in the channel no more after this.
fn leaver(event: &Message) -> Option<&str> {
    match event.command.as_str() {
        "PART" => Some(event.from()),
        "KICK" => Some(event.param(1)),
        _ => None,
    }
}

/// Each command of each member has had one effect or one refusal, and each effect was possible when
/// it came: members who were outside joined, and those inside left, were kicked or given voice.
#[track_caller]
fn assert_each_command_once(order: &[Message], heard: &[Heard]) {
    for (index, heard) in heard.iter().enumerate() {
        let done = order.iter().filter(|event| event.from() == heard.nick);
        let lines: usize = script(index).iter().map(|part| part.lines().count()).sum();
        let told = done.count() + heard.errors.len();
        assert_eq!(told, lines, "what became of the lines of {}", heard.nick);

        let mut inside = true;
        for event in order {
            let joins = event.command == "JOIN" && event.from() == heard.nick;
            let voiced = event.command == "MODE" && event.param(2) == heard.nick;
            let leaves = leaver(event) == Some(&heard.nick);
            assert!(!(joins && inside), "{event:?} of a member who is inside");
            assert!(inside || !(voiced || leaves), "{event:?} of a member who is outside");
            inside = (inside || joins) && !leaves;
        }
    }
}
