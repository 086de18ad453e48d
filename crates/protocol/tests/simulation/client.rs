//! A peer of the server: what it sends, and what it must receive.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;

use protocol::{Limits, Mode, Settings};

use crate::kernel::Socket;
use crate::random::Random;

/// The channels of a chat world.
const CHANNELS: [&str; 2] = ["#a", "#b"];

/// Bytes that a client has ready at most: more would only make the end of a world longer.
const OUTGOING: usize = 2_000;

pub(crate) struct Client {
    /// No other client of the world has had it.
    pub(crate) uid: u64,
    /// Its end of the connection.
    pub(crate) socket: usize,
    /// Takes all that comes at once, so it is never the one that is too slow.
    pub(crate) eager: bool,
    /// It has ended its stream, as soon as `outgoing` has gone.
    pub(crate) ending: bool,
    /// It has seen the end of the server's stream, or has reset the connection.
    pub(crate) over: bool,
    /// It has sent what a server answers by closing the connection.
    pub(crate) offends: bool,
    /// Why the server has cut it.
    pub(crate) cut: Option<String>,
    outgoing: VecDeque<u8>,
    receives: Receives,
}

enum Receives {
    Echo(Echo),
    Chat(Box<Chat>),
}

/// What an echo client must receive.
#[derive(Default)]
struct Echo {
    /// The replies to all that was sent, without those that have come.
    expected: VecDeque<u8>,
    /// The line that is being sent, if it is not over the limit.
    line: Vec<u8>,
    /// The line that is being sent is over the limit, and the reply to it is expected.
    skipping: bool,
    max_line: usize,
}

/// What a member knows.
#[derive(Default)]
struct Chat {
    line: Vec<u8>,
    renamed: u64,
    rooms: [Room; 2],
}

/// One channel, as one member sees it.
#[derive(Default)]
struct Room {
    /// The member has sent JOIN, and no PART since.
    asked: bool,
    /// It has received its own JOIN, and no PART of its own since.
    joined: bool,
    /// How many messages it has sent there.
    spoken: u64,
    /// The number of the last message from each speaker, since the member has joined.
    last: HashMap<u64, u64>,
    /// Those that have left and have not come back, since the member has joined.
    gone: HashSet<u64>,
}

impl Client {
    pub(crate) fn new(uid: u64, socket: usize, eager: bool, settings: &Settings) -> Client {
        let receives = match settings.mode {
            Mode::Echo => {
                let max_line = settings.limits.max_line;
                Receives::Echo(Echo { max_line, ..Echo::default() })
            }
            Mode::Chat => Receives::Chat(Box::default()),
        };
        Client {
            uid,
            socket,
            eager,
            ending: false,
            over: false,
            offends: false,
            cut: None,
            outgoing: VecDeque::new(),
            receives,
        }
    }

    /// Says who it is; or, once in a while, speaks another protocol to a chat server.
    pub(crate) fn register(&mut self, random: &mut Random) {
        let uid = self.uid;
        match &self.receives {
            Receives::Echo(_) => {}
            Receives::Chat(_) if random.once_in(12) => {
                self.offends = true;
                let web = random.once_in(2);
                self.queue(if web {
                    b"GET / HTTP/1.1\r\n\r\n"
                } else {
                    b"\x16\x03\x01\x02\x00\x01"
                });
            }
            Receives::Chat(_) => {
                self.queue(format!("NICK n{uid}\r\nUSER u{uid} 0 * :x\r\n").as_bytes());
            }
        }
    }

    /// Has something more to send, if it may still send.
    pub(crate) fn compose(&mut self, random: &mut Random) {
        if self.ending || self.over || self.offends || self.outgoing.len() > OUTGOING {
            return;
        }
        let uid = self.uid;
        match &mut self.receives {
            Receives::Echo(echo) => {
                let most = if random.once_in(8) { 3 * echo.max_line } else { echo.max_line / 2 };
                let mut bytes = vec![b'x'; random.below(most)];
                bytes.iter_mut().for_each(|byte| *byte = b'a' + (random.next() % 26) as u8);
                if !random.once_in(4) {
                    bytes.extend(random.pick(&["\n", "\r\n", "\n\n"]).bytes());
                }
                echo.expect(&bytes);
                self.outgoing.extend(bytes);
            }
            Receives::Chat(_) if random.once_in(200) => {
                self.offends = true;
                self.queue(b"QUIT :bye\r\n");
            }
            Receives::Chat(chat) => {
                let line = chat.compose(uid, random);
                self.queue(&line);
            }
        }
    }

