//! What an operator is told of the clients: how many members there are, how much waits for them,
//! and why they go.

use rustix::process::Signal;

use crate::cases::{Case, cases};
use crate::member::Member;
use crate::watchdog::Ctx;

pub(super) const CHAT: &[Case] = cases![Chat:
    members_are_counted_and_the_reason_of_their_end_is_logged needs 3,
    what_waits_for_a_slow_member_is_told needs 2,
];

/// 65: Whatever ends them. No character of a reason begins a line or moves a cursor.
fn members_are_counted_and_the_reason_of_their_end_is_logged(ctx: &Ctx) {
    let server = ctx.chat(&["--log-level", "connections"]);
    let (mut ann, bob, _cid) = (server.member("ann"), server.member("bob"), server.member("cid"));
    assert_eq!(server.counter("members"), 3);
    ann.say("QUIT :so\x07 long");
    ann.client.read_to_end();
    server.says("member ann from 127.0.0.1 leaves: Quit: so? long");
    drop(bob);
    server.says("member bob from 127.0.0.1 leaves: Connection ");
    ctx.watch.until("one member to be left", || server.counter("members") == 1);
    server.signal(Signal::TERM);
    server.says("member cid from 127.0.0.1 leaves: Server shutting down");
}

/// 64: Bytes and members that are behind, until they have read.
fn what_waits_for_a_slow_member_is_told(ctx: &Ctx) {
    let server = ctx.busy_chat(&[]);
    let mut slow = Member::register(server.client_with_buffers(8192), "slow");
    let mut ann = server.member("ann");
    assert_eq!((server.counter("queue_bytes"), server.counter("slow_members")), (0, 0));
    slow.client.reading = false;
    let line = format!("PRIVMSG slow :{}\r\n", "x".repeat(450));
    ctx.watch.until("one member to be behind, with 256 KiB to 1 MiB", || {
        ann.client.send(line.repeat(100));
        ann.hears_nothing();
        // One answer tells both: the member's socket may take more at any moment, and then it is
        // not behind any longer.
        let told = server.counters();
        let waiting = told["queue_bytes"].as_u64().expect("a counter of bytes");
        told["slow_members"] == 1 && (256 << 10..=1 << 20).contains(&waiting)
    });
    slow.client.reading = true;
    slow.sync();
    ctx.watch.until("nothing to wait any more", || {
        server.counter("queue_bytes") == 0 && server.counter("slow_members") == 0
    });
}
