"""Pods as processes of this machine: a network of their own on a bridge, and containers in it, started as their manifest
says. It never asks a container runtime or a cluster for anything; what a container is, is `container.py`'s.

All processes end with the test: each by the signal that its parent's end sends it."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

from programs import LIMIT, running, until

HERE = pathlib.Path(__file__).parent
PREFIX = "10.88.0"


def inside(pod):
    """What runs a command in a pod's network."""
    return ["nsenter", "--target", str(pod), "--net"]


def specification(pod, container, *, image, folder, volumes, environment, command, seccomp=None):
    """What container.py is told, of a pod's and a container's manifest; `volumes` are (source, target, read-only)."""
    shared, own = pod["securityContext"], container["securityContext"]
    pathlib.Path(folder).mkdir(exist_ok=True)
    return {
        "image": str(image),
        "folder": str(folder),
        "command": command,
        "environment": {"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        "volumes": [
            {"source": str(source), "target": target, "read_only": read_only} for source, target, read_only in volumes
        ],
        "read_only": own["readOnlyRootFilesystem"],
        "drop": own["capabilities"]["drop"],
        "escalation": own["allowPrivilegeEscalation"],
        "user": shared["runAsUser"],
        "group": shared["runAsGroup"],
        "groups": [shared["fsGroup"]] if "fsGroup" in shared else [],
        "seccomp": seccomp,
    }


def start(pod, told, file):
    """The command that starts a container in the pod's network; `told` is its specification, kept in `file`."""
    pathlib.Path(file).write_text(json.dumps(told))
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return [*inside(pod), *namespaces, sys.executable, HERE / "container.py", file]


def first_process(container):
    """The process that `unshare` waits for, once it is there: process 1 of the container."""
    listed = pathlib.Path(f"/proc/{container.pid}/task/{container.pid}/children")
    return int(until(lambda: listed.read_text().split(), "no container", container)[0])


@contextlib.contextmanager
def network(folder):
    """A network that nobody else is in; gives the process that holds it. It may be a pod's, with loopback alone."""
    holder = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep infinity"]
    with running(holder, pathlib.Path(folder) / "network.log") as process:
        until(lambda: _name(process.pid) == "sleep", "no network", process)
        yield process.pid


@contextlib.contextmanager
def cluster(folder, count):
    """Networks on one bridge: gives [(process that holds it, address)]."""
    with contextlib.ExitStack() as stack:
        bridge = stack.enter_context(network(folder))
        _ip(bridge, "link", "add", "bridge0", "type", "bridge")
        _ip(bridge, "link", "set", "bridge0", "up")
        found = []
        for number in range(count):
            pod, address = stack.enter_context(network(folder)), f"{PREFIX}.{10 + number}"
            far = f"veth{number}"
            _ip(bridge, "link", "add", "name", far, "type", "veth", "peer", "name", "eth0", "netns", str(pod))
            _ip(bridge, "link", "set", far, "master", "bridge0", "up")
            _ip(pod, "address", "add", f"{address}/24", "dev", "eth0")
            _ip(pod, "link", "set", "eth0", "up")
            found.append((pod, address))
        yield found


def _ip(pod, *arguments):
    done = subprocess.run([*inside(pod), "ip", *arguments], capture_output=True, text=True, check=False, timeout=LIMIT)
    if done.returncode != 0:
        raise AssertionError(f"ip {arguments}: {done.stderr}")


def _name(process):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{process}/comm").read_text().strip()
    return None


def own(folder, pod):
    """Gives a folder to the pod's user and group, as the kubelet gives a volume to its `fsGroup`."""
    context = pod["securityContext"]
    for place, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            os.chown(pathlib.Path(place, name), context["runAsUser"], context["runAsGroup"])
