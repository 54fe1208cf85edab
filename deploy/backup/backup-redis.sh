#!/bin/sh
# Takes a dump of each node named in $NODES into $TARGET, proves that it can be read, and keeps the newest $KEEP of each.
# The guide's `BGSAVE` followed by a copy takes whatever dump.rdb was there before: BGSAVE only begins one. `redis-cli --rdb` is
# a replica's own synchronisation: it ends when the dump is here whole.
set -eu
: "${NODES:?}" "${TARGET:?}"
KEEP=${KEEP:-14}
export REDISCLI_AUTH="${REDIS_PASSWORD:-}"
now=$(date -u +%Y%m%dT%H%M%SZ)
for node in $NODES; do
  host=${node%:*}
  port=6379
  [ "$host" = "$node" ] || port=${node##*:}
  file=$TARGET/$host-$port-$now.rdb
  redis-cli --no-auth-warning -h "$host" -p "$port" --rdb "$file.part" >/dev/null
  redis-check-rdb "$file.part" >/dev/null
  mv "$file.part" "$file"
  echo "$file $(wc -c <"$file") bytes"
  # shellcheck disable=SC2012
  ls -1t "$TARGET/$host-$port-"*.rdb | tail -n "+$((KEEP + 1))" | while read -r old; do rm -f "$old"; done
done
