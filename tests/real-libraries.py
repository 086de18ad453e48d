"""A bot on a real library: joins, reads a topic, sees a nickname change, asks who a member is, and
as an operator of the channel sets a mode and kicks.

    python tests/real-libraries.py irc|pydle|ircstates PORT

The other end is a member called bob, whom the suite plays. The bot is told what to do by what bob
says in #c, and says there what the library knows:

    bob: members   -> the library's list of members of #c
    bob: topic     -> the library's idea of the topic
    bob: whois     -> the real name of bob, asked for as BOB
    bob: list      -> how many channels LIST told of
    bob: operators -> the library's list of operators of #c
    bob: moderate  -> MODE #c +m
    bob: kick      -> KICK #c cid out
    bob: leave     -> QUIT

It ends with 0 when all of that went well, and else with the library's own exception.
"""

import logging
import sys

NICK, CHANNEL, HOST = "bot", "#c", "127.0.0.1"


def main():
    library, port = sys.argv[1], int(sys.argv[2])
    {"irc": run_irc, "pydle": run_pydle, "ircstates": run_ircstates}[library](port)


def run_irc(port):
    import irc.bot

    class Bot(irc.bot.SingleServerIRCBot):
        listed = 0

        def on_welcome(self, connection, _event):
            connection.join(CHANNEL)

        def on_currenttopic(self, _connection, event):
            self.topic = event.arguments[1]

        def on_topic(self, _connection, event):
            self.topic = event.arguments[0]

        def on_whoisuser(self, connection, event):
            connection.privmsg(CHANNEL, f"whois {event.arguments[-1]}")

        def on_liststart(self, _connection, _event):
            self.listed = 0

        def on_list(self, _connection, _event):
            self.listed += 1

        def on_listend(self, connection, _event):
            connection.privmsg(CHANNEL, f"list {self.listed}")

        def on_pubmsg(self, connection, event):
            word = event.arguments[0]
            if word == "members":
                members = sorted(self.channels[CHANNEL].users())
                connection.privmsg(CHANNEL, f"members {' '.join(members)}")
            elif word == "topic":
                connection.privmsg(CHANNEL, f"topic {self.topic}")
            elif word == "whois":
                connection.whois(["BOB"])
            elif word == "list":
                connection.list()
            elif word == "operators":
                operators = sorted(self.channels[CHANNEL].opers())
                connection.privmsg(CHANNEL, f"operators {' '.join(operators)}")
            elif word == "moderate":
                connection.mode(CHANNEL, "+m")
            elif word == "kick":
                connection.kick(CHANNEL, "cid", "out")
            elif word == "leave":
                self.die("bye")

    Bot([(HOST, port)], NICK, "A bot on irc").start()


def run_pydle(port):
    import asyncio

    import pydle

    class Bot(pydle.Client):
        async def on_connect(self):
            await self.join(CHANNEL)

        async def on_channel_message(self, _target, by, word):
            if word == "members":
                # It asks WHOIS of each name that is new to it before it counts it as a member.
                while by not in self.channels[CHANNEL]["users"]:
                    await asyncio.sleep(0.05)
                members = sorted(self.channels[CHANNEL]["users"])
                await self.message(CHANNEL, f"members {' '.join(members)}")
            elif word == "topic":
                await self.message(CHANNEL, f"topic {self.channels[CHANNEL]['topic']}")
            elif word == "whois":
                info = await self.whois("BOB")
                await self.message(CHANNEL, f"whois {info['realname']}")
            elif word == "list":
                self.listed = 0
                await self.rawmsg("LIST")
            elif word == "operators":
                operators = sorted(self.channels[CHANNEL]["modes"].get("o", []))
                await self.message(CHANNEL, f"operators {' '.join(operators)}")
            elif word == "moderate":
                await self.set_mode(CHANNEL, "+m")
            elif word == "kick":
                await self.kick(CHANNEL, "cid", "out")
            elif word == "leave":
                logging.getLogger().removeHandler(fatal)  # To it, the server's ERROR is one too.
                await self.quit("bye")

        async def on_raw_322(self, _message):
            self.listed += 1

        async def on_raw_323(self, _message):
            await self.message(CHANNEL, f"list {self.listed}")

        async def on_disconnect(self, _expected):
            ended.set()

    # It goes on after an exception in a handler, and only logs it.
    class Fatal(logging.Handler):
        def emit(self, record):
            logging.lastResort.emit(record)
            if record.levelno >= logging.ERROR:
                sys.exit(1)

    async def run():
        bot = Bot(NICK, realname="A bot on pydle")
        await bot.connect(HOST, port, tls=False)
        await ended.wait()

    ended = asyncio.Event()
    fatal = Fatal()
    logging.getLogger().addHandler(fatal)
    asyncio.run(run())


def run_ircstates(port):
    import socket

    import ircstates

    server = ircstates.Server("test")
    connection = socket.create_connection((HOST, port))
    listed = 0

    def say(line):
        connection.sendall(f"{line}\r\n".encode())

    say(f"NICK {NICK}")
    say(f"USER {NICK} 0 * :A bot on ircstates")
    while True:
        for line in server.recv(connection.recv(4096)):
            server.parse_tokens(line)
            word = line.params[-1] if line.command == "PRIVMSG" else line.command
            if word == "PING":
                say(f"PONG :{line.params[0]}")
            elif word == "001":
                say(f"JOIN {CHANNEL}")
            elif word == "members":
                members = sorted(user.nickname for user in server.channels[CHANNEL].users.values())
                say(f"PRIVMSG {CHANNEL} :members {' '.join(members)}")
            elif word == "topic":
                say(f"PRIVMSG {CHANNEL} :topic {server.channels[CHANNEL].topic}")
            elif word == "whois":
                say("WHOIS BOB")
            elif word == "318":
                assert line.params[1] == "BOB", line
                say(f"PRIVMSG {CHANNEL} :whois {server.users['bob'].realname}")
            elif word == "list":
                listed = 0
                say("LIST")
            elif word == "322":
                listed += 1
            elif word == "323":
                say(f"PRIVMSG {CHANNEL} :list {listed}")
            elif word == "operators":
                users = server.channels[CHANNEL].users.values()
                operators = sorted(user.nickname for user in users if "o" in user.modes)
                say(f"PRIVMSG {CHANNEL} :operators {' '.join(operators)}")
            elif word == "moderate":
                say(f"MODE {CHANNEL} +m")
            elif word == "kick":
                say(f"KICK {CHANNEL} cid :out")
            elif word == "leave":
                say("QUIT :bye")
                return


main()
