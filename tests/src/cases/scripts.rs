//! Random scripts: several clients say and do what a seed decides, and what each receives is what
//! the oracle says. A script that fails is made as short as it goes before it is shown.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cases::{Case, cases};
use crate::client::{Client, End, difference, excerpt, pump_for};
use crate::member::{Member, Message};
use crate::oracle::{self, Chat, END, MOST_WATCHED, USER, agrees, plain};
use crate::server::Server;
use crate::watchdog::{self, Ctx};

pub(super) const ECHO: &[Case] =
    cases![Echo: what_random_scripts_echo_is_what_the_oracle_says needs 3];

pub(super) const CHAT: &[Case] = cases![Chat:
    what_random_scripts_hear_is_what_the_oracle_says needs 3,
    what_random_scripts_hear_across_two_workers_is_what_the_oracle_says needs 3,
];

/// Those who act in a script.
const PEOPLE: usize = 5;
/// What one script is made of.
const STEPS: usize = 80;
/// In echo, the longest line.
const MAX_LINE: usize = 64;
/// How long a shorter script is looked for.
const SHRINKING: Duration = Duration::from_secs(15);

/// 52: In chat.
fn what_random_scripts_hear_is_what_the_oracle_says(ctx: &Ctx) {
    play_scripts(ctx, "1");
}

/// 52: In chat, where those who talk are served by different workers.
fn what_random_scripts_hear_across_two_workers_is_what_the_oracle_says(ctx: &Ctx) {
    play_scripts(ctx, "2");
}

#[track_caller]
fn play_scripts(ctx: &Ctx, workers: &str) {
    let mut rng = ctx.rng();
    let attempt = |script: &[Step], patience| {
        let server = ctx.busy_chat(&["--workers", workers]);
        let played = panic::catch_unwind(AssertUnwindSafe(|| play(&server, script, patience)));
        played.unwrap_or_else(|panic| Err(watchdog::message(&*panic)))
    };
    for number in 1..=watchdog::scripts() {
        let script = chat_script(&mut rng);
        // A slow machine must not look like a lost message; a wrong guess later does no harm.
        let Err(reason) = attempt(&script, Duration::from_secs(20)) else { continue };
        let fails = |script: &[Step]| attempt(script, Duration::from_secs(1)).err();
        let (script, reason) = shrink(script, reason, fails);
        let steps: Vec<String> = script.iter().map(|step| format!("\n    {step:?}")).collect();
        panic!("script {number}: {reason}\n  the script, shortened:{}", steps.concat());
    }
}

/// Leaves out one step after another as long as what is left still fails.
fn shrink(
    mut script: Vec<Step>,
    mut reason: String,
    fails: impl Fn(&[Step]) -> Option<String>,
) -> (Vec<Step>, String) {
    let started = Instant::now();
    let mut before = usize::MAX;
    while script.len() < before {
        before = script.len();
        for at in (0..before).rev() {
            if started.elapsed() > SHRINKING {
                return (script, reason);
            }
            let step = script.remove(at);
            match fails(&script) {
                Some(other) => reason = other,
                None => script.insert(at, step),
            }
        }
    }
    (script, reason)
}

/// Who does what. Who is not there does nothing, so that any part of a script is a script.
#[derive(Clone)]
struct Step {
    who: usize,
    act: Act,
}

#[derive(Clone)]
enum Act {
    Arrive,
    /// Lines in one write, or in two, cut at this byte.
    Say(Vec<String>, usize),
    /// Ends its sending side and listens on.
    HalfClose,
    Close,
    Reset,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.who;
        match &self.act {
            Act::Arrive => write!(f, "{who} arrives"),
            Act::Say(lines, cut) => write!(f, "{who} says {lines:?}, cut at {cut}"),
            Act::HalfClose => write!(f, "{who} half-closes"),
            Act::Close => write!(f, "{who} closes"),
            Act::Reset => write!(f, "{who} resets"),
        }
    }
}

/// Everybody arrives under a name of their own and joins; then anything may happen.
fn chat_script(rng: &mut Rng) -> Vec<Step> {
    let mut script = Vec::new();
    for (who, nick) in ["ann", "Bob", "[c]", "d-1"].into_iter().enumerate() {
        script.push(Step { who, act: Act::Arrive });
        let lines = [format!("NICK {nick}"), "JOIN #a".to_owned()];
        script.push(Step { who, act: Act::Say(lines.into(), 0) });
    }
    while script.len() < STEPS {
        let who = rng.usize(..PEOPLE);
        let act = match rng.u8(..30) {
            0 => Act::HalfClose,
            1 => Act::Close,
            2 => Act::Reset,
            3 => Act::Say(vec![format!("QUIT{}", pick(rng, &["", " :bye now", " bye"]))], 0),
            4..9 => Act::Arrive,
            9..12 => Act::Say(vec![format!("NICK {}", nick(rng))], 0),
            _ => {
                let lines = (0..rng.usize(1..5)).map(|_| chat_line(rng)).collect();
                Act::Say(lines, rng.usize(..60))
            }
        };
        script.push(Step { who, act });
    }
    script
}

fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

fn nick<'a>(rng: &mut Rng) -> &'a str {
    pick(
        rng,
        &[
            "ann",
            "ANN",
            "bob",
            "Bob",
            "[c]",
            "{c}",
            "d-1",
            "eve",
            "9",
            "a!b",
            "x".repeat(31).leak(),
        ],
    )
}

fn chat_line(rng: &mut Rng) -> String {
    let channel = pick(rng, &["#a", "#A", "#b", "#b,#a", "#x-y,#a", "nowhere", "#none", "0"]);
    let target = pick(rng, &["#a", "#b", "#A,bob", "ann", "BOB", "eve,#none,[c]", "#b,#B", ""]);
    let text = match rng.u8(..12) {
        0 => "",
        1 => &" :".to_owned().leak()[..],
        2 => " word",
        _ => " :some text: of words",
    };
    let long = "x".repeat(rng.usize(440..520));
    match rng.u8(..39) {
        34..39 => monitor_line(rng),
        32 => format!("AWAY{text}"),
        33 => format!("MODE {} {}", nick(rng), pick(rng, &["+i", "-i", "+iw", "-w", "+o", "+z"])),
        22..28 => format!("MODE {}{}", pick(rng, &["#a", "#A", "#b", "#none"]), changes(rng)),
        28..30 => {
            let nicks = pick(rng, &["ann", "BOB", "[c],eve", "d-1", "nobody,bob"]);
            format!("KICK {}{text}", pick(rng, &["#a ", "#B ", "#none "]).to_owned() + nicks)
        }
        30 => format!("INVITE {} {}", nick(rng), pick(rng, &["#a", "#B", "#none", ""])),
        31 => format!("JOIN #a,#b {}", pick(rng, &["sesame", "wrong", "wrong,sesame"])),
        0..5 => format!("JOIN {channel}"),
        5..7 => format!("PART {channel}{text}"),
        7..13 => format!("PRIVMSG {target}{text}"),
        13 => format!("notice {target}{text}"),
        14..16 => format!("TOPIC {channel}{text}"),
        16 => format!("NAMES {channel}"),
        17 => format!("NICK {}", nick(rng)),
        18 => format!("PRIVMSG #a :{long}"),
        19 => format!("PING {}", pick(rng, &["", "tok", ":a b"])),
        20 => format!(":ann!u@h PRIVMSG {target}{text}"),
        _ => pick(rng, &["", "  ", "USER u 0 * :r", "KICK #a", "SING", "JOIN", "TOPIC", ":x"])
            .to_owned(),
    }
}

/// To watch for others, or no longer; now and then for as many as one may.
fn monitor_line(rng: &mut Rng) -> String {
    let nicks: Vec<_> = (0..rng.usize(1..4)).map(|_| nick(rng)).collect();
    match rng.u8(..12) {
        0..6 => format!("MONITOR + {}", nicks.join(",")),
        6..8 => format!("MONITOR - {}", nicks.join(",")),
        8 => {
            let many = (3..MOST_WATCHED).map(|n| format!("n{n},")).collect::<String>();
            format!("MONITOR + {many}{}", nicks.join(","))
        }
        9 => format!("MONITOR {}", pick(rng, &["", "+", "-", "C", "x", ":+ y"])),
        _ => format!("MONITOR {}", pick(rng, &["L", "S", "l", "s"])),
    }
}

/// Changes of modes, each with its parameter.
fn changes(rng: &mut Rng) -> String {
    let (mut letters, mut params) = (String::new(), String::new());
    for _ in 0..rng.usize(1..5) {
        let change = pick(
            rng,
            &[
                "+i",
                "-i",
                "-i",
                "+m",
                "-m",
                "-m",
                "+n",
                "-n",
                "+s",
                "-s",
                "+t",
                "-t",
                "-l",
                "+z",
                "+o ann",
                "+o Bob",
                "+o [c]",
                "-o BOB",
                "-o ann",
                "+o nobody",
                "+v bob",
                "+v D-1",
                "-v bob",
                "+b ann!*@*",
                "-b ann!*@*",
                "+b *!u@127.*",
                "-b *!u@127.*",
                "+b [?]!*@*",
                "+e b*!*@*",
                "-e b*!*@*",
                "+I *!*@*",
                "-I *!*@*",
                "+k sesame",
                "-k sesame",
                "-k x",
                "+l 1",
                "+l 3",
            ],
        );
        let (letter, param) = change.split_once(' ').unwrap_or((change, ""));
        letters += letter;
        params = format!("{params} {param}").trim_end().to_owned();
    }
    format!(" {letters}{params}")
}

