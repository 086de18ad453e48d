//! Where a server listens, and by what address it knows its clients.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::thread;

use crate::cases::process::refuse;
use crate::cases::{Case, cases};
use crate::surroundings::{self, Surroundings};
use crate::watchdog::Ctx;

pub(super) const ECHO: &[Case] = cases![Echo:
    an_ipv4_loopback_written_as_ipv6_is_loopback,
    a_name_is_listened_on_at_each_of_its_addresses,
    a_name_is_listened_on_at_each_of_its_addresses_by_two_workers,
    a_name_is_listened_on_where_only_this_machine_reaches_it,
    a_name_that_other_machines_reach_needs_public,
];

pub(super) const CHAT: &[Case] = cases![Chat:
    an_ipv4_client_has_an_ipv4_address_everywhere,
];

/// Cases that need IPv6.
const IPV6: &[&str] = &[
    "a_name_is_listened_on_at_each_of_its_addresses",
    "a_name_is_listened_on_at_each_of_its_addresses_by_two_workers",
    "an_ipv4_client_has_an_ipv4_address_everywhere",
];

/// The cases that cannot be tried, and why.
pub(super) fn missing() -> Vec<(&'static str, String)> {
    let mut missing = Vec::new();
    if !surroundings::has_namespaces() {
        let reason = "needs a resolver with names of its own: `unshare` cannot make one here";
        for case in ECHO.iter().filter(|case| case.name.starts_with("a_name")) {
            missing.push((case.name, reason.to_owned()));
        }
    }
    // On a thread of its own: the network is the thread's.
    let network = thread::spawn(|| surroundings::enter_network().map_err(|e| e.to_string()));
    if let Ok(Err(error)) = network.join() {
        let reason = format!("needs a network of its own with addresses of IPv6: {error}");
        missing.push(("addresses_of_one_ipv6_network_count_as_one", reason));
    }
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        let reason = "this machine has no IPv6";
        for name in IPV6 {
            missing.push((name, reason.to_owned()));
        }
    }
    missing
}

/// 58: `[::ffff:127.0.0.1]` is 127.0.0.1, and needs no `--public`.
fn an_ipv4_loopback_written_as_ipv6_is_loopback(ctx: &Ctx) {
    let server = ctx.echo(&["--listen", "[::ffff:127.0.0.1]:0"]);
    assert!(server.addr().ip().is_loopback(), "it listens on {}", server.addr());
    server.serves();
}

/// 58: A name may have several addresses: it listens on each at one port, and says so.
fn a_name_is_listened_on_at_each_of_its_addresses(ctx: &Ctx) {
    listens_on_localhost(ctx, "1");
}

/// 58: The same with each of its workers.
fn a_name_is_listened_on_at_each_of_its_addresses_by_two_workers(ctx: &Ctx) {
    listens_on_localhost(ctx, "2");
}

#[track_caller]
fn listens_on_localhost(ctx: &Ctx, workers: &str) {
    let args = ["--listen", "localhost:0", "--workers", workers];
    let mut server = ctx.echo_in(Surroundings::Hosts, &args);
    let (one, other) = (server.addr(), server.another_addr());
    assert_eq!(one.port(), other.port(), "one port");
    let mut addrs = [one.ip(), other.ip()];
    addrs.sort();
    let expected: [IpAddr; 2] = ["127.0.0.1", "::1"].map(|ip| ip.parse().expect("an address"));
    assert_eq!(addrs, expected, "where it listens");
    for addr in [one, other, one, other] {
        server.at(addr).serves();
    }
}

/// 58: Of the addresses of a name, it leaves out those that other machines could reach.
fn a_name_is_listened_on_where_only_this_machine_reaches_it(ctx: &Ctx) {
    let server = ctx.echo_in(Surroundings::Hosts, &["--listen", "mixed:0"]);
    assert_eq!(server.addr().ip().to_string(), "127.0.0.1");
    server.serves();
    let (stdout, said) = server.end();
    assert_eq!(stdout, "", "it listens nowhere else");
    let warned = |line: &String| line.contains("192.0.2.1") && line.contains("--public");
    assert!(said.iter().any(warned), "it says so: {said:?}");
}

/// 50: A name that has no other addresses is refused.
fn a_name_that_other_machines_reach_needs_public(ctx: &Ctx) {
    let line = refuse(ctx, Surroundings::Hosts, &["--listen", "elsewhere:7007"]);
    assert!(line.contains("--public") && line.contains("192.0.2.1:7007"), "it says {line:?}");
}

/// 58: A client that comes to an IPv6 address by IPv4 is known by its IPv4 address.
fn an_ipv4_client_has_an_ipv4_address_everywhere(ctx: &Ctx) {
    let mut server = ctx.chat(&["--listen", "[::]:0", "--public"]);
    let port = server.addr().port();
    // Two nicknames: the server may still be serving the first member when the second comes.
    for (ip, nick) in [("127.0.0.1", "ann"), ("::1", "bob")] {
        let ip: IpAddr = ip.parse().expect("an address");
        let mut member = server.at(SocketAddr::new(ip, port)).member(nick);
        let told = member.ask(&format!("WHOIS {nick}"), "311");
        // A parameter cannot begin with a colon, so there the address of IPv6 begins with a zero.
        let host: IpAddr = told.param(3).parse().expect("an address");
        assert_eq!(host, ip, "{told:?}");
    }
}
