#!/bin/sh
# Brings the newest dump of each node named in $NODES back from $TARGET into the Redis that these nodes are now: a master with its
# replicas, whichever of them is the master, or a Cluster. Each dump is loaded by a Redis of this script's own, and that one sends
# every key with its time to live (MIGRATE) to where it belongs. Nothing is stopped and no volume is touched: an append-only log and a
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

  # Who gets what: lines of first slot, last slot, host, port. Without a Cluster, slot 0 stands for everything.
  there() { redis-cli --no-auth-warning -h "$host" -p "$node_port" "$@"; }
  here --scan | sed 's/[\\"]/\\&/g; s/.*/"&"/' >"$own/keys"
  if there info cluster | grep -q '^cluster_enabled:1'; then
    sed 's/^/cluster keyslot /' "$own/keys" | there >"$own/slots"
    there cluster nodes | awk '$3 ~ /master/ && $3 !~ /fail/ {
      sub(/[@,].*/, "", $2)
      port = $2; sub(/.*:/, "", port); sub(/:[^:]*$/, "", $2)
      for (i = 9; i <= NF; i++) if ($i !~ /^\[/) { last = $i; sub(/.*-/, "", last); print $i + 0, last, $2, port }
    }' >"$own/owners"
  else
    sed 's/.*/0/' "$own/keys" >"$own/slots"
    there info replication | tr -d '\r' | awk -F: -v host="$host" -v port="$node_port" '
      $1 == "master_host" { host = $2 }
      $1 == "master_port" { port = $2 }
      END { print 0, 0, host, port }' >"$own/owners"
  fi
  paste -d ' ' "$own/slots" "$own/keys" | QUOTED=$(quoted "$REDISCLI_AUTH") awk '
    FNR == NR { for (slot = $1; slot <= $2; slot++) owner[slot] = $3 " " $4; next }
    !($1 in owner) { print "nobody has slot " $1 >"/dev/stderr"; exit failed = 1 }
    { to = owner[$1]; keys[to] = keys[to] substr($0, length($1) + 1) }
    ++count[to] % 100 == 0 { send(to) }
    END { if (!failed) for (to in keys) send(to); exit failed }
    function send(to) {
      if (keys[to]) print "migrate " to " \"\" 0 60000 copy replace auth " ENVIRON["QUOTED"] " keys" keys[to]
      keys[to] = ""
    }' "$own/owners" - >"$own/commands"
  here <"$own/commands" >"$own/sent"
  # An answer is OK, or NOKEY for keys whose time has come since the scan.
  if grep -vE '^(OK|NOKEY)$' "$own/sent" >&2; then
    exit 1
  fi
  echo "$dump: $(here dbsize) keys"
  kill "$server"
  wait "$server" || true
done
