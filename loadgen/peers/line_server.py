"""What the Python peers share: all that never waits.

The flags, the listening socket, who is let in, the counters, and what an echo server says. What is
left for a peer is what its framework is about: to accept, read, write, pause and stop.
"""

import argparse
import collections
import fcntl
import ipaddress
import json
import os
import re
import resource
import signal
import socket
import sys
import termios
import time

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Seconds between two looks when there are no descriptors to be had.
SHORTAGE_PAUSE = 0.1
# Seconds that a client has to end its stream when the server stops and has ended its own.
LINGER = 5.0

TOO_LONG = b"ERR line too long\r\n"
FULL = b"ERR the server is full\r\n"
FULL_FOR_ADDRESS = b"ERR too many connections from your address\r\n"


class Server:
    """The flags, the clients inside, and the counters."""

    def __init__(self, about):
        keep_standard_descriptors()
        self.flags = parse(about)
        self.high_water, self.low_water = self.flags.sendq // 4, self.flags.sendq // 16
        self.clients = set()
        self.by_ip = collections.Counter()
        self.stopping = False
        self.accepts = self.refused = self.timed_out = self.shortages = 0
        self.wakeups = self.lines = self.bytes_in = self.bytes_out = self.pauses = 0

    def listen(self):
        """The listening socket, which does not block; what it accepts inherits TCP_NODELAY."""
        raise_descriptor_limit()
        ip, port = self.flags.listen
        listener = socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        try:
            listener.bind((str(ip), port))
            listener.listen(self.flags.backlog)
        except OSError as error:
            fail(1, f"cannot listen on {shown(ip, port)}: {error.strerror}")
        return listener

    def announce(self, listener):
        """Says where it listens: call it when it does, and when signals are waited for."""
        ip, port = listener.getsockname()[:2]
        say(1, f"listening on {shown(ipaddress.ip_address(ip), port)}")

    def signalled(self, number, stop):
        """Tells the counters, calls `stop`, or, if that was done before, ends at once."""
        if number == signal.SIGUSR1:
            self.report()
        elif self.stopping:
            self.report()
            os._exit(0)
        else:
            self.stopping = True
            stop()

    def sweep(self):
        """Cuts who has not sent a whole line for too long. One timer that looks at everybody now
        and then costs less than one for each client that moves with each line."""
        now = time.monotonic()
        for client in list(self.clients):
            if now - client.heard > self.flags.idle_timeout:
                self.timed_out += 1
                client.abort()

    @property
    def sweep_every(self):
        """Seconds between two sweeps: no client stays for more than a tenth too long."""
        return self.flags.idle_timeout / 10

    def report(self):
        """One line of JSON. What the framework hides cannot be counted: a wakeup here is one call
        with bytes, bytes count as out when the framework has them, and what would have blocked is
        known only when the queue was so full that the client was no longer read."""
        names = "accepts", "refused", "lines", "bytes_in", "bytes_out", "wakeups", "timed_out"
        counters = {name: getattr(self, name) for name in names}
        counters |= {"would_blocks": self.pauses, "overflows": 0, "slow_cut": 0}
        counters["errors"] = {"shortage": self.shortages}
        say(2, json.dumps({"counters": counters}))


class Client:
    """One connection without its socket. A peer's own class adds `abort()`."""

    server: Server
    ip = None
    tail = b""
    skipping = False
    heard = 0.0

    def enter(self, server, ip):
        """Takes a place, or says why there is none."""
        self.server = server
        server.accepts += 1
        if len(server.clients) >= server.flags.max_connections:
            refusal = FULL
        elif server.by_ip[ip] >= server.flags.max_connections_per_ip:
            refusal = FULL_FOR_ADDRESS
        else:
            refusal = None
            self.ip, self.heard = ip, time.monotonic()
            server.by_ip[ip] += 1
            server.clients.add(self)
        server.refused += refusal is not None
        return refusal

    def leave(self):
        """Gives the place back, if it had one."""
        if self in self.server.clients:
            self.server.clients.remove(self)
            self.server.by_ip[self.ip] -= 1
            if not self.server.by_ip[self.ip]:
                del self.server.by_ip[self.ip]

    def feed(self, data):
        """What comes back for these bytes: every line that they make whole."""
        server = self.server
        server.wakeups += 1
        server.bytes_in += len(data)
        replies = self.frame(data)
        if lines := replies.count(b"\n"):
            self.heard = time.monotonic()
            server.lines += lines
            server.bytes_out += len(replies)
            if server.flags.work:
                burn(lines * server.flags.work)
        return replies

    def frame(self, data):
        """Gives the whole lines and keeps the rest. One that is too long is told of as soon as
        that is known, and skipped to its end without being kept."""
        limit = self.server.flags.max_line
        if self.skipping:
            _, end, data = data.partition(b"\n")
            self.skipping = not end
            if not end:
                return b""
        data = self.tail + data if self.tail else data
        end = data.rfind(b"\n") + 1
        whole, self.tail = (data, b"") if end == len(data) else (data[:end], data[end:])
        if len(data) > limit:
            lines = (line + b"\n" for line in whole.split(b"\n")[:-1])
            whole = b"".join(line if len(line) <= limit else TOO_LONG for line in lines)
            if len(self.tail) > limit:
                whole, self.tail, self.skipping = whole + TOO_LONG, b"", True
        return whole


