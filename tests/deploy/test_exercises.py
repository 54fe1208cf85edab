"""Claim: the load script runs as k6 would run it, against a gateway, and counts what fails; the chaos experiments are ones
that Chaos Mesh knows, and choose pods that the overlays have. k6 and Chaos Mesh themselves are in no registry:
exercises.mjs stands in for k6's modules, by Node."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml
from manifests import DEPLOY, GATEWAY, OVERLAYS, ROOT, overlay
from programs import LIMIT, RELEASE, free_ports, listens, running, until

HERE = ROOT / "tests" / "deploy"
SELECTORS = {"namespaces", "labelSelectors", "nodeSelectors"}
ACTIONS = {"PodChaos": {"pod-kill", "pod-failure"}}
FIELDS = {"action", "mode", "duration", "gracePeriod", "selector"}


class Load(unittest.TestCase):
    """Five iterations of one user's."""

    def run_script(self, port, tool):
        given = {"URL": f"https://127.0.0.1:{port}/mcp", "TOOL": tool, "ARGUMENTS": '{"text":"k6"}'}
        command = ["node", HERE / "exercises.mjs", DEPLOY / "load" / "ha.js"]
        environment = {**os.environ, **given}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=2 * LIMIT)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_it_counts_what_fails(self):
        server, https, binary, admin = free_ports(4)
        folder = self.enterContext(tempfile.TemporaryDirectory())
        config = f"""
            [gateway.server]
            https_port = {https}
            binary_port = {binary}
            admin_listen = "127.0.0.1:{admin}"
            [gateway.runtime]
            shards = 1
            [[servers]]
            name = "fast"
            transport = "streamable-http"
            endpoints = ["http://127.0.0.1:{server}/mcp"]
        """
        file = pathlib.Path(folder) / "gateway.toml"
        file.write_text(config)
        upstream = [RELEASE / "mcp-bench", "upstream", "--sessions", "--listen", f"127.0.0.1:{server}"]
        self.enterContext(running(upstream, f"{folder}/server"))
        gateway = self.enterContext(running([GATEWAY, "--config", file], f"{folder}/gateway"))
        until(lambda: listens(https) and listens(server), "no gateway", gateway)
        told = self.run_script(https, "echo")
        self.assertEqual((told["mcp_failed"], told["mcp_sessions_lost"], told["mcp_shed"]), ([0, 5], 0, 0), told)
        self.assertEqual(told["requests"], 7)
        told = self.run_script(https, "no-such-tool")
        self.assertEqual((told["mcp_failed"], told["mcp_sessions_lost"]), ([5, 5], 0), told)

    def test_its_thresholds_are_of_its_metrics(self):
        text = (DEPLOY / "load" / "ha.js").read_text()
        own = set(re.findall(r"new (?:Rate|Counter)\('(\w+)'\)", text))
        limited = set(re.findall(r"^    (\w+): \['", text, re.MULTILINE))
        self.assertEqual(limited, {"mcp_failed", "mcp_sessions_lost", "http_req_duration"})
        self.assertLessEqual(limited - {"http_req_duration"}, own)


class Chaos(unittest.TestCase):
    def test_each_is_an_experiment_that_meets_somebody(self):
        labels = [
            item["spec"]["template"]["metadata"]["labels"]
            for name in OVERLAYS
            for item in overlay(name)
            if item["kind"] in ("Deployment", "StatefulSet")
        ]
        files = sorted((DEPLOY / "chaos").glob("*.yaml"))
        self.assertEqual(len(files), 3)
        for file in files:
            with self.subTest(file=file.name):
                item = yaml.safe_load(file.read_text())
                self.assertEqual(item["apiVersion"], "chaos-mesh.org/v1alpha1")
                self.assertEqual(item["metadata"]["namespace"], "mcp-system")
                kind, spec = item["kind"], item["spec"]
                if kind == "Schedule":
                    self.assertRegex(spec["schedule"], r"^@every [0-9]+m$")
                    self.assertIn(spec["concurrencyPolicy"], ("Forbid", "Allow"))
                    kind = spec["type"]
                    spec = spec[f"{kind[0].lower()}{kind[1:]}"]
                self.assertIn(spec["action"], ACTIONS[kind])
                self.assertLessEqual(set(spec), FIELDS)
                self.assertIn(spec["mode"], ("one", "all"))
                # A failure ends by itself; a kill is over at once.
                self.assertEqual("duration" in spec, spec["action"] == "pod-failure")
                selector = spec["selector"]
                self.assertLessEqual(set(selector), SELECTORS)
                self.assertEqual(selector["namespaces"], ["mcp-system"])
                wanted = selector.get("labelSelectors", {})
                self.assertTrue(any(wanted.items() <= found.items() for found in labels), wanted)


if __name__ == "__main__":
    unittest.main()
