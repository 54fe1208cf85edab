#!/bin/sh
# Everything of the namespace that was applied, in one file: `backup-manifests.sh [NAMESPACE]`. The guide's `kubectl get all`
# leaves out what it does not call "all": budgets, policies, ingresses, certificates, monitors, autoscalers of some versions.
# Secrets are in it: keep the file where you keep secrets.
set -eu
namespace=${1:-mcp-system}
file=mcp-backup-$namespace-$(date -u +%Y%m%dT%H%M%SZ).yaml
kinds=$(kubectl api-resources --verbs=list,create --namespaced -o name |
  grep -vE '^(events|events\.events\.k8s\.io|endpoints|endpointslices\.discovery\.k8s\.io|pods|replicasets\.apps|controllerrevisions\.apps|leases\.coordination\.k8s\.io|podmetrics\.metrics\.k8s\.io)$' |
  paste -sd, -)
umask 077
kubectl get "$kinds" --namespace "$namespace" --ignore-not-found -o yaml >"$file"
echo "$file"
