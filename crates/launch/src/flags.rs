//! The flags that all servers share.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use protocol::{Changing, ChatSettings, ConnId, Limits, Mode, Settings};

use crate::counters::Tally;
use crate::gate::Gate;
use crate::log::{Format, Level, Log};
use crate::operators::{self, Operators};
use crate::stop::Stop;
use crate::texts::{Password, Texts};
use crate::watch::Watch;
use crate::{Failure, Launch, config, files, manager, metrics, socket, watchdog};

/// The fewest sets of counters, for models that have many threads and few workers.
const COUNTERS: usize = 16;

/// Connections at once, when no flag asks for another number.
const MAX_CONNECTIONS: usize = 16384;

/// The largest size that a flag may ask for, in bytes: 1 GiB.
const MAX_BYTES: usize = 1 << 30;

/// For a model that has no flags of its own.
#[derive(Args, Debug)]
pub struct NoExtra {}

/// Why there is nothing to launch.
pub(crate) enum Early {
    Help(String),
    Failure(Failure),
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeFlag {
    Echo,
    Chat,
}

/// Where to listen, before names are looked up.
#[derive(Clone)]
enum Listen {
    Address(SocketAddr),
    Name(String, u16),
}

#[derive(Parser)]
#[command(next_line_help = false, disable_help_subcommand = true)]
struct Flags<E: Args> {
    /// A file of flags: TOML, by their names without the dashes; the command line wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, at all addresses if it is a name; port 0 picks a free one; may be given
    /// several times, and not where sockets are handed over [default: 127.0.0.1, port 7007 or, in
    /// chat, 6667]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen)]
    listen: Vec<Listen>,
    /// Allow addresses that other machines can reach
    #[arg(long)]
    public: bool,
    /// What to speak
    #[arg(long, value_enum, default_value = "echo")]
    mode: ModeFlag,
    /// How many loops, processes or runtime threads serve
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = numbers::<usize>(1, ConnId::MAX_WORKERS))]
    workers: usize,
    /// Connections at once [default: 16384]
    #[arg(long, value_name = "N", value_parser = numbers::<usize>(1, ConnId::MAX_SLOTS))]
    max_connections: Option<usize>,
    /// Connections at once from one address [default: 64 with --public, else as --max-connections]
    #[arg(long, value_name = "N", value_parser = numbers::<usize>(1, ConnId::MAX_SLOTS))]
    max_connections_per_ip: Option<usize>,
    /// Echo: longest line, its end included
    #[arg(long, value_name = "BYTES", default_value = "64KiB")]
    #[arg(value_parser = bytes(16))]
    max_line: usize,
    /// Chat: most bytes of a line without an end, or waiting for the flood control
    #[arg(long, value_name = "BYTES", default_value = "8KiB")]
    #[arg(value_parser = bytes(Limits::CHAT_LINE))]
    max_recvq: usize,
    /// Most bytes queued for a connection; a quarter of it stops reading, and in chat is the soft
    /// limit
    #[arg(long, value_name = "BYTES", default_value = "1MiB")]
    #[arg(value_parser = bytes(4096))]
    sendq: usize,
    /// Chat: how long a member may be over the soft limit
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = durations("0s", "365d"))]
    sendq_grace: Duration,
    /// Echo: longest time without a whole line; chat: silence before a ping
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    #[arg(value_parser = durations("1ns", "365d"))]
    idle_timeout: Duration,
    /// Chat: silence after a ping
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    #[arg(value_parser = durations("0s", "365d"))]
    ping_timeout: Duration,
    /// Chat: time to register
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = durations("0s", "365d"))]
    registration_timeout: Duration,
    /// How long a stop may take
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    #[arg(value_parser = durations("0s", "365d"))]
    drain_timeout: Duration,
    /// Hold every reply back, as a handler that asks a database would
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    #[arg(value_parser = durations("0s", "1h"))]
    wait: Duration,
    /// Burn CPU time for every line, as a computation would
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    #[arg(value_parser = durations("0s", "1s"))]
    work: Duration,
    /// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn
    #[arg(long, value_name = "N", default_value = "4096")]
    #[arg(value_parser = numbers::<i32>(1, 1_000_000))]
    backlog: i32,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    log: Format,
    /// What is logged
    #[arg(long, value_enum, default_value = "info")]
    log_level: Level,
    /// Tell the counters at http://ADDRESS:PORT/metrics, as OpenMetrics
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    metrics: Option<SocketAddr>,
    /// Chat: the server's name
    #[arg(long, value_name = "NAME", default_value = "irc.localhost", value_parser = name)]
    server_name: String,
    /// Chat: the network's name
    #[arg(long, value_name = "NAME", default_value = "iomodels", value_parser = name)]
    network: String,
    /// Chat: the message of the day
    #[arg(long, value_name = "FILE")]
    motd: Option<PathBuf>,
    /// Chat: what the server is, in a few words
    #[arg(long, value_name = "TEXT", value_parser = one_line)]
    #[arg(default_value = "one protocol, every I/O model")]
    description: String,
    /// Chat: whom to write to, as ADMIN tells it
    #[arg(long, value_name = "TEXT", value_parser = one_line)]
    admin: Option<String>,
    /// Chat: what PASS must say; all users of this machine can read it here: use --password-file
    #[arg(long, value_name = "WORD", conflicts_with = "password_file")]
    password: Option<String>,
    /// Chat: what PASS must say, the one line of this file [default: the credential `password`, if
    /// a service manager gives one]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Chat: who may be operator of the server by OPER: in each line of this file a name and the
    /// hash of its password
    #[arg(long, value_name = "FILE")]
    oper_file: Option<PathBuf>,
    /// Print the hash of the password that is the first line of standard input, and end
    #[arg(long)]
    hash_password: bool,
    /// Chat: do not ration the members' lines
    #[arg(long)]
    no_flood_control: bool,
    /// Chat: lines that a member may send in one go
    #[arg(long, value_name = "N", default_value = "20", value_parser = numbers::<u32>(1, 10_000))]
    flood_burst: u32,
    /// Chat: time that pays for one more line
    #[arg(long, value_name = "DURATION", default_value = "500ms")]
    #[arg(value_parser = durations("0s", "1h"))]
    flood_interval: Duration,
    /// Chat: how long a member may go on sending more than that
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = durations("0s", "365d"))]
    flood_grace: Duration,
    /// Chat: refuse text that is not UTF-8
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    utf8_only: bool,
    /// Chat: channels that one member may be in
    #[arg(long, value_name = "N", default_value = "50", value_parser = numbers::<usize>(1, 10_000))]
    max_channels: usize,
    /// Chat: targets that one command may name
    #[arg(long, value_name = "N", default_value = "8", value_parser = numbers::<usize>(1, 10_000))]
    max_targets: usize,
    #[command(flatten)]
    extra: E,
}

