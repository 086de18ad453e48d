//! Which errors are put in the place of which calls, and what is promised then.

use nix::errno::Errno;

/// What holds for the connection whose call fails. For all others nothing ever changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// It notices nothing.
    Whole,
    /// It notices nothing, and a shortage is counted.
    Waits,
    /// It may end. Then what it got is the beginning of what it was to get.
    May,
}
use Promise::{May, Waits, Whole};

/// Some calls and their errors.
pub(super) struct Row {
    pub(super) calls: &'static [&'static str],
    /// What the descriptor is.
    pub(super) kind: &'static str,
    pub(super) errors: &'static [Errno],
    pub(super) promise: Promise,
}

const ACCEPT: &[&str] = &["accept", "accept4", "ring:accept"];

pub(super) const ACCEPTS: &[Row] = &[
    Row {
        calls: ACCEPT,
        kind: "listener",
        errors: &[Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM],
        promise: Waits,
    },
    Row {
        calls: ACCEPT,
        kind: "listener",
        errors: &[
            Errno::EAGAIN,
            Errno::ECONNABORTED,
            Errno::EINTR,
            Errno::EPERM,
            Errno::EPROTO,
            // What is wrong with the network is told here, too (accept(2)).
            Errno::EHOSTDOWN,
            Errno::EHOSTUNREACH,
            Errno::ENETDOWN,
            Errno::ENETUNREACH,
            Errno::ENONET,
            Errno::ENOPROTOOPT,
            Errno::EOPNOTSUPP,
        ],
        promise: Whole,
    },
    // A thread for each connection, or a process.
    Row {
        calls: &["clone", "clone3"],
        kind: "none",
        errors: &[Errno::EAGAIN, Errno::ENOMEM],
        promise: Waits,
    },
];

const RECEIVE: &[&str] =
    &["read", "readv", "recvfrom", "recvmsg", "ring:read", "ring:recv", "ring:recvmsg"];

pub(super) const RECEIVES: &[Row] = &[
    Row { calls: RECEIVE, kind: "client", errors: &[Errno::EAGAIN, Errno::EINTR], promise: Whole },
    Row {
        calls: RECEIVE,
        kind: "client",
        errors: &[
            Errno::ECONNREFUSED,
            Errno::ECONNRESET,
            Errno::EHOSTUNREACH,
            Errno::ENOBUFS,
            Errno::ENOMEM,
            Errno::ENOTCONN,
            Errno::ETIMEDOUT,
        ],
        promise: May,
    },
];

const SEND: &[&str] =
    &["sendmsg", "sendto", "write", "writev", "ring:send", "ring:sendmsg", "ring:write"];

pub(super) const SENDS: &[Row] = &[
    // Not EAGAIN: the kernel says that of a full buffer only, and tells when there is room again.
    // Where it is told once (sigio), nothing would follow one that is made up.
    Row { calls: SEND, kind: "client", errors: &[Errno::EINTR], promise: Whole },
    Row {
        calls: SEND,
        kind: "client",
        errors: &[
            Errno::ECONNRESET,
            Errno::EHOSTUNREACH,
            Errno::ENETDOWN,
            Errno::ENOBUFS,
            Errno::ENOMEM,
            Errno::ENOTCONN,
            Errno::EPERM,
            Errno::EPIPE,
            Errno::ETIMEDOUT,
        ],
        promise: May,
    },
];

pub(super) const WAITS: &[Row] = &[
    Row {
        calls: &["epoll_pwait", "epoll_pwait2", "epoll_wait"],
        kind: "eventpoll",
        errors: &[Errno::EINTR],
        promise: Whole,
    },
    Row {
        calls: &["poll", "ppoll", "pselect6", "select"],
        kind: "none",
        errors: &[Errno::EINTR, Errno::ENOMEM],
        promise: Whole,
    },
    Row {
        calls: &["clock_nanosleep", "nanosleep"],
        kind: "none",
        errors: &[Errno::EINTR],
        promise: Whole,
    },
    // Not EAGAIN: it says that the time is up, and the thread that waits for signals sets none.
    Row { calls: &["rt_sigtimedwait"], kind: "none", errors: &[Errno::EINTR], promise: Whole },
    Row {
        calls: &["io_uring_enter"],
        kind: "io_uring",
        errors: &[Errno::EAGAIN, Errno::EBUSY, Errno::EINTR],
        promise: Whole,
    },
    Row {
        calls: &["read", "ring:read"],
        kind: "eventfd",
        errors: &[Errno::EAGAIN, Errno::EINTR],
        promise: Whole,
    },
    Row {
        calls: &["ring:poll_add"],
        kind: "client",
        errors: &[Errno::EINTR, Errno::ENOMEM],
        promise: May,
    },
    Row { calls: &["ring:timeout"], kind: "none", errors: &[Errno::ENOMEM], promise: Whole },
];

pub(super) const SETTINGS: &[Row] = &[
    Row {
        calls: &["epoll_ctl_add"],
        kind: "client",
        errors: &[Errno::ENOMEM, Errno::ENOSPC],
        promise: May,
    },
    Row {
        calls: &["fcntl_set", "fcntl_setfl", "ioctl", "setsockopt"],
        kind: "client",
        errors: &[Errno::ENOBUFS, Errno::ENOMEM, Errno::EPERM, Errno::EINVAL],
        promise: May,
    },
    Row { calls: &["fcntl_dup"], kind: "client", errors: &[Errno::EMFILE], promise: May },
    Row {
        calls: &["getpeername", "getsockname", "getsockopt"],
        kind: "client",
        errors: &[Errno::ENOBUFS, Errno::ENOTCONN],
        promise: May,
    },
];

pub(super) const ENDS: &[Row] = &[
    Row {
        calls: &["shutdown", "ring:shutdown"],
        kind: "client",
        errors: &[Errno::ENOTCONN],
        promise: May,
    },
    Row {
        calls: &["close", "ring:close"],
        kind: "client",
        errors: &[Errno::EDQUOT, Errno::EINTR, Errno::EIO, Errno::ENOSPC],
        promise: Whole,
    },
    Row { calls: &["epoll_ctl_del"], kind: "client", errors: &[Errno::ENOMEM], promise: Whole },
];

/// What the processes of a server say to each other.
pub(super) const WITHIN: &[Row] = &[
    Row { calls: RECEIVE, kind: "unix", errors: &[Errno::EAGAIN, Errno::EINTR], promise: Whole },
    Row { calls: SEND, kind: "unix", errors: &[Errno::EINTR], promise: Whole },
];

/// What a server asks for before it listens, and the error that tells that there is no more of it.
pub(super) const STARTS: &[(&str, Errno)] = &[
    ("bind", Errno::EACCES),
    ("clone", Errno::EAGAIN),
    ("clone3", Errno::EAGAIN),
    ("epoll_create1", Errno::EMFILE),
    ("epoll_ctl_add", Errno::ENOSPC),
    ("eventfd2", Errno::EMFILE),
    ("fcntl_dup", Errno::EMFILE),
    ("fcntl_set", Errno::EINVAL),
    ("fcntl_setfl", Errno::ENOMEM),
    ("getsockname", Errno::ENOBUFS),
    ("io_uring_register", Errno::ENOMEM),
    ("io_uring_setup", Errno::ENOMEM),
    ("listen", Errno::EADDRINUSE),
    ("pipe2", Errno::EMFILE),
    ("setsockopt", Errno::ENOMEM),
    ("signalfd4", Errno::EMFILE),
    ("socket", Errno::ENFILE),
    ("socketpair", Errno::ENFILE),
    ("timerfd_create", Errno::ENFILE),
];
