#!/usr/bin/env bash
# Lets two people chat through a server: ann with irssi, bob with weechat, each in a real terminal
# (tmux). They join, talk, change nicknames, set a topic, ask who the other is, make operators, set
# modes and a key, ban, kick, invite, go away, list channels, and see each other leave. Needs the
# Debian packages tmux, irssi and weechat-curses.
#
#   tests/real-clients.sh target/release/serve-epoll-level [FLAGS OF THE SERVER]
set -u
server=${1:?say which server to try, such as target/release/serve-epoll-level}
shift
for tool in tmux irssi weechat; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install tmux irssi weechat-curses" >&2; exit 2; }
done

# Seconds after which it fails, whatever it waits for.
deadline=200
home=$(mktemp -d)
mkdir "$home/irssi" "$home/weechat"
# The server writes its one line when it accepts, and the end of the pipe comes if it ends before.
exec {said}< <(exec "$server" --mode chat --listen 127.0.0.1:0 "$@" 2>"$home/err")
pid=$!
terminals() { tmux -L "clients-$pid" "$@"; }
cleanup() {
  terminals kill-server 2>/dev/null
  kill -9 "$pid" 2>/dev/null
  # The clients may still write their files.
  until rm -rf "$home" 2>/dev/null; do sleep 0.05; done
}
trap cleanup EXIT
read -r line <&"$said"
port=${line##*:}
[ -n "$port" ] || { cat "$home/err" >&2; exit 1; }

says() { terminals send-keys -t "$1" "$2" Enter; }
# However long it takes on a busy machine: what is never seen is a hang, which the deadline ends.
sees() {
  echo "waiting until $1 sees $2" >&2
  until terminals capture-pane -p -t "$1" | grep -qE "$2"; do
    if [ "$SECONDS" -gt "$deadline" ]; then
      echo "FAIL  $1 never saw $2"
      terminals capture-pane -p -t "$1"
      exit 1
    fi
    sleep 0.05
  done
  echo "ok    $1 sees $2"
}

# By themselves both clients send a command every two seconds, once they have sent a few.
cat >"$home/irssi/config" <<'END'
settings = { "irc/core" = { cmds_max_at_once = "1000"; cmd_queue_speed = "10msec"; }; };
END
at_once='/set irc.server_default.anti_flood_prio_high 0;/set irc.server_default.anti_flood_prio_low 0'

# Should this script be killed, the clients end by themselves, and with them their terminals.
export TERM=xterm-256color LANG=C.UTF-8
terminals new-session -d -s ann -x 120 -y 40 "timeout 240 irssi --home=$home/irssi -c 127.0.0.1 -p $port -n ann"
# Two lines that come at once are no paste that weechat should ask about.
terminals new-session -d -s bob -x 120 -y 40 \
  "timeout 240 weechat -d $home/weechat -r '/set weechat.look.paste_max_lines -1;$at_once;/server add t 127.0.0.1/$port -notls -nicks=bob;/connect t'"
sees ann 'Welcome to the'
sees bob 'Welcome to the'
says ann '/join #rust';       sees ann 'Channel #rust created'
says bob '/join #rust';       sees ann 'bob .*has joined #rust'
says ann 'hello from irssi';  sees bob 'hello from irssi'
says bob 'hello from weechat'; sees ann 'hello from weechat'
says ann '/nick anna';        sees bob 'ann is now known as anna'
says bob '/nick bert';        sees ann 'bob is now known as bert'
says ann '/topic I/O models'; sees bob 'I/O models'
says bob '/whois anna'
says bob '/buffer irc.server.t'; sees bob 'anna.*127\.0\.0\.1'
says bob '/buffer #rust'

# Ranks, and the topic that only operators set.
says ann '/mode #rust +t';    sees bob 'Mode #rust \[\+t\]'
says bob '/topic of all';     sees bob "#rust: .*operator"
says ann '/voice bert';       sees bob 'Mode #rust \[\+v bert\]'
says ann '/op bert';          sees bob 'Mode #rust \[\+o bert\]'
says bob '/topic by bert';    sees ann 'bert .*changed the topic .*by bert'
says bob '/deop bert';        sees ann 'mode/#rust .*-o bert'

# Kicked, kept out by a key, and let in with it.
says ann '/mode #rust +k sesame'; sees bob 'Mode #rust \[\+k sesame\]'
says ann '/kick bert enough'; sees bob 'anna has kicked bert \(enough\)'
says bob '/join #rust';       sees bob '#rust: Cannot join channel \(\+k\)'
says bob '/join #rust sesame'; sees ann 'bert .*has joined #rust.*'
says ann '/mode #rust -k sesame'

# Banned, and on the list.
says ann '/mode #rust +b bert!*@*'; sees bob 'Mode #rust \[\+b bert!\*@\*\]'
says bob 'hello from outside'; sees bob '#rust: Cannot send to channel'
says ann '/mode #rust +b';    sees ann '#rust: ban bert!\*@\*'
says ann '/mode #rust -b bert!*@*'

# Invited into a channel that only lets in who is.
says ann '/join #few';        sees ann 'Channel #few created'
says ann '/mode #few +i';     sees ann 'mode/#few .*\+i'
says bob '/buffer irc.server.t'
says bob '/join #few';        sees bob '#few: Cannot join channel \(\+i\)'
says ann '/invite bert #few'; sees bob 'invited.* to #few'
says bob '/join #few';        sees ann 'bert .*has joined #few'

# Away, and seen from the other client, whose first window has what concerns no channel.
says bob '/away gone fishing'; sees bob '\[bert\]\(gone fishing\)'
# weechat says so at once, and sends the line later, when it has sent others before.
says bob '/buffer irc.server.t'; sees bob 'marked as being away'
says bob '/buffer #few'
says ann '/window goto 1'
says ann '/whois bert';       sees ann 'away.*gone fishing'
says ann '/msg bert are you there'
says ann '/window goto 4';    sees ann 'bert is away: gone fishing'
says bob '/away';             sees bob 'bert back'
says ann '/window goto 1'
says ann '/list -yes';        sees ann '#few .*2'
says ann '/quit bye now';     sees bob 'anna .*bye now'

kill -TERM "$pid"
wait "$pid"
status=$?
[ "$status" -eq 0 ] || { echo "FAIL  exit code $status"; exit 1; }
echo "ok    the server says goodbye and exits with 0"
