#!/usr/bin/env bash
# What a request costs other load generators, beside this one: processor time of the client in ns,
# medians of interleaved rounds, server and client on a processor each, 64 connections that ask,
# wait and ask again.
#
#     cargo build --release -p loadgen -p serve-epoll-level
#     loadgen/benches/clients.sh [ROUNDS]
#
# It takes those that are installed (apt install redis-tools wrk nginx-light). redis-benchmark asks
# the same echo server: its PING comes back as an array, which it takes for an answer. wrk speaks
# HTTP only, so it asks nginx, and what HTTP costs is in its number.
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=${1:-7}
connections=64
requests=200000
seconds=2
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
TIMEFORMAT='%3U %3S'

touch "$work/addr"
taskset -c 0 target/release/serve-epoll-level --listen 127.0.0.1:0 >"$work/addr" 2>/dev/null &
until grep -q listening "$work/addr"; do :; done
addr=$(sed -n 's/^listening on //p' "$work/addr")

if command -v wrk >/dev/null && command -v nginx >/dev/null; then
  cat >"$work/nginx.conf" <<CONF
daemon off;
pid $work/pid;
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 100000000;
  client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work;
  uwsgi_temp_path $work; scgi_temp_path $work;
  server { listen 127.0.0.1:7180; location / { return 200 "ok"; } }
}
CONF
  taskset -c 0 nginx -e "$work/error" -c "$work/nginx.conf" &
  until : 2>/dev/null </dev/tcp/127.0.0.1/7180; do :; done
fi

# The processor time that a client took, as `time` has left it, for each of so many requests.
each() { awk -v n="$1" '{ printf "%.0f\n", ($1 + $2) * 1e9 / n }' "$work/time"; }

one_loadgen() {
  target/release/loadgen run --addr "$addr" --connections $connections --duration ${seconds}s \
    --json 2>/dev/null | sed -n 's/.*"generator_cpu_ns_per_message": *\([0-9]*\).*/\1/p'
}
one_bare_client() {
  taskset -c 1 target/release/loadgen null-client --addr "$addr" --connections $connections \
    --duration ${seconds}s | sed -n 's/.*"cpu_ns_per_message": *\([0-9]*\).*/\1/p'
}
one_redis_benchmark() {
  { time taskset -c 1 redis-benchmark -h "${addr%:*}" -p "${addr#*:}" -c $connections \
    -n $requests -t ping_mbulk -q >/dev/null 2>&1; } 2>"$work/time"
  each $requests
}
one_wrk() {
  { time taskset -c 1 wrk -t1 -c$connections -d${seconds}s http://127.0.0.1:7180/ \
    >"$work/answers" 2>&1; } 2>"$work/time"
  each "$(sed -n 's/^ *\([0-9]*\) requests in.*/\1/p' "$work/answers")"
}

clients="bare_client loadgen"
command -v redis-benchmark >/dev/null && clients="$clients redis_benchmark"
[ -e "$work/nginx.conf" ] && clients="$clients wrk"
for ((round = 1; round <= rounds; round++)); do
  for client in $clients; do
    "one_$client" >>"$work/$client"
  done
  echo "round $round of $rounds" >&2
done
printf '%-16s %s\n' client "ns/request [least .. most of $rounds rounds]"
for client in $clients; do
  sort -n "$work/$client" | awk -v name="${client//_/-}" '
    { all[NR] = $1 }
    END { printf "%-16s %d [%d .. %d]\n", name, all[int((NR + 1) / 2)], all[1], all[NR] }'
done