/// Those on the stage, a member who watches the door, and what should come of it.
struct Stage<'a> {
    server: &'a Server,
    actors: Vec<Actor>,
    doorman: Member,
    chat: Chat,
    barriers: u32,
    patience: Duration,
}

struct Actor {
    who: usize,
    client: Client,
    /// What it has received, as the oracle would put it, since the last barrier.
    heard: Vec<String>,
    /// Whether the answer to its last barrier has come, or the end.
    passed: bool,
}

impl AsMut<Client> for Actor {
    fn as_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Actor {
    /// Takes the messages that have come.
    fn hear(&mut self, barrier: &str) {
        while let Some(end) = self.client.incoming.iter().position(|&byte| byte == b'\n') {
            let line = self.client.incoming.take(end + 1);
            match plain(&Message::parse(line.trim_ascii_end())) {
                Some(answer) if answer == format!("PONG {barrier}") => self.passed = true,
                Some(message) => self.heard.push(message),
                None => {}
            }
        }
        if self.client.end().is_some() && !self.passed {
            self.passed = true;
            self.heard.push(END.to_owned());
        }
    }
}

/// Plays a script, and says what went otherwise than the oracle says.
fn play(server: &Server, script: &[Step], patience: Duration) -> Result<(), String> {
    let doorman = server.member("doorman");
    let (chat, actors) = (Chat::default(), Vec::new());
    let mut stage = Stage { server, actors, doorman, chat, barriers: 0, patience };
    for step in script {
        if stage.act(step) {
            stage.settle(step.who).map_err(|what| format!("{what}, after {step:?}"))?;
        }
    }
    Ok(())
}

impl Stage<'_> {
    /// Takes a step; false if there is no client to take it.
    fn act(&mut self, step: &Step) -> bool {
        let who = step.who;
        let at = self.actors.iter().position(|actor| actor.who == who);
        match (&step.act, at) {
            (Act::Arrive, None) => {
                let mut client = self.server.client();
                client.queue(format!("USER {USER} 0 * :Real\r\n").as_bytes());
                self.actors.push(Actor { who, client, heard: Vec::new(), passed: false });
                self.chat.arrive(who);
                self.chat.line(who, &format!("USER {USER} 0 * :Real"));
            }
            (Act::Say(lines, cut), Some(at)) => {
                let text = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
                let (first, rest) = text.as_bytes().split_at((*cut).min(text.len()));
                let client = &mut self.actors[at].client;
                client.send(first);
                client.queue(rest);
                lines.iter().for_each(|line| self.chat.line(who, line));
            }
            (Act::HalfClose, Some(at)) => {
                self.actors[at].client.half_close();
                self.chat.vanish(who, true);
            }
            (Act::Close, Some(at)) => {
                drop(self.actors.remove(at));
                self.chat.vanish(who, false);
            }
            (Act::Reset, Some(at)) => {
                self.actors.remove(at).client.reset();
                self.chat.vanish(who, false);
            }
            (Act::Arrive, Some(_)) | (_, None) => return false,
        }
        true
    }

    /// Waits until the server has done all that the step asked for and everybody has been told, and
    /// compares. A message that is missing is waited for; one too many comes before a barrier.
    fn settle(&mut self, who: usize) -> Result<(), String> {
        if self.actors.iter().any(|actor| actor.who == who) {
            self.barrier(|actor| actor.who == who)?;
        } else {
            self.watch_the_door()?;
        }
        self.barrier(|actor| actor.who != who)?;
        let expected = self.chat.take();
        let count = |who: usize| expected.get(&who).map_or(0, Vec::len);
        // Between workers, a message may come after the answer to a PING that was sent later.
        let complete = |actor: &Actor| actor.heard.len() >= count(actor.who);
        self.wait(|actors| actors.iter().all(complete));
        self.compare(&expected)?;
        let chat = &self.chat;
        self.actors.retain(|actor| chat.has(actor.who));
        Ok(())
    }

    /// Has some of the actors ask for an answer, which comes after all that came before.
    fn barrier(&mut self, of: impl Fn(&Actor) -> bool) -> Result<(), String> {
        self.barriers += 1;
        for actor in self.actors.iter_mut().filter(|actor| of(actor)) {
            // Who has said its last word only waits for the end.
            if self.chat.has(actor.who) {
                actor.client.queue(format!("PING barrier-{}\r\n", self.barriers).as_bytes());
            }
            actor.passed = false;
        }
        let passed = |actors: &[Actor]| actors.iter().all(|actor| actor.passed);
        if self.wait(passed) { Ok(()) } else { Err("the server does not answer".to_owned()) }
    }

