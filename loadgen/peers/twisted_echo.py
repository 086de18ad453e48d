"""Echo on Twisted: a reactor calls a protocol object for each client.

Who waits where: one thread, in the epoll_wait of the reactor, for all of its sockets.
What wakes it: a socket that is ready (`dataReceived`), a timer, or the pipe that signals write to.

What is written waits for the next turn of the reactor: `transport.write` never calls send itself.

Run: target/peers/bin/python loadgen/peers/twisted_echo.py --listen 127.0.0.1:7007
Read next: asyncio_echo.py, whose protocols and transports were modelled on these.
"""

import signal

from twisted.internet import interfaces, protocol, task
from zope.interface import implementer

import line_server


def main():
    server = line_server.Server(__doc__.splitlines()[0])
    from twisted.internet import reactor  # To import it is to make it: an epoll, a pipe.

    factory = protocol.Factory()
    factory.buildProtocol = lambda peer: Echo(reactor, server, peer.host)
    with server.listen() as listener:
        port = reactor.adoptStreamPort(listener.fileno(), listener.family, factory)
    for number in line_server.SIGNALS:
        signal.signal(number, lambda number, _: reactor.callFromThread(
            server.signalled, number, lambda: stop(reactor, server, port)))
    task.LoopingCall(server.sweep).start(server.sweep_every)
    reactor.callWhenRunning(server.announce, port.socket)
    reactor.run(installSignalHandlers=False)
    server.report()


def stop(reactor, server, port):
    port.stopListening()
    reactor.callLater(server.flags.drain_timeout, reactor.stop)
    for client in list(server.clients):
        client.finish()
    if not server.clients:
        reactor.stop()


@implementer(interfaces.IPushProducer, interfaces.IHalfCloseableProtocol)
class Echo(line_server.Client, protocol.Protocol):
    """One client. It is not read while a reply is held back or too many are queued."""

    held = full = ending = False

    def __init__(self, reactor, server, ip):
        self.reactor = reactor
        self.refusal = self.enter(server, ip)

    def connectionMade(self):
        if self.refusal:
            self.transport.write(self.refusal)
            self.transport.loseConnection()
            return
        # More than this in the queue calls pauseProducing; none of it, resumeProducing.
        self.transport.bufferSize = self.server.high_water
        self.transport.registerProducer(self, streaming=True)

    def dataReceived(self, data):
        if self.ending:
            return
        if not self.server.flags.wait:
            self.transport.write(self.feed(data))
            return
        self.held = True
        self.transport.pauseProducing()
        self.reactor.callLater(self.server.flags.wait, self.answer, data)

    def answer(self, data):
        self.held = False
        self.transport.write(self.feed(data))
        self.go_on()

    def pauseProducing(self):
        self.full = True
        self.server.pauses += 1
        self.transport.pauseProducing()

    def resumeProducing(self):
        self.full = False
        self.go_on()

    def stopProducing(self):
        """The connection is lost, which `connectionLost` hears as well."""

    def go_on(self):
        if self.server.stopping and not self.held:
            self.finish()
        elif not self.held and not self.full:
            self.transport.resumeProducing()

    def readConnectionLost(self):
        """The client has shut its sending side: write what is queued, then close."""
        if not self.held:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def writeConnectionLost(self):
        """All is written, and our stream has ended."""
        self.reactor.callLater(line_server.LINGER, self.transport.loseConnection)

    def finish(self):
        """A client that is owed something has time to end its own stream."""
        if self.held or self.ending:
            return
        self.transport.unregisterProducer()
        if not line_server.is_owed(self.transport.getHandle()):
            self.transport.loseConnection()
            return
        self.ending = True
        self.transport.loseWriteConnection()
        self.transport.resumeProducing()

    def abort(self):
        self.transport.abortConnection()

    def connectionLost(self, reason):
        self.leave()
        if self.server.stopping and not self.server.clients and self.reactor.running:
            self.reactor.stop()


if __name__ == "__main__":
    main()