    fn queue(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
    }

    /// Says something in each of its channels.
    pub(crate) fn speak(&mut self) {
        let Receives::Chat(chat) = &mut self.receives else { return };
        if self.ending || self.over || self.offends {
            return;
        }
        let mut bytes = Vec::new();
        for at in 0..CHANNELS.len() {
            if chat.rooms[at].asked {
                bytes.extend(chat.rooms[at].speak(at, self.uid, 0));
            }
        }
        self.outgoing.extend(bytes);
    }

    /// Gives up to `most` bytes to the kernel, or the end of its stream behind the last of them.
    /// Returns whether it could give anything.
    pub(crate) fn flush(&mut self, socket: &mut Socket, most: usize) -> bool {
        if self.over || socket.closed || socket.to_server.ended {
            return false;
        }
        let room = socket.size.saturating_sub(socket.to_server.bytes.len());
        let len = self.outgoing.len().min(most).min(room);
        socket.to_server.bytes.extend(self.outgoing.drain(..len));
        let ends = self.ending && self.outgoing.is_empty();
        socket.to_server.ended = ends;
        len > 0 || ends
    }

    /// Takes up to `most` bytes from the kernel and looks at them. Returns whether anything came.
    pub(crate) fn receive(&mut self, socket: &mut Socket, most: usize) -> bool {
        if self.over {
            return false;
        }
        let len = socket.to_client.bytes.len().min(most);
        let bytes: Vec<u8> = socket.to_client.bytes.drain(..len).collect();
        match &mut self.receives {
            Receives::Echo(echo) => echo.check(&bytes),
            Receives::Chat(chat) => {
                for &byte in &bytes {
                    chat.line.push(byte);
                    if byte == b'\n' {
                        let line = String::from_utf8(mem::take(&mut chat.line)).expect("text");
                        match chat.check(self.uid, line.trim_end()) {
                            Heard::Nothing => {}
                            Heard::Ping(pong) => self.outgoing.extend(pong.bytes()),
                            Heard::Error(reason) => self.cut = Some(reason),
                        }
                    }
                }
            }
        }
        let ended = socket.to_client.bytes.is_empty()
            && (socket.to_client.ended || socket.closed || socket.reset);
        if ended {
            self.over = true;
        }
        len > 0 || ended
    }

    /// The connection is dead, and the client knows.
    pub(crate) fn reset(&mut self, socket: &mut Socket) {
        socket.reset = true;
        self.over = true;
    }

    /// Whether the last line that has come has no end.
    pub(crate) fn has_half_a_line(&self) -> bool {
        matches!(&self.receives, Receives::Chat(chat) if !chat.line.is_empty())
    }

    /// Whether the kernel has taken all that it has to send.
    pub(crate) fn has_sent_all(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Whether nothing is missing of what an echo client must receive.
    pub(crate) fn is_answered(&self) -> bool {
        match &self.receives {
            Receives::Echo(echo) => echo.expected.is_empty(),
            Receives::Chat(_) => true,
        }
    }

    /// Whether both are in this channel, as far as they know.
    fn shares(&self, other: &Client, at: usize) -> bool {
        let room = |client: &Client| match &client.receives {
            Receives::Chat(chat) => chat.rooms[at].asked && chat.rooms[at].joined,
            Receives::Echo(_) => false,
        };
        room(self) && room(other)
    }

    /// What has not come from `speaker`, who has just spoken.
    pub(crate) fn misses(&self, speaker: &Client) -> Option<String> {
        let (Receives::Chat(own), Receives::Chat(theirs)) = (&self.receives, &speaker.receives)
        else {
            return None;
        };
        (0..CHANNELS.len()).filter(|&at| self.shares(speaker, at)).find_map(|at| {
            let (last, spoken) = (own.rooms[at].last.get(&speaker.uid), theirs.rooms[at].spoken);
            (last != Some(&spoken)).then(|| {
                let name = CHANNELS[at];
                format!("member {} has {last:?} of {}'s {spoken} in {name}", self.uid, speaker.uid)
            })
        })
    }
}

impl Echo {
    fn expect(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.skipping {
                self.skipping = byte != b'\n';
                continue;
            }
            self.line.push(byte);
            if self.line.len() > self.max_line {
                self.expected.extend(b"ERR line too long\r\n");
                self.line.clear();
                self.skipping = byte != b'\n';
            } else if byte == b'\n' {
                self.expected.extend(self.line.drain(..));
            }
        }
    }