    /// Waits until as many are there as should be: a member has left without a word.
    fn watch_the_door(&mut self) -> Result<(), String> {
        let (registered, others) = self.chat.counts();
        // The doorman is one of them.
        let hidden = self.chat.hidden();
        let users = format!(" {} users and {hidden} ", registered + 1 - hidden);
        let unknown = format!(" doorman {others} ");
        let started = Instant::now();
        let mut told = Vec::new();
        while started.elapsed() < self.patience {
            self.doorman.say("LUSERS");
            told = self.doorman.through("266").iter().map(Message::brief).collect();
            let has =
                |code, what| told.iter().any(|m: &String| m.contains(code) && m.contains(what));
            if has(" 251 ", &users) && has(" 253 ", &unknown) {
                return Ok(());
            }
        }
        Err(format!("expected{users}and{unknown}unknown connections, but {told:?}"))
    }

    /// Sends and receives until `done`; false when patience is over.
    fn wait(&mut self, done: impl Fn(&[Actor]) -> bool) -> bool {
        let (started, barrier) = (Instant::now(), format!("barrier-{}", self.barriers));
        loop {
            self.actors.iter_mut().for_each(|actor| actor.hear(&barrier));
            if done(&self.actors) || started.elapsed() > self.patience {
                return done(&self.actors);
            }
            let pace = Duration::from_millis(20);
            pump_for("what the oracle expects", &mut self.actors, pace);
        }
    }

    fn compare(&mut self, expected: &BTreeMap<usize, Vec<String>>) -> Result<(), String> {
        for actor in &mut self.actors {
            let heard = std::mem::take(&mut actor.heard);
            let expected = expected.get(&actor.who).map_or(&[][..], Vec::as_slice);
            let same = heard.len() == expected.len()
                && expected.iter().zip(&heard).all(|(expected, heard)| agrees(expected, heard));
            if !same {
                return Err(format!("{} should hear {expected:?} but got {heard:?}", actor.who));
            }
        }
        Ok(())
    }
}

/// 52: In echo: pieces of lines from several clients by turns, some of them too long, some clients
/// gone in the middle of one. A witness's round trip lets the server read a piece alone.
fn what_random_scripts_echo_is_what_the_oracle_says(ctx: &Ctx) {
    let mut rng = ctx.rng();
    for number in 1..=watchdog::scripts() {
        let server = ctx.echo(&["--max-line", &MAX_LINE.to_string()]);
        let (mut witness, mut clients) = (server.client(), server.clients(PEOPLE));
        let (mut sent, mut steps) = (vec![Vec::new(); PEOPLE], String::new());
        for _ in 0..STEPS {
            let who = rng.usize(..PEOPLE);
            let piece = echo_piece(&mut rng, &sent[who]);
            steps += &format!("\n    {who} sends \"{}\"", piece.escape_ascii());
            clients[who].send(&piece);
            sent[who].extend_from_slice(&piece);
            if rng.bool() {
                witness.round_trip("read by now");
            }
            if rng.u8(..10) == 0 {
                steps += &format!("\n    {who} resets");
                std::mem::replace(&mut clients[who], server.client()).reset();
                sent[who].clear();
            }
        }
        for (who, (client, sent)) in clients.into_iter().zip(sent).enumerate() {
            if let Err(what) = leave(client, &sent) {
                panic!("script {number}: client {who}: {what}, after{steps}");
            }
        }
    }
}

/// Something for a client to say that has sent this much: line ends, lines near the limit, others.
fn echo_piece(rng: &mut Rng, sent: &[u8]) -> Vec<u8> {
    let unfinished = sent.rsplit(|&byte| byte == b'\n').next().unwrap_or_default().len();
    match rng.u8(..6) {
        0 => pick(rng, &["\n", "\r\n", "\n\n\n"]).into(),
        1 | 2 => vec![b'y'; (MAX_LINE - 2 + rng.usize(..3)).saturating_sub(unfinished)],
        _ => (0..rng.usize(..50)).filter_map(|_| rng.choice(*b"abcde\n \0\xff")).collect(),
    }
}

/// Ends a client's sending side, and compares all that it has received.
fn leave(mut client: Client, sent: &[u8]) -> Result<(), String> {
    // Whether a line that is too long is told before its end is left open, so it gets one.
    let sent = [sent, b"\n"].concat();
    let expected = oracle::echo(&sent, MAX_LINE);
    client.send("\n");
    client.half_close();
    let got = client.read_to_end();
    let Some(at) = difference(&expected, &got) else {
        let orderly = client.end() == Some(End::Closed);
        return if orderly { Ok(()) } else { Err("the stream ended with a reset".to_owned()) };
    };
    let (expected, got) = (excerpt(&expected, at), excerpt(&got, at));
    Err(format!("at byte {at} of what came back: expected {expected}, got {got}"))
}
