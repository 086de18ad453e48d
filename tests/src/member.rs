//! A member of the chat: a client that speaks the IRC subset, and the messages it gets.

use std::fmt;

use crate::client::Client;

/// One message from the server, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// What stands before it, without the `@`.
    pub(crate) tags: String,
    /// Who it is from: `nick!user@host` or the server's name; empty if it does not say.
    pub(crate) source: String,
    pub(crate) command: String,
    /// The parameters; the last one without its colon.
    pub(crate) params: Vec<String>,
}

impl Message {
    pub(crate) fn parse(line: &[u8]) -> Self {
        let line = String::from_utf8_lossy(line);
        let (tags, line) = match line.strip_prefix('@') {
            Some(rest) => rest.split_once(' ').unwrap_or((rest, "")),
            None => ("", &*line),
        };
        let (source, rest) = match line.strip_prefix(':') {
            Some(rest) => rest.split_once(' ').unwrap_or((rest, "")),
            None => ("", line),
        };
        let (middle, trailing) = match rest.split_once(" :") {
            Some((middle, trailing)) => (middle, Some(trailing)),
            None => (rest, None),
        };
        let mut words = middle.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
        let command = words.next().unwrap_or_default();
        let params = words.chain(trailing.map(str::to_owned)).collect();
        Self { tags: tags.to_owned(), source: source.to_owned(), command, params }
    }

    /// The nickname in the source.
    pub(crate) fn from(&self) -> &str {
        self.source.split('!').next().unwrap_or_default()
    }

    /// A parameter, or nothing where there is none.
    pub(crate) fn param(&self, index: usize) -> &str {
        self.params.get(index).map_or("", String::as_str)
    }

    /// The last parameter: the text of most messages.
    pub(crate) fn text(&self) -> &str {
        self.params.last().map_or("", String::as_str)
    }

    /// `nick COMMAND param param`: what most cases compare.
    pub(crate) fn brief(&self) -> String {
        let params = self.params.join(" ");
        format!("{} {} {params}", self.from(), self.command).trim().to_owned()
    }

    /// An error or a refusal: a numeric of 400 and up.
    pub(crate) fn is_error(&self) -> bool {
        self.command.len() == 3 && self.command.parse::<u16>().is_ok_and(|number| number >= 400)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{} {} {:?}", self.source, self.command, self.params)
    }
}

/// A client that is a member of the chat, or on its way to be one.
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) nick: String,
    fences: u32,
}

impl AsMut<Client> for Member {
    fn as_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Member {
    /// A member who has not said who it is.
    pub(crate) fn stranger(client: Client) -> Self {
        Self { client, nick: "*".to_owned(), fences: 0 }
    }

    /// Registers and reads the welcome to its end.
    #[track_caller]
    pub(crate) fn register(client: Client, nick: &str) -> Self {
        let mut member = Self::stranger(client);
        member.introduce(nick);
        member.welcome();
        member
    }

    /// Sends NICK and USER.
    #[track_caller]
    pub(crate) fn introduce(&mut self, nick: &str) {
        nick.clone_into(&mut self.nick);
        self.client.send(introduction(nick));
    }

    /// Reads the welcome to its end and gives all of it.
    #[track_caller]
    pub(crate) fn welcome(&mut self) -> Vec<Message> {
        let mut welcome = Vec::new();
        loop {
            let message = self.next();
            let last = matches!(message.command.as_str(), "376" | "422");
            let refused = message.is_error() && !last || message.command == "ERROR";
            assert!(!refused, "{} is not welcome: {message:?}", self.nick);
            welcome.push(message);
            if last {
                return welcome;
            }
        }
    }

    /// Sends a line.
    #[track_caller]
    pub(crate) fn say(&mut self, line: impl AsRef<[u8]>) {
        self.client.send([line.as_ref(), b"\r\n"].concat());
    }

    /// The next message, whatever it is. All but ERROR and PING must say who they are from: some
    /// clients ignore replies without a source.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Message {
        let message = Message::parse(&self.client.line());
        let anonymous = matches!(message.command.as_str(), "ERROR" | "PING");
        assert!(anonymous || !message.source.is_empty(), "no source: {message:?}");
        message
    }

    /// The next message, which must be this one (as [`Message::brief`] puts it).
    #[track_caller]
    pub(crate) fn expect(&mut self, brief: &str) {
        let message = self.next();
        assert_eq!(message.brief(), brief, "what {} got: {message:?}", self.nick);
    }