/// Reads the command line and prepares the process: the soft descriptor limit becomes the hard.
pub(crate) fn parse<E: Args>(name: &'static str, about: &'static str) -> Result<Launch<E>, Early> {
    let command = Flags::<E>::command().name(name).bin_name(name).about(about);
    let command = command.version(env!("CARGO_PKG_VERSION"));
    let line: Vec<OsString> = std::env::args_os().collect();
    let given = command.clone().try_get_matches_from(&line).map_err(early)?;
    let shown = given.value_source("password") == Some(ValueSource::CommandLine);
    let matches = match given.get_one::<PathBuf>("config") {
        Some(file) => with_file(file, command, &line, &given)?,
        None => given,
    };
    let flags = Flags::from_arg_matches(&matches).map_err(early)?;
    if flags.hash_password {
        let hash = operators::hash_of_input().map_err(Early::Failure)?;
        return Err(Early::Help(hash + "\n"));
    }
    let launch = build(name, flags).map_err(Early::Failure)?;
    if shown {
        launch.log.warn("all users of this machine can read --password: use --password-file");
    }
    Ok(launch)
}

/// The flags of the command line, and of the file what it does not say.
fn with_file(
    file: &Path,
    command: Command,
    line: &[OsString],
    given: &ArgMatches,
) -> Result<ArgMatches, Early> {
    let wrong =
        |error| Early::Failure(Failure::Usage(format!("--config {}: {error}", file.display())));
    let arguments = config::arguments(file, &command, given).map_err(wrong)?;
    let (program, rest) = line.split_at(line.len().min(1));
    let all = [program, &arguments, rest].concat();
    // What is wrong now is wrong in the file: the command line alone was right.
    command.try_get_matches_from(all).map_err(|error| match early(error) {
        Early::Failure(Failure::Usage(error)) => wrong(error),
        other => other,
    })
}

/// Help and version are texts; anything else becomes one line that says what to type.
fn early(error: clap::Error) -> Early {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Early::Help(format!("{}\n", text.trim_end()));
    }
    let said = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = said.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let said: Vec<_> = said.map(|line| line.trim_start_matches("error: ")).collect();
    Early::Failure(Failure::Usage(format!("{}; see --help", said.join("; "))))
}

