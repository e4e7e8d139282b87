#!/bin/sh
# Whether this server does its work, as far as a new start would change anything about it.
#
#   stores.sh [JetStream's folder] [port of its monitoring]
#
# 0: it does, or a new start would not help. 1: it does not answer, or JetStream is off.
# 2: a stream refuses every message, and there is room.
#
# A stream that could not write once, because the disk was full for a moment, refuses every further message until the
# server is started again, however much room there is by then (nats-server 2.15.1). Of all there is to ask, only the body
# of plain /healthz says so: its parameters js-enabled-only and js-server-only, and /jsz, find all well. Its status alone
# will not do, for it is 503 too while a server of several catches up, which a new start would only prolong. The image's
# wget does not show the body of an error; its nc does.
set -u
store=${1:-/data}
port=${2:-8222}
# KiB. With less, a server that is started again would soon stop storing again: it waits for somebody to make room.
room=65536

ask() {
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" | nc -w 4 127.0.0.1 "$port"
}

case $(ask '/healthz?js-enabled-only=true') in
  *' 200 '*) ;;
  *) echo "NATS does not answer, or JetStream is off"; exit 1 ;;
esac
case $(ask /healthz) in
  *'write error'*) ;;
  *) exit 0 ;;
esac
free=$(df -Pk "$store" | awk 'END { print $4 }')
if [ "${free:-0}" -lt "$room" ]; then
  echo "NATS cannot store: $store has ${free:-0} KiB left"
  exit 0
fi
echo "NATS cannot store any more since its disk was full; it has to be started again"
exit 2
