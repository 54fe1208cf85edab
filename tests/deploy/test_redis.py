"""Claim: the Redis of redis/sentinel and of redis/cluster starts by the manifests' own commands under their
securityContext, finds its others, survives the loss of a master, and gets its sessions back from the backup's dumps after
all volumes are lost.

Setup: each pod is a network namespace with an address on a bridge, its containers are processes in it (pods.py), and the
headless Service's names are lines of /etc/hosts, which here hold from the start."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

import pods
from manifests import DEPLOY, find, overlay
from programs import LIMIT, running, until

NAMESPACE = "mcp-system"
PASSWORD = "0123456789abcdef"
SESSIONS = 300
# Longer than a failover (5 s until a master is given up, 10 s for a try) takes, and the tries after it.
FAILOVER = 120


class Redis:
    """The pods of the StatefulSet `redis` of an overlay, each container started and stopped by itself."""

    def __init__(self, name, folder, stack):
        self.objects = overlay(name)
        self.manifest = find(self.objects, "StatefulSet", "redis")["spec"]
        self.folder = pathlib.Path(folder)
        self.stack = stack
        self.count = self.manifest["replicas"]
        self.network = stack.enter_context(pods.cluster(folder, self.count))
        self.domain = f"redis.{NAMESPACE}.svc.cluster.local"
        lines = [
            f"{address} redis-{number}.{self.domain} redis-{number}.redis redis-{number}"
            for number, (_, address) in enumerate(self.network)
        ]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        self.running = {}

    def template(self):
        return self.manifest["template"]["spec"]

    def config(self, pod):
        """The files of a pod's ConfigMap, and where they are."""
        (name,) = [each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each]
        (found,) = [each for each in self.objects if each["kind"] == "ConfigMap" and each["metadata"]["name"] == name]
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for file, text in found["data"].items():
            (folder / file).write_text(text)
        folder.chmod(0o755)
        return folder

    def environment(self, container, number):
        """The container's variables, with what the cluster would put in."""
        fields = {"metadata.namespace": NAMESPACE, "status.podIP": self.network[number][1]}
        found = {"HOSTNAME": f"redis-{number}"}
        for each in container["env"]:
            source = each.get("valueFrom", {})
            if "fieldRef" in source:
                found[each["name"]] = fields[source["fieldRef"]["fieldPath"]]
            else:
                found[each["name"]] = PASSWORD if "secretKeyRef" in source else each["value"]
        return found

    def volumes(self, pod, container, number):
        """The container's mounts; a claim of its own for each pod, which outlives its containers."""
        found = [(self.folder / "hosts", "/etc/hosts", True)]
        for mount in container["volumeMounts"]:
            if mount["name"] in ("config", "scripts"):
                source = self.config(pod)
            else:
                shared = mount["name"] in ("backup", "scratch")
                source = self.folder / (mount["name"] if shared else f"data-{number}") / mount.get("subPath", "")
                source.mkdir(parents=True, exist_ok=True)
                pods.own(source, pod)
            found.append((source, mount["mountPath"], mount.get("readOnly", False)))
        return found

    def command(self, pod, container, number, name):
        """What starts one container of the pod `redis-<number>`."""
        environment = self.environment(container, number)
        words = [*container.get("command", []), *container.get("args", [])]
        for key, value in environment.items():
            words = [word.replace(f"$({key})", value) for word in words]
        told = pods.specification(
            pod,
            container,
            image="/",
            folder=self.folder / f"{name}.root",
            volumes=self.volumes(pod, container, number),
            environment=environment,
            command=[shutil.which(words[0]), *words[1:]],
        )
        return pods.start(self.network[number][0], told, self.folder / f"{name}.json")

    def start(self, number):
        """Starts a pod's containers."""
        for container in self.template()["containers"]:
            name = f"{container['name']}-{number}"
            command = self.command(self.template(), container, number, name)
            self.running[name] = self.stack.enter_context(running(command, self.folder / f"{name}.log"))

    def kill(self, number):
        """Ends a pod's containers without a word to them."""
        for name in [each for each in self.running if each.endswith(f"-{number}")]:
            container = self.running.pop(name)
            os.kill(pods.first_process(container), signal.SIGKILL)
            container.wait(timeout=LIMIT)

    def job(self, kind, name, number):
        """Runs a Job to its end beside the pod `redis-<number>`, as often as it may fail; what it printed."""
        spec = find(self.objects, kind, name)["spec"]
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        command = self.command(pod, container, number, name)
        for _ in range(spec["backoffLimit"] + 1):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=4 * LIMIT)
            if done.returncode == 0:
                return done.stdout
        raise AssertionError(f"{name}: {done.stdout}{done.stderr}")

    def ask(self, number, *command, port=6379, options=(), lines=()):
        """What a node answers to redis-cli, asked from its own pod; "" while it does not. `lines` are commands of one
        connection."""
        environment = {**os.environ, "REDISCLI_AUTH": PASSWORD}
        cli = ["redis-cli", "--no-auth-warning", "-h", self.network[number][1], "-p", str(port), *options, *command]
        asked = [*pods.inside(self.network[number][0]), "timeout", "10", *cli]
        text = "".join(f"{line}\n" for line in lines)
        done = subprocess.run(
            asked, env=environment, input=text, capture_output=True, text=True, check=False, timeout=LIMIT
        )
        return done.stdout.strip()

    def facts(self, number, section, port=6379):
        """A section of INFO."""
        pairs = [line.split(":", 1) for line in self.ask(number, "info", section, port=port).splitlines() if ":" in line]
        return {key: value.strip() for key, value in pairs}

    def logs(self):
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(self.folder.glob("*.log")))