fn build<E: Args>(name: &'static str, flags: Flags<E>) -> Result<Launch<E>, Failure> {
    let mode = match flags.mode {
        ModeFlag::Echo => Mode::Echo,
        ModeFlag::Chat => Mode::Chat,
    };
    let log = Log::new(name, flags.log, flags.log_level);
    let (metrics, passed): (Vec<_>, Vec<_>) =
        manager::sockets()?.into_iter().partition(|(_, name)| name == "metrics");
    let passed: Vec<_> = passed.into_iter().map(|(socket, _)| socket).collect();
    let metrics = match metrics.into_iter().next() {
        Some((socket, _)) => Some(socket),
        None => metrics_listener(&flags)?,
    };
    if let Some(addr) = metrics.as_ref().and_then(|socket| socket.local_addr().ok()) {
        all_reachable_as_meant("--metrics", vec![addr], flags.public)?;
    }
    let tally = Arc::new(Tally::new(flags.workers.max(COUNTERS)));
    let texts = texts(&flags, mode, log, &tally)?;
    let watch: Arc<dyn protocol::Watch> = Arc::new(Watch { tally: Arc::clone(&tally), log });
    let addrs = addresses(&flags, mode, &passed, &log)?;
    let max_connections = flags.max_connections.unwrap_or(MAX_CONNECTIONS);
    let per_ip = if flags.public { 64 } else { max_connections };
    let per_ip = flags.max_connections_per_ip.unwrap_or(per_ip);
    raise_descriptor_limit();
    Ok(Launch {
        gate: Gate::new(mode, max_connections, per_ip, log),
        connections_asked_for: flags.max_connections,
        stop: Stop::default(),
        manager: manager::Manager::from_env(),
        workers: flags.workers,
        drain_timeout: flags.drain_timeout,
        socket: socket::Wanted::new(addrs, flags.backlog, passed)?,
        bound: OnceLock::new(),
        metrics,
        watchdog: watchdog::interval(),
        tally,
        work: flags.work,
        started: Instant::now(),
        settings: Arc::new(Settings {
            mode,
            limits: limits(&flags),
            wait: flags.wait,
            step_lines: step_lines(flags.work),
            watch: Some(watch),
            chat: chat(&flags, &texts),
        }),
        texts,
        log,
        extra: flags.extra,
    })
}

/// The longest that the lines of one connection are worked on before the others have their turn.
const LONGEST_STEP: Duration = Duration::from_millis(10);

/// How many lines that is, at `--work` for each.
fn step_lines(work: Duration) -> u64 {
    if work.is_zero() {
        return u64::MAX;
    }
    let lines = LONGEST_STEP.as_nanos() / work.as_nanos();
    u64::try_from(lines.max(1)).unwrap_or(u64::MAX)
}

fn limits<E: Args>(flags: &Flags<E>) -> Limits {
    Limits {
        max_line: flags.max_line,
        max_recvq: flags.max_recvq,
        sendq: flags.sendq,
        sendq_grace: flags.sendq_grace,
        idle_timeout: flags.idle_timeout,
        ping_timeout: flags.ping_timeout,
        registration_timeout: flags.registration_timeout,
        flood_control: !flags.no_flood_control,
        flood_burst: flags.flood_burst,
        flood_interval: flags.flood_interval,
        flood_grace: flags.flood_grace,
        max_channels: flags.max_channels,
        max_targets: flags.max_targets,
        ..Limits::default()
    }
}

fn chat<E: Args>(flags: &Flags<E>, texts: &Option<Arc<Texts>>) -> ChatSettings {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    ChatSettings {
        server_name: flags.server_name.clone(),
        network: flags.network.clone(),
        admin: flags.admin.clone(),
        description: flags.description.clone(),
        changing: texts.clone().map(|texts| texts as Arc<dyn Changing>),
        utf8_only: flags.utf8_only,
        started_unix: since_1970.as_secs(),
        ..ChatSettings::default()
    }
}

/// What the chat says and asks for that may change, in chat.
fn texts<E: Args>(
    flags: &Flags<E>,
    mode: Mode,
    log: Log,
    tally: &Arc<Tally>,
) -> Result<Option<Arc<Texts>>, Failure> {
    let is_chat = mode == Mode::Chat;
    let credential = || if is_chat { files::credential() } else { None };
    let file = flags.password_file.clone().or_else(credential);
    let password = match (&flags.password, file) {
        (Some(word), _) => Password::Word(word.clone()),
        (None, Some(file)) => Password::File(file),
        (None, None) => Password::None,
    };
    // Also in echo, which has no use for them: a wrong file is told.
    let operators = flags.oper_file.clone().map(|file| Operators::new(file, log)).transpose()?;
    let texts = Texts::new(flags.motd.clone(), password, operators, log, Arc::clone(tally))?;
    Ok(is_chat.then(|| Arc::new(texts)))
}

