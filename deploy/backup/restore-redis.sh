#!/bin/sh
# Brings the newest dump of each node named in $NODES back from $TARGET into the Redis that these nodes are now: a master with its
# replicas, whichever of them is the master, or a Cluster. Each dump is loaded by a Redis of this script's own, and that one sends
# every key with its time to live to where it belongs. Nothing is stopped and no volume is touched: an append-only log and a
# Sentinel's memory of who was the master would win over a dump that is put beside them. Keys that are there meanwhile stay, unless
# the dump has them, too. With $BEFORE (20260101T031700Z) it is the newest of that time or before: a backup goes on by itself, also of a
# Redis that has lost everything.
set -eu
: "${NODES:?}" "${TARGET:?}"
port=${PORT:-6399}
own=${SCRATCH:-/tmp}/redis-restore
export REDISCLI_AUTH="${REDIS_PASSWORD:-}"
here() { redis-cli --no-auth-warning -p "$port" "$@"; }
# quoted TEXT: for redis-cli, which reads commands as it writes strings.
quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }

for node in $NODES; do
  host=${node%:*}
  node_port=6379
  [ "$host" = "$node" ] || node_port=${node##*:}
  # Times in names sort as they pass.
  dump=$(ls "$TARGET" | awk -v node="$host-$node_port-" -v last="${BEFORE:-9}.rdb" \
    'index($0, node) == 1 && /\.rdb$/ && substr($0, length(node) + 1) <= last' | sort | tail -n 1)
  [ -n "$dump" ] || { echo "no dump of $node in $TARGET" >&2; exit 1; }

  rm -rf "$own"
  mkdir -p "$own"
  cp "$TARGET/$dump" "$own/dump.rdb"
  # On loopback, and with the password all the same: a dump is as secret as what it was taken of.
  printf 'port %s\nbind 127.0.0.1\ndir %s\nsave ""\nappendonly no\nrequirepass %s\n' "$port" "$own" "$(quoted "${REDIS_PASSWORD:-}")" |
    redis-server - >"$own/log" &
  server=$!
  trap 'kill "$server" 2>/dev/null || true; rm -rf "$own"' EXIT
  until [ "$(here ping 2>/dev/null)" = PONG ]; do
    kill -0 "$server" || { cat "$own/log" >&2; exit 1; }
    sleep 0.2
  done

  there() { redis-cli --no-auth-warning -h "$host" -p "$node_port" "$@"; }
  if there info cluster | grep -q '^cluster_enabled:1'; then
    redis-cli --no-auth-warning --cluster import "$host:$node_port" --cluster-from "127.0.0.1:$port" --cluster-from-pass "$REDISCLI_AUTH" \
      --cluster-copy --cluster-replace >"$own/import" || { tail -n 20 "$own/import" >&2; exit 1; }
  else
    master=$(there info replication | tr -d '\r' | sed -n 's/^master_host://p')
    master_port=$(there info replication | tr -d '\r' | sed -n 's/^master_port://p')
    here --scan | TO="${master:-$host} ${master_port:-$node_port}" QUOTED=$(quoted "$REDISCLI_AUTH") awk '
      { gsub(/[\\"]/, "\\\\&"); keys = keys " \"" $0 "\"" }
      NR % 100 == 0 { send() }
      END { send() }
      function send() {
        if (keys) print "migrate " ENVIRON["TO"] " \"\" 0 60000 copy replace auth " ENVIRON["QUOTED"] " keys" keys
        keys = ""
      }' |
      here >"$own/sent"
    # An answer is OK, or NOKEY for keys whose time has come since the scan.
    if grep -qvE '^(OK|NOKEY)$' "$own/sent"; then
      grep -vE '^(OK|NOKEY)$' "$own/sent" | head -n 5 >&2
      exit 1
    fi
  fi
  echo "$dump: $(here dbsize) keys"
  kill "$server"
  wait "$server" || true
done
