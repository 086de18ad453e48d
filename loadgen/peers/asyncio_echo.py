"""Echo on asyncio, Python's own event loop: a protocol object for each client is called back.

Who waits where: one thread, in the epoll_wait of the loop, for all of its sockets.
What wakes it: a socket that is ready (`data_received`), a timer, or a signal.

A protocol and not a pair of streams: readers and writers put a task, a future and a buffer between
the socket and the line, which costs 1.4 to 1.8 times as much CPU for each message (see the README).

Run: target/peers/bin/python loadgen/peers/asyncio_echo.py --listen 127.0.0.1:7007
Read next: tornado_echo.py, where each client is a coroutine on this same loop.
"""

import asyncio
import contextlib

import line_server

# Connections accepted in one turn, so that a storm of them does not starve those inside.
ACCEPTS = 64


def main():
    asyncio.run(serve(line_server.Server(__doc__.splitlines()[0]), Echo))


async def serve(server, client):
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in line_server.SIGNALS:
        loop.add_signal_handler(number, server.signalled, number, stop.set)
    sweeping = asyncio.create_task(sweep(server))
    with server.listen() as listener:
        loop.add_reader(listener, accept, server, listener, client, loop)
        server.announce(listener)
        await stop.wait()
        loop.remove_reader(listener)
    for one in list(server.clients):
        await one.starting
        one.finish()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(server.flags.drain_timeout):
            while server.clients:
                await asyncio.wait([one.gone for one in server.clients])
    sweeping.cancel()
    server.report()


def accept(server, listener, client, loop):
    """`loop.create_server` would do this, but out of descriptors it (up to Python 3.12) tries
    and logs as many times as the backlog is long, and then looks away for a second."""
    for _ in range(ACCEPTS):
        try:
            sock, (ip, *_) = listener.accept()
        except BlockingIOError:
            return
        except ConnectionError:
            continue  # It was gone before it was accepted.
        except OSError:
            server.shortages += 1
            loop.remove_reader(listener)
            pause = line_server.SHORTAGE_PAUSE
            loop.call_later(pause, look_again, server, listener, client, loop)
            return
        client(server, ip).start(sock, loop)


def look_again(server, listener, client, loop):
    if not server.stopping:
        loop.add_reader(listener, accept, server, listener, client, loop)


async def sweep(server):
    while True:
        await asyncio.sleep(server.sweep_every)
        server.sweep()


class Echo(line_server.Client, asyncio.Protocol):
    """One client. It is not read while a reply is held back or too many are queued."""

    held = full = ending = False

    def __init__(self, server, ip):
        self.refusal = self.enter(server, ip)
        self.gone = asyncio.get_running_loop().create_future()

    def start(self, sock, loop):
        # The loop keeps no hold of its tasks, so the client does.
        self.starting = loop.create_task(loop.connect_accepted_socket(lambda: self, sock))

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(self.server.high_water, self.server.low_water)
        if self.refusal:
            transport.write(self.refusal)
            transport.close()

    def data_received(self, data):
        if self.ending:
            return
        if not self.server.flags.wait:
            self.transport.write(self.feed(data))
            return
        self.held = True
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(self.server.flags.wait, self.answer, data)

    def answer(self, data):
        self.held = False
        self.transport.write(self.feed(data))
        self.go_on()

    def pause_writing(self):
        self.full = True
        self.server.pauses += 1
        if not self.ending:
            self.transport.pause_reading()

    def resume_writing(self):
        self.full = False
        self.go_on()

    def go_on(self):
        if self.ending:
            asyncio.get_running_loop().call_later(line_server.LINGER, self.transport.close)
        elif self.server.stopping:
            self.finish()
        elif not self.held and not self.full:
            self.transport.resume_reading()

    def eof_received(self):
        """Nothing returned means: write what is queued, then close."""

    def finish(self):
        """A client that is owed something has time to end its own stream."""
        if self.held or self.ending:
            return
        if not line_server.is_owed(self.transport.get_extra_info("socket")):
            self.transport.close()
            return
        self.ending = True
        self.transport.set_write_buffer_limits(0)  # The next resume_writing: all is written.
        self.transport.write_eof()
        self.transport.resume_reading()
        if self.transport.get_write_buffer_size() == 0:
            self.go_on()

    def abort(self):
        self.transport.abort()

    def connection_lost(self, error):
        self.leave()
        self.gone.set_result(None)


if __name__ == "__main__":
    main()
