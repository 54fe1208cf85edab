#!/bin/sh
# A Redis of three: follows the master that the Sentinels name, and is the master where none of them knows one and it is the
# first pod.
set -eu
# A Sentinel writes its file anew with the password as it is, and does not start again from one with a space or a quote.
case $REDIS_PASSWORD in
  '' | *[!A-Za-z0-9._~+/=-]*)
    echo "the password in the Secret redis-auth may have letters, digits and . _ ~ + / = - alone" >&2
    exit 1
    ;;
esac
domain=redis.$NAMESPACE.svc.cluster.local
self=$HOSTNAME.$domain
cp /config/redis.conf /data/redis.conf
{
  echo "replica-announce-ip $self"
  echo "requirepass $REDIS_PASSWORD"
  echo "masterauth $REDIS_PASSWORD"
} >>/data/redis.conf
master=
for sentinel in 0 1 2; do
  master=$(REDISCLI_AUTH=$REDIS_PASSWORD timeout 2 redis-cli -h "redis-$sentinel.$domain" -p 26379 --no-auth-warning \
    sentinel get-master-addr-by-name mymaster 2>/dev/null | head -n 1) || master=
  [ -n "$master" ] && break
done
[ -n "$master" ] || master=redis-0.$domain
[ "$master" = "$self" ] || echo "replicaof $master 6379" >>/data/redis.conf
exec redis-server /data/redis.conf
