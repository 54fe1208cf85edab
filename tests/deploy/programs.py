"""Programs that a test starts on loopback and stops by itself: how each is started, and when it is up. Claims nothing."""

import contextlib
import os
import pathlib
import random
import socket
import subprocess
import time

from manifests import ROOT

RELEASE = ROOT / "target" / "release"
REDIS_PASSWORD = "a test's"
# Others than those of the other tests.
LOW_PORTS = range(10_000, 20_000)
# Seconds that a program may take to start, or to answer.
LIMIT = 30


def free_ports(count):
    """Ports that nobody has at the moment, each another. All are below the range from which the kernel takes ports for outgoing
    connections, so that none is taken between its choice and its use."""
    chosen = []
    for port in random.sample(LOW_PORTS, len(LOW_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise AssertionError(f"{count} ports of {LOW_PORTS} are not free")


def free_port():
    return free_ports(1)[0]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(condition, what, process=None, limit=LIMIT):
    """Waits until the condition holds, and returns what it gave; fails when the process ends, or after `limit` seconds."""
    by = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > by or (process is not None and process.poll() is not None):
            raise AssertionError(what)
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def running(command, log, environment=None):
    """The program while the block runs, and no longer than the test itself; what it says is in the file `log`."""
    with pathlib.Path(log).open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask_redis(port, *command):
    done = subprocess.run(
        ["redis-cli", "--no-auth-warning", "-p", str(port), *command],
        env={**os.environ, "REDISCLI_AUTH": REDIS_PASSWORD},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    return done.stdout.strip()


@contextlib.contextmanager
def redis(folder):
    """A Redis with a password that keeps what it has in this folder; gives its port."""
    port = free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", folder, "--requirepass", REDIS_PASSWORD]
    with running([*command, "--save", ""], pathlib.Path(folder) / "redis.log") as process:
        until(lambda: ask_redis(port, "ping") == "PONG", "Redis does not start", process)
        yield port
