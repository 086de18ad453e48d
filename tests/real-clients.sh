#!/usr/bin/env bash
# Lets two people chat through a server: ann with irssi, bob with weechat, each in a real terminal
# (tmux). They join, talk, change nicknames, set a topic, ask who the other is, and see each other
# leave. Needs the Debian packages tmux, irssi and weechat-curses.
#
#   tests/real-clients.sh target/release/serve-epoll-level [FLAGS OF THE SERVER]
set -u
server=${1:?say which server to try, such as target/release/serve-epoll-level}
shift
for tool in tmux irssi weechat; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install tmux irssi weechat-curses" >&2; exit 2; }
done

home=$(mktemp -d)
failed=0
mkdir "$home/irssi" "$home/weechat"
"$server" --mode chat --listen 127.0.0.1:0 "$@" >"$home/out" 2>"$home/err" &
pid=$!
terminals() { tmux -L "clients-$pid" "$@"; }
cleanup() { terminals kill-server 2>/dev/null; kill -9 "$pid" 2>/dev/null; sleep 0.3; rm -rf "$home"; }
trap cleanup EXIT

# The server writes its one line when it accepts; until then reading the pipe's file finds nothing.
for _ in $(seq 100); do grep -q listening "$home/out" && break; sleep 0.05; done
port=$(sed -n 's/^listening on .*://p' "$home/out")
[ -n "$port" ] || { cat "$home/err" >&2; exit 1; }

says() { terminals send-keys -t "$1" "$2" Enter; }
sees() {
  for _ in $(seq 100); do
    terminals capture-pane -p -t "$1" | grep -qE "$2" && { echo "ok    $1 sees $2"; return; }
    sleep 0.1
  done
  echo "FAIL  $1 never saw $2"
  terminals capture-pane -p -t "$1"
  failed=1
}

export TERM=xterm-256color LANG=C.UTF-8
terminals new-session -d -s ann -x 120 -y 40 "irssi --home=$home/irssi -c 127.0.0.1 -p $port -n ann"
terminals new-session -d -s bob -x 120 -y 40 \
  "weechat -d $home/weechat -r '/server add t 127.0.0.1/$port -notls -nicks=bob;/connect t'"
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
says ann '/quit bye now';     sees bob 'anna .*bye now'

kill -TERM "$pid"
wait "$pid"
status=$?
[ "$status" -eq 0 ] && echo "ok    the server says goodbye and exits with 0" || { echo "FAIL  exit code $status"; failed=1; }
exit "$failed"
