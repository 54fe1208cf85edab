"""Claim: a dump that backup-redis.sh took of a running Redis is whole, and restore-redis.sh brings it back, with times to
live, beside what is there; old dumps go. A node that cannot be asked is an error, and leaves no file that could be taken for
a dump. backup-manifests.sh asks for all kinds that were applied. test_redis.py has dumps of Sentinel and Cluster."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from manifests import DEPLOY
from programs import LIMIT, REDIS_PASSWORD, ask_redis, free_port, redis

SESSIONS = 250
FILL = """for number = 0, ARGV[1] - 1 do
  redis.call('set', 'mcp:{' .. number .. '}:session', 'record ' .. number, 'px', 3600000)
end"""


def script(name, target, nodes, **variables):
    environment = {**os.environ, "NODES": nodes, "TARGET": str(target), "REDIS_PASSWORD": REDIS_PASSWORD, **variables}
    command = [DEPLOY / "backup" / name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT)


def backup(target, nodes):
    return script("backup-redis.sh", target, nodes, KEEP="2")


def restore(target, nodes, scratch, **variables):
    return script("restore-redis.sh", target, nodes, PORT=str(free_port()), SCRATCH=str(scratch), **variables)


class Backup(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("first", "second", "target"):
            (self.folder / name).mkdir()

    def test_a_dump_is_restored(self):
        target = self.folder / "target"
        with redis(self.folder / "first") as port:
            node = f"127.0.0.1:{port}"
            ask_redis(port, "eval", FILL, "0", str(SESSIONS))
            ask_redis(port, "set", 'mcp:"odd key"\\', "odd")
            done = backup(target, node)
            self.assertEqual(done.returncode, 0, done.stderr)
            # What came and went since, and a backup of that.
            ask_redis(port, "flushall")
            ask_redis(port, "set", "mcp:{new}:session", "new")
            ask_redis(port, "set", "mcp:{42}:session", "another")
            (target / f"127.0.0.1-{port}-29990101T000000Z.rdb").write_bytes(b"no dump")
            self.assertNotEqual(restore(target, node, self.folder).returncode, 0)
            done = restore(target, node, self.folder, BEFORE="29980101T000000Z")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(ask_redis(port, "dbsize"), str(SESSIONS + 2))
            self.assertEqual(ask_redis(port, "get", "mcp:{42}:session"), "record 42")
            self.assertEqual(ask_redis(port, "get", 'mcp:"odd key"\\'), "odd")
            self.assertEqual(ask_redis(port, "get", "mcp:{new}:session"), "new")
            self.assertIn(int(ask_redis(port, "pttl", "mcp:{42}:session")), range(1, 3_600_001))

    def test_a_restore_without_a_dump_or_a_redis_is_an_error(self):
        target, nowhere = self.folder / "target", f"127.0.0.1:{free_port()}"
        self.assertNotEqual(restore(target, nowhere, self.folder).returncode, 0)
        with redis(self.folder / "first") as port:
            ask_redis(port, "set", "a", "b")
            self.assertEqual(backup(target, f"127.0.0.1:{port}").returncode, 0)
        (dump,) = target.iterdir()
        dump.rename(target / dump.name.replace(str(port), nowhere.partition(":")[2]))
        done = restore(target, nowhere, self.folder)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertFalse((self.folder / "redis-restore").exists())

    def test_old_dumps_go_and_those_of_other_nodes_stay(self):
        target = self.folder / "target"
        other = target / "redis-9-6379-20200101T000000Z.rdb"
        other.touch()
        with redis(self.folder / "first") as port:
            old = [target / f"127.0.0.1-{port}-2020010{day}T000000Z.rdb" for day in (1, 2, 3)]
            for age, file in enumerate(old):
                file.touch()
                os.utime(file, (age + 1, age + 1))
            self.assertEqual(backup(target, f"127.0.0.1:{port}").returncode, 0)
        self.assertEqual([file.exists() for file in old], [False, False, True])
        self.assertTrue(other.exists())

    def test_a_node_that_is_away_is_an_error(self):
        done = backup(self.folder / "target", f"127.0.0.1:{free_port()}")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(list((self.folder / "target").glob("*.rdb")), [])


class Manifests(unittest.TestCase):
    def test_all_kinds_are_kept_but_those_that_are_made_of_others(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        kinds = ["configmaps", "secrets", "pods", "events", "deployments.apps", "replicasets.apps"]
        kinds += ["certificates.cert-manager.io"]
        kubectl = folder / "kubectl"
        kubectl.write_text(f"""#!/bin/sh
case $1 in
  api-resources) printf '%s\\n' {" ".join(kinds)} ;;
  get) echo "$@" ;;
esac
""")
        kubectl.chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        command = [DEPLOY / "backup" / "backup-manifests.sh", "mine"]
        options = {"cwd": folder, "env": environment, "timeout": LIMIT}
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        file = folder / done.stdout.strip()
        asked = "configmaps,secrets,deployments.apps,certificates.cert-manager.io"
        self.assertEqual(file.read_text(), f"get {asked} --namespace mine --ignore-not-found -o yaml\n")
        # Secrets are in it.
        self.assertEqual(file.stat().st_mode & 0o077, 0)


if __name__ == "__main__":
    unittest.main()
