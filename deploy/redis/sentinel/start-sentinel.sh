#!/bin/sh
# A Sentinel keeps what it learns in its own file, which outlives it; the first start writes it.
set -eu
# A Sentinel writes its file anew with the password as it is, and does not start again from one with a space or a quote.
case $REDIS_PASSWORD in
  '' | *[!A-Za-z0-9._~+/=-]*)
    echo "the password in the Secret redis-auth may have letters, digits and . _ ~ + / = - alone" >&2
    exit 1
    ;;
esac
domain=redis.$NAMESPACE.svc.cluster.local
file=/data/sentinel.conf
if [ ! -e "$file" ]; then
  cp /config/sentinel.conf "$file"
  {
    echo "sentinel announce-ip $HOSTNAME.$domain"
    echo "requirepass $REDIS_PASSWORD"
    echo "sentinel sentinel-pass $REDIS_PASSWORD"
    echo "sentinel monitor mymaster redis-0.$domain 6379 2"
    echo "sentinel auth-pass mymaster $REDIS_PASSWORD"
    echo "sentinel down-after-milliseconds mymaster 5000"
    echo "sentinel failover-timeout mymaster 10000"
    echo "sentinel parallel-syncs mymaster 1"
  } >>"$file"
fi
exec redis-server "$file" --sentinel