def parse(about):
    """Reads the flags that the servers of the workspace share, as far as they concern echo."""
    parser = Parser(description=about, allow_abbrev=False)
    add = parser.add_argument
    add("--listen", type=address, default="127.0.0.1:7007", metavar="ADDRESS:PORT")
    add("--public", action="store_true", help="allow an address that other machines can reach")
    add("--mode", default="echo", help="echo is all there is")
    add("--workers", type=positive, default=1, metavar="N", help="one is all there is")
    add("--max-connections", type=positive, default=16384, metavar="N")
    add("--max-connections-per-ip", type=positive, metavar="N", help="64 with --public, else all")
    add("--max-line", type=size, default="64KiB", metavar="BYTES", help="its end included")
    add("--sendq", type=size, default="1MiB", metavar="BYTES", help="a quarter of it stops reading")
    add("--idle-timeout", type=duration, default="5m", metavar="DURATION", help="between lines")
    add("--drain-timeout", type=duration, default="10s", metavar="DURATION", help="of a stop")
    add("--wait", type=duration, default="0", metavar="DURATION", help="hold every reply back")
    add("--work", type=duration, default="0", metavar="DURATION", help="burn for every line")
    add("--backlog", type=positive, default=4096, metavar="N")
    add("--log", choices=["text", "json"], default="text", help="it logs its counters alone")
    flags, unknown = parser.parse_known_args()
    if unknown:
        parser.error(f"{' '.join(unknown)}: there is no such flag")
    if flags.mode != "echo":
        parser.error(f"--mode {flags.mode}: this server speaks echo alone")
    if flags.workers > 1:
        parser.error(f"--workers {flags.workers}: this server is one process with one loop")
    if not (flags.listen[0].is_loopback or flags.public):
        parser.error(f"--listen {shown(*flags.listen)}: other machines could reach it; --public?")
    for name, value, least in ("max-line", flags.max_line, 16), ("sendq", flags.sendq, 4096):
        if value < least:
            parser.error(f"--{name} must be at least {least} bytes")
    if flags.idle_timeout <= 0:
        parser.error("--idle-timeout must be more than 0")
    default = 64 if flags.public else flags.max_connections
    flags.max_connections_per_ip = flags.max_connections_per_ip or default
    return flags


class Parser(argparse.ArgumentParser):
    """One line and exit code 2 for wrong use."""

    def error(self, message):
        fail(2, f"{message}; see --help")


def address(text):
    """`127.0.0.1:7007` or `[::1]:7007`."""
    ip, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError
    return ipaddress.ip_address(ip.strip("[]")), int(port)


def positive(text):
    """A whole number from 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def size(text):
    """Bytes, such as 65536, 64KiB or 1MB."""
    found = re.fullmatch(r"(\d+) *([kKMG]i?B|B|)", text)
    if not found:
        raise ValueError
    number, unit = found.groups()
    power = " KMG".index(unit[:1].upper()) if len(unit) > 1 else 0
    return int(number) * (1024 if "i" in unit else 1000) ** power


def duration(text):
    """Seconds, from such as 50us, 300ms, 5s or 1m 30s."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
    if text == "0":
        return 0.0
    if not re.fullmatch(r"(\d+(us|ms|s|m|h) *)+", text):
        raise ValueError
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)(us|ms|s|m|h)", text))


def burn(seconds):
    """Keeps the processor busy, as a computation would."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def shown(ip, port):
    """An address as it is written."""
    return f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}"


def is_owed(sock):
    """Whether bytes have come that were not read, or replies were written and not taken. A close
    would reset the connection, at once or when the client sends more, and a reset throws away what
    is on its way. So such a client has LINGER seconds to end its own stream."""
    queues = termios.FIONREAD, termios.TIOCOUTQ
    return any(fcntl.ioctl(sock.fileno(), queue, bytes(4)) != bytes(4) for queue in queues)


def raise_descriptor_limit():
    """A connection is a descriptor, and the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def keep_standard_descriptors():
    """Fills the places of those that are closed, lest a client gets what is said to them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def say(descriptor, line):
    """The reader of the descriptor may have left, which is no reason not to serve."""
    try:
        os.write(descriptor, f"{line}\n".encode())
    except OSError:
        pass


def fail(code, reason):
    """Ends with one line that says why."""
    say(2, f"{os.path.basename(sys.argv[0])}: {reason}")
    sys.exit(code)