    /// The next message, which must be this numeric or command.
    #[track_caller]
    pub(crate) fn gets(&mut self, command: &str) -> Message {
        let message = self.next();
        assert_eq!(message.command, command, "what {} got: {message:?}", self.nick);
        message
    }

    /// Sends a line and expects this numeric or command as the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str, command: &str) -> Message {
        self.say(line);
        self.gets(command)
    }

    /// Reads up to and including the first message with this command.
    #[track_caller]
    pub(crate) fn through(&mut self, command: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.last().is_none_or(|last: &Message| last.command != command) {
            messages.push(self.next());
        }
        messages
    }

    /// Waits until the server has dealt with all that this member has sent, and gives what came.
    ///
    /// It sends a PING and reads to its PONG. Whatever other members were known to have got through
    /// before is among the messages given; so nothing needs to be waited for that must not come.
    #[track_caller]
    pub(crate) fn sync(&mut self) -> Vec<Message> {
        self.fences += 1;
        let token = format!("fence-{}", self.fences);
        self.say(format!("PING {token}"));
        let mut messages = self.through("PONG");
        let pong = messages.pop().expect("through() ends with what it looks for");
        assert_eq!(pong.text(), token, "the token of {pong:?}");
        messages
    }

    /// Like [`Member::sync`], in brief.
    #[track_caller]
    pub(crate) fn briefs(&mut self) -> Vec<String> {
        self.sync().iter().map(Message::brief).collect()
    }

    /// Nothing came that has not been read.
    #[track_caller]
    pub(crate) fn hears_nothing(&mut self) {
        let messages = self.sync();
        assert!(messages.is_empty(), "{} got {messages:?}", self.nick);
    }

    /// Joins and reads the answer to its end.
    #[track_caller]
    pub(crate) fn join(&mut self, channel: &str) -> Vec<Message> {
        self.say(format!("JOIN {channel}"));
        let answer = self.through("366");
        assert_eq!(answer[0].brief(), format!("{} JOIN {channel}", self.nick));
        answer
    }

    /// Waits for the server's parting words and the end of the stream.
    #[track_caller]
    pub(crate) fn is_cut(&mut self) -> Message {
        let rest = self.client.read_to_end();
        let last = rest.split(|&byte| byte == b'\n').rfind(|line| !line.is_empty());
        let Some(last) = last else { panic!("{} was cut without a word", self.nick) };
        let message = Message::parse(last.trim_ascii_end());
        assert_eq!(message.command, "ERROR", "the last words to {}: {message:?}", self.nick);
        message
    }
}

/// What a client sends to register.
pub(crate) fn introduction(nick: &str) -> String {
    format!("NICK {nick}\r\nUSER {nick} 0 * :Real {nick}\r\n")
}

/// Lets all of these into a channel, and has each read what the others' joins brought.
#[track_caller]
pub(crate) fn gather(channel: &str, members: &mut [&mut Member]) {
    for member in members.iter_mut() {
        member.join(channel);
    }
    for member in members.iter_mut() {
        member.sync();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_apart() {
        let message = Message::parse(b":ann!a@host PRIVMSG #c :a b :c");
        assert_eq!(message.from(), "ann");
        assert_eq!(message.command, "PRIVMSG");
        assert_eq!(message.params, ["#c", "a b :c"]);
        assert_eq!(message.brief(), "ann PRIVMSG #c a b :c");
    }

    #[test]
    fn tags_stand_before_a_message() {
        let message = Message::parse(b"@a=b;c :ann!a@host PRIVMSG #c :@x");
        assert_eq!((message.tags.as_str(), message.from(), message.text()), ("a=b;c", "ann", "@x"));
    }

    #[test]
    fn a_message_without_source_or_parameters_is_taken_apart() {
        let message = Message::parse(b"ERROR :Closing link");
        assert_eq!((message.from(), message.command.as_str()), ("", "ERROR"));
        assert_eq!(message.text(), "Closing link");
        assert_eq!(Message::parse(b"").command, "");
        assert_eq!(Message::parse(b":lonely").source, "lonely");
    }

    #[test]
    fn only_numerics_of_400_and_up_are_errors() {
        assert!(Message::parse(b":s 433 * a :taken").is_error());
        assert!(!Message::parse(b":s 366 a #c :end").is_error());
        assert!(!Message::parse(b":s PRIVMSG a :433").is_error());
    }
}
