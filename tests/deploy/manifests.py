"""The manifests as a cluster would get them: rendering, and questions about what is rendered. Never a cluster."""

import functools
import os
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
GATEWAY = ROOT / "target" / "release" / "mcp-gateway"
OVERLAYS = [
    "dev",
    "production",
    "sentinel",
    "cluster",
    "managed-redis",
    "multi-region/primary",
    "multi-region/secondary",
]


@functools.cache
def render(folder):
    """All objects of a kustomization, as a tuple of dicts."""
    command = [os.environ.get("KUBECTL", "kubectl"), "kustomize", str(DEPLOY / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise AssertionError(f"{folder} does not render: {done.stderr}")
    return tuple(item for item in yaml.safe_load_all(done.stdout) if item)


def overlay(name):
    return render(f"overlays/{name}")


def find(objects, kind, name):
    """The one object of this kind and name; configuration maps by the name before their digest."""
    found = [
        item
        for item in objects
        if item["kind"] == kind
        and (item["metadata"]["name"] == name or (kind == "ConfigMap" and item["metadata"]["name"].rsplit("-", 1)[0] == name))
    ]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} of {kind}/{name}")
    return found[0]


def gateway_pod(objects):
    return find(objects, "Deployment", "mcp-gateway")["spec"]["template"]["spec"]


def gateway_container(objects):
    (container,) = [each for each in gateway_pod(objects)["containers"] if each["name"] == "gateway"]
    return container


def gateway_environment(objects):
    """The MCP_GATEWAY__ variables that the gateway's container gets, with the pod's address filled in."""
    container = gateway_container(objects)
    variables = {}
    for source in container.get("envFrom", []):
        (found,) = [
            item
            for item in objects
            if item["kind"] == "ConfigMap" and item["metadata"]["name"] == source["configMapRef"]["name"]
        ]
        variables |= found["data"]
    for variable in container.get("env", []):
        if "value" in variable:
            variables[variable["name"]] = variable["value"].replace("$(POD_IP)", "10.1.2.3")
    return variables


def policies(objects, labels):
    """The network policies that select pods with these labels."""
    return [
        item["spec"]
        for item in objects
        if item["kind"] == "NetworkPolicy"
        and all(labels.get(key) == value for key, value in item["spec"]["podSelector"].get("matchLabels", {}).items())
    ]


def allows(objects, labels, direction, port, protocol="TCP", peer=None):
    """Whether a policy lets this through; `peer` is the other pod's labels, or None for somebody outside the cluster."""
    side = "from" if direction == "ingress" else "to"
    for spec in policies(objects, labels):
        for rule in spec.get(direction, []):
            ports = rule.get("ports")
            if ports is not None and not any(
                each["port"] == port and each.get("protocol", "TCP") == protocol for each in ports
            ):
                continue
            peers = rule.get(side)
            if peers is None or (peer is not None and any(_matches(each, peer) for each in peers)):
                return True
            if peer is None and any("ipBlock" in each for each in peers):
                return True
    return False


def _matches(selector, labels):
    if "namespaceSelector" in selector:
        wanted = selector["namespaceSelector"].get("matchLabels", {})
        return all(labels.get(f"namespace:{key}") == value for key, value in wanted.items())
    wanted = selector.get("podSelector", {}).get("matchLabels", {})
    return "podSelector" in selector and all(labels.get(key) == value for key, value in wanted.items())


def seconds(text):
    """A duration of the gateway's configuration, in seconds."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    number = text.rstrip("hms")
    return float(number) * units[text[len(number) :]]


def bytes_of(text):
    """A quantity of Kubernetes' that is given in Gi, in bytes."""
    if not text.endswith("Gi"):
        raise AssertionError(f"not in Gi: {text}")
    return int(text.removesuffix("Gi")) << 30
