//! The flags that all servers share.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use protocol::{ChatSettings, ConnId, Limits, Mode, Settings};

use crate::gate::Gate;
use crate::log::{Format, Log};
use crate::stop::Stop;
use crate::{Counters, Failure, Launch, socket};

/// The fewest sets of counters, for models that have many threads and few workers.
const COUNTERS: usize = 16;

/// Connections at once, when nobody asks for another number.
const MAX_CONNECTIONS: usize = 16384;

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

#[derive(Parser)]
#[command(next_line_help = false, disable_help_subcommand = true)]
struct Flags<E: Args> {
    /// Where to listen; port 0 picks a free one [default: 127.0.0.1, port 7007 or, in chat, 6667]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Allow an address that other machines can reach
    #[arg(long)]
    public: bool,
    /// What to speak
    #[arg(long, value_enum, default_value = "echo")]
    mode: ModeFlag,
    /// How many loops, processes or runtime threads serve
    #[arg(long, value_name = "N", default_value = "1", value_parser = workers)]
    workers: usize,
    /// Connections at once [default: 16384]
    #[arg(long, value_name = "N", value_parser = positive)]
    max_connections: Option<usize>,
    /// Connections at once from one address [default: 64 with --public, else as --max-connections]
    #[arg(long, value_name = "N", value_parser = positive)]
    max_connections_per_ip: Option<usize>,
    /// Echo: longest line, its end included
    #[arg(long, value_name = "BYTES", default_value = "64KiB", value_parser = bytes)]
    max_line: usize,
    /// Chat: most bytes of a line without an end, or waiting for the flood control
    #[arg(long, value_name = "BYTES", default_value = "8KiB", value_parser = bytes)]
    max_recvq: usize,
    /// Most bytes queued for a connection; a quarter of it stops reading, and in chat is the soft
    /// limit
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = bytes)]
    sendq: usize,
    /// Chat: how long a member may be over the soft limit
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    sendq_grace: Duration,
    /// Echo: longest time without a whole line; chat: silence before a ping
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    idle_timeout: Duration,
    /// Chat: silence after a ping
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    ping_timeout: Duration,
    /// Chat: time to register
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    registration_timeout: Duration,
    /// How long a stop may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    drain_timeout: Duration,
    /// Hold every reply back, as a handler that asks a database would
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    wait: Duration,
    /// Burn CPU time for every line, as a computation would
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    work: Duration,
    /// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn
    #[arg(long, value_name = "N", default_value = "4096", value_parser = positive)]
    backlog: usize,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    log: Format,
    /// Chat: the server's name
    #[arg(long, value_name = "NAME", default_value = "irc.localhost", value_parser = name)]
    server_name: String,
    /// Chat: the network's name
    #[arg(long, value_name = "NAME", default_value = "iomodels", value_parser = name)]
    network: String,
    /// Chat: the message of the day
    #[arg(long, value_name = "FILE")]
    motd: Option<PathBuf>,
    /// Chat: what PASS must say
    #[arg(long, value_name = "WORD")]
    password: Option<String>,
    /// Chat: do not ration the members' lines
    #[arg(long)]
    no_flood_control: bool,
    /// Chat: lines that a member may send in one go
    #[arg(long, value_name = "N", default_value = "20", value_parser = burst)]
    flood_burst: u32,
    /// Chat: time that pays for one more line
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration)]
    flood_interval: Duration,
    /// Chat: how long a member may go on sending more than that
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    flood_grace: Duration,
    /// Chat: refuse text that is not UTF-8
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    utf8_only: bool,
    /// Chat: channels that one member may be in
    #[arg(long, value_name = "N", default_value = "50", value_parser = positive)]
    max_channels: usize,
    /// Chat: targets that one command may name
    #[arg(long, value_name = "N", default_value = "8", value_parser = positive)]
    max_targets: usize,
    #[command(flatten)]
    extra: E,
}