/// A connection is a descriptor, and the soft limit is often 1024.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // When it cannot be raised, accept runs short earlier, and says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Where to bind sockets: for each `--listen` its addresses, none twice. There is nothing to bind
/// where sockets were handed over.
fn addresses<E: Args>(
    flags: &Flags<E>,
    mode: Mode,
    passed: &[TcpListener],
    log: &Log,
) -> Result<Vec<Vec<SocketAddr>>, Failure> {
    if !passed.is_empty() {
        if !flags.listen.is_empty() {
            let text = "--listen beside sockets that were handed over: leave one of them out";
            return Err(Failure::Usage(text.to_owned()));
        }
        let addrs = passed.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        // None is left out: its connections would wait in vain.
        return all_reachable_as_meant("--listen", addrs, flags.public).map(|()| Vec::new());
    }
    let port = if mode == Mode::Echo { 7007 } else { 6667 };
    let default = Listen::Address(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let wanted = if flags.listen.is_empty() { vec![default] } else { flags.listen.clone() };
    let mut all: Vec<Vec<SocketAddr>> = Vec::new();
    for listen in wanted {
        let mut addrs = reachable_as_meant(resolve(&listen)?, flags.public, log)?;
        addrs.retain(|addr| addr.port() == 0 || !all.iter().flatten().any(|other| other == addr));
        if !addrs.is_empty() {
            all.push(addrs);
        }
    }
    Ok(all)
}

/// The addresses that `--listen` stands for: canonical, and none twice.
fn resolve(listen: &Listen) -> Result<Vec<SocketAddr>, Failure> {
    let found: Vec<SocketAddr> = match listen {
        Listen::Address(addr) => vec![*addr],
        Listen::Name(name, port) => {
            let found = (name.as_str(), *port).to_socket_addrs().map_err(|error| {
                Failure::Failed(format!("cannot find the addresses of --listen {name}: {error}"))
            })?;
            found.collect()
        }
    };
    let mut addrs = Vec::new();
    for mut addr in found {
        // An IPv6 address keeps its scope.
        if addr.ip() != addr.ip().to_canonical() {
            addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        }
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    if addrs.is_empty() {
        return Err(Failure::Failed("--listen stands for no address".to_owned()));
    }
    Ok(addrs)
}

/// Those of the addresses of one name that only this machine can reach, or all where that is not
/// asked for.
fn reachable_as_meant(
    mut addrs: Vec<SocketAddr>,
    public: bool,
    log: &Log,
) -> Result<Vec<SocketAddr>, Failure> {
    let others: Vec<_> = addrs.extract_if(.., |addr| !is_meant(addr, public)).collect();
    if addrs.is_empty() {
        return Err(reachable("--listen", &others));
    }
    if !others.is_empty() {
        log.warn(&format!(
            "does not listen on {}, which other machines could reach: add --public if that is \
             meant",
            list(&others)
        ));
    }
    Ok(addrs)
}

/// Refuses sockets that other machines can reach where that is not asked for.
fn all_reachable_as_meant(
    flag: &str,
    mut addrs: Vec<SocketAddr>,
    public: bool,
) -> Result<(), Failure> {
    addrs.retain(|addr| !is_meant(addr, public));
    if addrs.is_empty() { Ok(()) } else { Err(reachable(flag, &addrs)) }
}

fn is_meant(addr: &SocketAddr, public: bool) -> bool {
    public || addr.ip().to_canonical().is_loopback()
}

fn reachable(flag: &str, addrs: &[SocketAddr]) -> Failure {
    Failure::Usage(format!(
        "other machines could reach {flag} {}: add --public if that is meant",
        list(addrs)
    ))
}

fn list(addrs: &[SocketAddr]) -> String {
    addrs.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" and ")
}

/// The socket of `--metrics`.
fn metrics_listener<E: Args>(flags: &Flags<E>) -> Result<Option<TcpListener>, Failure> {
    let Some(addr) = flags.metrics else { return Ok(None) };
    all_reachable_as_meant("--metrics", vec![addr], flags.public)?;
    metrics::listen(addr).map(Some)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected an address and a port, such as 127.0.0.1:9464 or [::1]:9464".to_owned()
    })
}

fn listen(text: &str) -> Result<Listen, String> {
    if let Ok(addr) = text.parse() {
        return Ok(Listen::Address(addr));
    }
    let parts = text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match parts {
        Some((name, port)) if !name.is_empty() && name.chars().all(fits) => {
            Ok(Listen::Name(name.to_owned(), port))
        }
        _ => {
            Err("expected an address or a name and a port, such as 127.0.0.1:7007, [::1]:7007 or \
                  localhost:7007"
                .to_owned())
        }
    }
}

