#!/bin/sh
# Joins the six nodes, once: does nothing where they are a cluster already.
set -eu
domain=redis.$NAMESPACE.svc.cluster.local
export REDISCLI_AUTH="$REDIS_PASSWORD"
nodes=
for node in 0 1 2 3 4 5; do
  until address=$(getent hosts "redis-$node.$domain" | head -n 1 | cut -d' ' -f1) && [ -n "$address" ] &&
    redis-cli --no-auth-warning -h "$address" ping | grep -q PONG; do
    sleep 1
  done
  nodes="$nodes $address:6379"
done
if redis-cli --no-auth-warning -h "redis-0.$domain" cluster info | grep -q '^cluster_slots_assigned:16384'; then
  echo "the cluster is there"
  exit 0
fi
# Word splitting is meant.
# shellcheck disable=SC2086
redis-cli --no-auth-warning --cluster create $nodes --cluster-replicas 1 --cluster-yes