/// Reads the command line and prepares the process: the soft descriptor limit becomes the hard.
pub(crate) fn parse<E: Args>(name: &'static str, about: &'static str) -> Result<Launch<E>, Early> {
    let command = Flags::<E>::command().name(name).bin_name(name).about(about);
    let command = command.version(env!("CARGO_PKG_VERSION"));
    let parsed = command.try_get_matches().and_then(|matches| Flags::from_arg_matches(&matches));
    let flags = parsed.map_err(early)?;
    build(name, flags).map_err(Early::Failure)
}

/// Help and version are texts; anything else becomes one line that says what to type.
fn early(error: clap::Error) -> Early {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Early::Help(text);
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
    let port = if mode == Mode::Echo { 7007 } else { 6667 };
    let addr = flags.listen.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    if !addr.ip().is_loopback() && !flags.public {
        return Err(Failure::Usage(format!(
            "other machines could reach --listen {addr}: add --public if that is meant"
        )));
    }
    let max_connections = flags.max_connections.unwrap_or(MAX_CONNECTIONS);
    let per_ip = if flags.public { 64 } else { max_connections };
    let per_ip = flags.max_connections_per_ip.unwrap_or(per_ip);
    raise_descriptor_limit();
    Ok(Launch {
        gate: Gate::new(mode, max_connections, per_ip),
        connections_asked_for: flags.max_connections,
        log: Log::new(name, flags.log),
        stop: Stop::default(),
        workers: flags.workers,
        drain_timeout: flags.drain_timeout,
        socket: socket::Wanted { addr, backlog: i32::try_from(flags.backlog).unwrap_or(i32::MAX) },
        bound: OnceLock::new(),
        counters: (0..flags.workers.max(COUNTERS)).map(|_| Counters::default()).collect(),
        shared_counters: OnceLock::new(),
        work: flags.work,
        started: Instant::now(),
        settings: Arc::new(Settings {
            mode,
            limits: limits(&flags)?,
            wait: flags.wait,
            chat: chat(&flags)?,
        }),
        extra: flags.extra,
    })
}

fn limits<E: Args>(flags: &Flags<E>) -> Result<Limits, Failure> {
    let limits = Limits {
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
    };
    let least = [
        ("--max-line", limits.max_line, 16),
        ("--max-recvq", limits.max_recvq, Limits::CHAT_LINE),
        ("--sendq", limits.sendq, 4096),
    ];
    for (flag, value, least) in least {
        if value < least {
            return Err(Failure::Usage(format!("{flag} must be at least {least} bytes")));
        }
    }
    if limits.idle_timeout.is_zero() {
        return Err(Failure::Usage("--idle-timeout must be more than 0".into()));
    }
    Ok(limits)
}

fn chat<E: Args>(flags: &Flags<E>) -> Result<ChatSettings, Failure> {
    let motd = flags.motd.as_ref().map(|path| {
        let text = std::fs::read(path).map_err(|error| {
            Failure::Usage(format!("cannot read --motd {}: {error}", path.display()))
        })?;
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    });
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(ChatSettings {
        server_name: flags.server_name.clone(),
        network: flags.network.clone(),
        motd: motd.transpose()?,
        password: flags.password.clone(),
        utf8_only: flags.utf8_only,
        started_unix: since_1970.as_secs(),
    })
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

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:7007".to_owned())
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number from 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn burst(text: &str) -> Result<u32, String> {
    u32::try_from(positive(text)?).map_err(|_| "too many".to_owned())
}

fn workers(text: &str) -> Result<usize, String> {
    let most = ConnId::MAX_WORKERS;
    let number = positive(text).ok().filter(|number| *number <= most);
    number.ok_or_else(|| format!("expected a whole number from 1 to {most}"))
}

fn bytes(text: &str) -> Result<usize, String> {
    let size: bytesize::ByteSize =
        text.parse().map_err(|_| "expected a size, such as 65536, 64KiB or 1MiB".to_owned())?;
    usize::try_from(size.as_u64()).map_err(|_| "too large".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| "expected a duration, such as 50us, 300ms, 5s or 2m".to_owned())
}

/// A name that stands between spaces in chat messages.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        return Err("expected up to 63 letters, digits, '-', '.' and '_'".to_owned());
    }
    Ok(text.to_owned())
}