    fn check(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let expected = self.expected.pop_front();
            assert_eq!(Some(byte as char), expected.map(char::from), "an echo is wrong");
        }
    }
}

/// What a line asks of the member itself.
enum Heard {
    Nothing,
    Ping(String),
    Error(String),
}

impl Chat {
    fn compose(&mut self, uid: u64, random: &mut Random) -> Vec<u8> {
        let at = random.below(CHANNELS.len());
        let (name, room) = (CHANNELS[at], &mut self.rooms[at]);
        match random.below(24) {
            0 => {
                let long = "x".repeat(Limits::CHAT_LINE + random.below(200));
                format!("{long}\r\n").into_bytes()
            }
            1 => b"\r\n\n".to_vec(),
            2 => format!("PING :{uid}\r\n").into_bytes(),
            3 => format!("NAMES {name}\r\nLIST\r\n").into_bytes(),
            4 => format!("TOPIC {name} :topic of {uid}\r\n").into_bytes(),
            5 => {
                self.renamed += 1;
                format!("NICK n{uid}x{}\r\n", self.renamed).into_bytes()
            }
            6 if room.asked => {
                room.asked = false;
                format!("PART {name}\r\n").into_bytes()
            }
            7 => format!("PRIVMSG n{} :to one\r\n", random.below(8)).into_bytes(),
            8..=10 if room.asked => {
                let mut burst = Vec::new();
                for _ in 0..1 + random.below(8) {
                    burst.extend(room.speak(at, uid, random.below(400)));
                }
                burst
            }
            _ if room.asked => room.speak(at, uid, random.below(40)),
            _ => {
                room.asked = true;
                format!("\r\nJOIN {name}\r\n").into_bytes()
            }
        }
    }

    fn check(&mut self, uid: u64, line: &str) -> Heard {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (source, command, target) = (word(), word(), word().trim_start_matches(':'));
        match source {
            "PING" => return Heard::Ping(format!("PONG {command}\r\n")),
            "ERROR" => return Heard::Error(line.to_owned()),
            _ => {}
        }
        // The user name never changes, so it says which client the line is from.
        let user = source.split_once("!u").and_then(|(_, user)| user.split_once('@'));
        let Some(from) = user.and_then(|(number, _)| number.parse().ok()) else {
            return Heard::Nothing;
        };
        if command == "QUIT" {
            self.check_quit(uid, from, line);
        }
        for (name, room) in CHANNELS.iter().zip(&mut self.rooms) {
            if target == *name {
                room.check(command, uid, from, line);
            }
        }
        Heard::Nothing
    }

    fn check_quit(&mut self, uid: u64, from: u64, line: &str) {
        let mut shared = false;
        for room in &mut self.rooms {
            shared |= room.joined && room.gone.insert(from);
        }
        assert!(shared, "member {uid} shares nothing with {from}: {line}");
    }
}

impl Room {
    /// The next message, with so many bytes in it that say nothing.
    fn speak(&mut self, at: usize, uid: u64, padding: usize) -> Vec<u8> {
        self.spoken += 1;
        let padding = "x".repeat(padding);
        format!("PRIVMSG {} :{uid} {padding} {}\r\n", CHANNELS[at], self.spoken).into_bytes()
    }

    /// A member of the channel has joined, left or spoken.
    fn check(&mut self, command: &str, uid: u64, from: u64, line: &str) {
        let joins = command == "JOIN" && from == uid;
        assert!(self.joined != joins, "member {uid} is there, or is not: {line}");
        match command {
            "JOIN" if from == uid => {
                let (asked, spoken) = (self.asked, self.spoken);
                *self = Room { joined: true, asked, spoken, ..Room::default() };
            }
            "JOIN" => {
                self.gone.remove(&from);
                self.last.remove(&from);
            }
            "PART" if from == uid => self.joined = false,
            "PART" => assert!(self.gone.insert(from), "{from} leaves twice: {line}"),
            "PRIVMSG" => {
                let number = line.rsplit(' ').next().and_then(|word| word.parse().ok());
                self.hear(uid, from, number.expect("a number"), line);
            }
            _ => {}
        }
    }

    /// A message has come: the next one of its speaker, unless it is the first since one of the two
    /// has joined.
    fn hear(&mut self, uid: u64, from: u64, number: u64, line: &str) {
        assert!(from != uid, "member {uid} receives what it has said: {line}");
        assert!(!self.gone.contains(&from), "the speaker has left: {line}");
        if let Some(last) = self.last.insert(from, number) {
            assert_eq!(number, last + 1, "member {uid} of speaker {from}: {line}");
        }
    }
}