class Case(unittest.TestCase):
    def redis(self, name):
        stack = self.enterContext(contextlib.ExitStack())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        pathlib.Path(folder).chmod(0o755)
        found = Redis(name, folder, stack)
        for number in range(found.count):
            found.start(number)
        return found

    def until(self, redis, condition, what):
        def told():
            return f"{what}\n{redis.logs()}"

        try:
            return until(condition, what, limit=FAILOVER)
        except AssertionError as failed:
            raise AssertionError(told()) from failed

    def lose_everything(self, redis):
        """All pods and their volumes; the backup's stays."""
        for number in range(redis.count):
            redis.kill(number)
            shutil.rmtree(redis.folder / f"data-{number}")
        for number in range(redis.count):
            redis.start(number)


class Sentinel(Case):
    def test_a_password_that_a_sentinel_cannot_keep_is_refused(self):
        for script in ("start-redis.sh", "start-sentinel.sh"):
            for password in ("", "two words", 'a"quote', "a\\slash"):
                environment = {**os.environ, "NAMESPACE": NAMESPACE, "HOSTNAME": "redis-0", "REDIS_PASSWORD": password}
                command = ["sh", DEPLOY / "redis" / "sentinel" / script]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT)
                self.assertEqual(done.returncode, 1)
                self.assertIn("redis-auth", done.stderr)

    def master(self, redis, number):
        """The pod that a Sentinel says is the master; None while it cannot be asked."""
        told = redis.ask(number, "sentinel", "get-master-addr-by-name", "mymaster", port=26379).splitlines()
        return int(told[0].split(".")[0].removeprefix("redis-")) if told and told[0].startswith("redis-") else None

    def settled(self, redis):
        """(The master,), once three Sentinels that know of each other, and of its two replicas, name the same one."""
        named = {self.master(redis, number) for number in range(3)}
        if len(named) != 1 or None in named:
            return None
        (master,) = named
        known = [redis.facts(number, "sentinel", port=26379).get("master0", "") for number in range(3)]
        if not all("status=ok," in each and each.endswith("slaves=2,sentinels=3") for each in known):
            return None
        facts = [redis.facts(number, "replication") for number in range(3)]
        followers = [each for each in facts if each.get("master_link_status") == "up"]
        return (master,) if facts[master].get("role") == "master" and len(followers) == 2 else None

    def written(self, redis):
        """Writes the sessions, and waits until both replicas have them; the master, or None where that was not so."""
        settled = self.settled(redis)
        pairs = " ".join(f"mcp:{{{key}}}:session {key}" for key in range(SESSIONS))
        if settled is None or redis.ask(settled[0], lines=[f"mset {pairs}", "wait 2 5000"]) != "OK\n2":
            return None
        return settled

    def has(self, redis, count):
        """Whether the master is there and has so many keys."""
        settled = self.settled(redis)
        return settled is not None and redis.ask(settled[0], "dbsize") == str(count)

    def test_a_master_is_lost_and_then_everything(self):
        redis = self.redis("sentinel")
        (first,) = self.until(redis, lambda: self.written(redis), "three Redis, their Sentinels, and sessions")
        redis.kill(first)
        others = [number for number in range(3) if number != first]
        self.until(redis, lambda: self.master(redis, others[0]) in others, "a failover")
        redis.start(first)
        self.until(redis, lambda: self.has(redis, SESSIONS), "the old master follows the new one, and all is there")

        redis.job("CronJob", "redis-backup", first)
        self.lose_everything(redis)
        self.until(redis, lambda: self.has(redis, 0), "three new Redis")
        self.assertIn(f"{SESSIONS} keys", redis.job("CronJob", "redis-restore", first))
        self.until(redis, lambda: self.has(redis, SESSIONS), "the sessions are back")
        (master,) = self.until(redis, lambda: self.settled(redis), "a master")
        self.assertEqual(redis.ask(master, "get", "mcp:{42}:session"), "42")


