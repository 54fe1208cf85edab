"""Claim: a dump that backup-redis.sh took of a running Redis is whole, old ones go, and a Redis that starts from it has what was
there. A node that cannot be asked is an error, and leaves no file that could be taken for a dump."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from manifests import DEPLOY
from programs import LIMIT, REDIS_PASSWORD, ask_redis, free_port, redis

SCRIPT = DEPLOY / "backup" / "backup-redis.sh"


def backup(target, nodes, keep=2):
    environment = {**os.environ, "NODES": nodes, "TARGET": str(target), "KEEP": str(keep), "REDIS_PASSWORD": REDIS_PASSWORD}
    return subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=LIMIT)


class Backup(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("first", "second", "target"):
            (self.folder / name).mkdir()

    def test_a_dump_is_restored(self):
        target = self.folder / "target"
        with redis(self.folder / "first") as port:
            for number in range(100):
                ask_redis(port, "set", f"mcp:{{{number}}}:session", f"record {number}", "px", "3600000")
            done = backup(target, f"127.0.0.1:{port}")
            self.assertEqual(done.returncode, 0, done.stderr)
        (dump,) = target.iterdir()
        shutil.copy(dump, self.folder / "second" / "dump.rdb")
        with redis(self.folder / "second") as port:
            self.assertEqual(ask_redis(port, "dbsize"), "100")
            self.assertEqual(ask_redis(port, "get", "mcp:{42}:session"), "record 42")
            self.assertGreater(int(ask_redis(port, "pttl", "mcp:{42}:session")), 0)

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


if __name__ == "__main__":
    unittest.main()