/// A parser of whole numbers between two bounds, which are refused beyond by name. Every number,
/// size and duration has bounds, so that no arithmetic on them can overflow.
///
/// # Panics
/// The parser does when a bound does not fit the type: a bug.
pub fn numbers<T>(
    least: usize,
    most: usize,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: TryFrom<usize>,
{
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let number = number.map(|number| T::try_from(number).ok().expect("the bounds fit"));
        number.ok_or_else(|| format!("expected a whole number from {least} to {most}"))
    }
}

/// A parser of durations between two bounds, which are durations themselves, such as 50us, 300ms,
/// 5s, 2m or 365d.
///
/// # Panics
/// The parser does when a bound is no duration: a bug.
pub fn durations(
    least: &'static str,
    most: &'static str,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let parse = |text: &str| match text {
        "0" => Some(Duration::ZERO),
        text => humantime::parse_duration(text).ok(),
    };
    let bounds = [least, most].map(|bound| parse(bound).expect("a bound is a duration"));
    move |text| {
        let duration = parse(text).filter(|time| (bounds[0]..=bounds[1]).contains(time));
        let expected = || format!("expected a duration, such as 300ms, from {least} to {most}");
        duration.ok_or_else(expected)
    }
}

/// A parser of sizes of at least so many bytes, and at most [`MAX_BYTES`].
fn bytes(least: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let size = text.parse::<bytesize::ByteSize>().ok();
        let size = size.and_then(|size| usize::try_from(size.as_u64()).ok());
        let expected = || format!("expected a size, such as 64KiB, from {least} to {MAX_BYTES}");
        size.filter(|size| (least..=MAX_BYTES).contains(size)).ok_or_else(expected)
    }
}

/// A name that stands between spaces in chat messages.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        return Err("expected up to 63 letters, digits, '-', '.' and '_'".to_owned());
    }
    Ok(text.to_owned())
}

/// What a server says to its members, in one line of theirs.
fn one_line(text: &str) -> Result<String, String> {
    if text.len() > 300 || text.contains(char::is_control) {
        return Err("expected up to 300 bytes without control characters".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(text: &str) -> Vec<SocketAddr> {
        resolve(&listen(text).expect("well written")).expect("an address")
    }

    #[test]
    fn an_address_is_canonical() {
        assert_eq!(addrs("[::ffff:127.0.0.1]:7"), addrs("127.0.0.1:7"));
        assert_eq!(addrs("[::1]:7")[0].to_string(), "[::1]:7");
    }

    #[test]
    fn a_name_is_a_name_with_a_port() {
        assert!(addrs("localhost:7007").iter().all(|addr| addr.ip().is_loopback()));
        for text in ["localhost", ":7", "127.0.0.1:99999", "a b:7", "::1:7", "[::1]", "host:"] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_other_machines_reach_is_left_out_or_refused() {
        let log = Log::new("test", Format::Text, Level::Info);
        let all: Vec<SocketAddr> =
            ["127.0.0.1:7", "192.0.2.1:7"].map(|addr| addr.parse().expect("an address")).into();
        let allowed =
            |addrs: &[SocketAddr], public| reachable_as_meant(addrs.to_vec(), public, &log).ok();
        assert_eq!(allowed(&all, false), Some(all[..1].to_vec()));
        assert_eq!(allowed(&all, true), Some(all.clone()));
        assert_eq!(allowed(&all[1..], false), None);
    }

    #[test]
    fn values_are_taken_up_to_their_bounds_and_refused_beyond() {
        let number = numbers::<u32>(1, 10);
        assert_eq!((number("1"), number("10")), (Ok(1), Ok(10)));
        let size = bytes(16);
        assert_eq!((size("16"), size("1GiB")), (Ok(16), Ok(MAX_BYTES)));
        let time = durations("1ns", "365d");
        assert_eq!(time("1ns"), Ok(Duration::from_nanos(1)));
        assert_eq!(time("365d"), Ok(Duration::from_secs(365 * 86_400)));
        let refused = [
            number("0"),
            number("11"),
            number("-1"),
            size("15").map(|_| 0),
            size("1073741825").map(|_| 0),
            size("16EiB").map(|_| 0),
            time("0").map(|_| 0),
            time("18446744073709551615s").map(|_| 0),
            time("99999999999999999999s").map(|_| 0),
        ];
        for refusal in refused {
            assert!(refusal.is_err_and(|text| text.contains(" to ")), "the bounds are named");
        }
    }
}