class Cluster(Case):
    def whole(self, redis):
        """Whether every node says that all is well, and each of three masters has a replica that is up to date: one that has
        not caught up yet does not take its master's place."""
        told = [redis.ask(number, "cluster", "info") for number in range(6)]
        if not all("cluster_state:ok" in each and "cluster_known_nodes:6" in each for each in told):
            return False
        facts = [redis.facts(number, "replication") for number in range(6)]
        replicas = [each for each in facts if each.get("role") == "slave"]
        return len(replicas) == 3 and all(each.get("master_link_status") == "up" for each in replicas)

    def masters(self, redis):
        return [number for number in range(6) if redis.facts(number, "replication").get("role") == "master"]

    def keys(self, redis):
        return sum(int(redis.ask(number, "dbsize") or 0) for number in self.masters(redis))

    def join(self, redis):
        redis.job("Job", "redis-cluster-create", 0)
        self.until(redis, lambda: self.whole(redis), "a cluster of six")

    def test_a_master_is_lost_and_then_everything(self):
        redis = self.redis("cluster")
        self.join(redis)
        self.assertIn("is there", redis.job("Job", "redis-cluster-create", 0))
        for key in range(SESSIONS // 10):
            pairs = " ".join(f"mcp:{{{key}}}:{part} {key}" for part in range(10))
            lines = [f"mset {pairs}", "wait 1 5000"]
            self.until(redis, lambda lines=lines: redis.ask(0, lines=lines, options=["-c"]).endswith("OK\n1"), "a write")
        self.until(redis, lambda: self.keys(redis) == SESSIONS, "the sessions")

        redis.kill(1)
        self.until(redis, lambda: len(self.masters(redis)) == 3, "a replica in the master's place")
        redis.start(1)
        self.until(redis, lambda: self.whole(redis), "six again")
        self.until(redis, lambda: self.keys(redis) == SESSIONS, "all is there")

        redis.job("CronJob", "redis-backup", 0)
        self.lose_everything(redis)
        self.join(redis)
        self.until(redis, lambda: self.keys(redis) == 0, "six new nodes")
        redis.job("CronJob", "redis-restore", 0)
        self.until(redis, lambda: self.keys(redis) == SESSIONS, "the sessions are back")
        self.assertEqual(redis.ask(3, "get", "mcp:{7}:0", options=["-c"]), "7")


if __name__ == "__main__":
    unittest.main()
