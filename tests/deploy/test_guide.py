"""Claim: what the high-availability guide's manifests and configuration say (guide.yaml, guide.toml), the shipped ones say as well,
but for the deviations that are listed here with their reasons; and the guide's commands find what they name."""

import os
import subprocess
import tomllib
import unittest

import yaml
from manifests import GATEWAY, ROOT, find, gateway_container, gateway_pod, overlay

HERE = ROOT / "tests" / "deploy"
GATEWAYS = "Deployment/mcp-gateway/spec/template/spec"
LIVENESS = f"{GATEWAYS}/containers/gateway/livenessProbe"
# Where the shipped files say something else: (the guide's value, ours). Each place has a comment with the reason in deploy/.
DEVIATIONS = {
    # A gateway that has all connections that it may have refuses the probe's like any other, and would be restarted.
    f"{LIVENESS}/httpGet/port": (8443, 9090),
    f"{LIVENESS}/httpGet/scheme": ("HTTPS", "HTTP"),
    # A busy pod answers late, and half a minute is soon over.
    f"{LIVENESS}/timeoutSeconds": (5, 10),
    f"{LIVENESS}/failureThreshold": (3, 6),
    # The startup probe waits as long as it takes, and no longer.
    f"{LIVENESS}/initialDelaySeconds": (30, None),
    f"{GATEWAYS}/containers/gateway/readinessProbe/initialDelaySeconds": (5, None),
    # A quantile of counters since the process began says nothing of now: it takes a rate.
    "PrometheusRule/mcp-gateway-alerts/spec/groups/mcp-gateway/rules/MCPGatewayHighLatency/expr": (
        "histogram_quantile(0.95, mcp_gateway_request_duration_seconds_bucket) > 1",
        "histogram_quantile(0.95, sum by (le) (rate(mcp_gateway_request_duration_seconds_bucket"
        '{job="mcp-gateway"}[5m]))) > 1',
    ),
}
# Beside them, overlays/production allows the ring.
RING = {
    f"{GATEWAYS}/securityContext/seccompProfile/type": ("RuntimeDefault", "Localhost"),
}


def differences(guide, ours, path):
    """Where `ours` lacks what the guide says, as {path: (the guide's, ours)}; what ours has beside is its own."""
    if isinstance(guide, dict):
        found = {}
        for key, value in guide.items():
            found |= differences(value, ours.get(key) if isinstance(ours, dict) else None, f"{path}/{key}")
        return found
    if isinstance(guide, list) and all(isinstance(each, dict) for each in guide):
        found = {}
        for number, value in enumerate(guide):
            name = next((value[key] for key in ("name", "alert") if key in value), number)
            alike = [each for each in ours or [] if not differences(value, each, "")]
            named = [each for each in ours or [] if name in (each.get("name"), each.get("alert"))]
            if not alike:
                found |= differences(value, named[0] if named else None, f"{path}/{name}")
        return found
    return {} if guide == ours else {path: (guide, ours)}


class Manifests(unittest.TestCase):
    def test_they_say_what_the_guide_says(self):
        guide = yaml.safe_load((HERE / "guide.yaml").read_text())
        for name, deviations in (("managed-redis", DEVIATIONS), ("production", DEVIATIONS | RING)):
            objects = overlay(name)
            found = {}
            for part in guide:
                kind, named = part["kind"], part["name"]
                said = {key: value for key, value in part.items() if key not in ("kind", "name")}
                found |= differences(said, find(objects, kind, named), f"{kind}/{named}")
            with self.subTest(overlay=name):
                self.assertEqual(found, deviations)


class Configuration(unittest.TestCase):
    def test_the_gateway_takes_the_guide_s(self):
        environment = {**os.environ, "REDIS_AUTH_TOKEN": "a test's"}
        command = [GATEWAY, "check", HERE / "guide.toml"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_shipped_one_has_the_guide_s_values(self):
        guide = tomllib.loads((HERE / "guide.toml").read_text())["gateway"]
        data = find(overlay("production"), "ConfigMap", "mcp-gateway-config")["data"]
        shipped = tomllib.loads(data["gateway.toml"])["gateway"]
        for section in ("server", "connection_pool"):
            self.assertEqual(differences(guide[section], shipped[section], section), {})


class Commands(unittest.TestCase):
    """`kubectl set image deployment/mcp-gateway gateway=…`, `kubectl patch hpa mcp-gateway-hpa`, `kubectl create secret tls
    mcp-tls-cert`, `kubectl exec redis-0`: what they name is there."""

    def test_what_they_name_is_there(self):
        for name in ("production", "sentinel", "cluster"):
            objects = overlay(name)
            find(objects, "HorizontalPodAutoscaler", "mcp-gateway-hpa")
            self.assertEqual(gateway_container(objects)["image"].partition(":")[0], "mcp-gateway")
            secrets = [each["secret"]["secretName"] for each in gateway_pod(objects)["volumes"] if "secret" in each]
            self.assertIn("mcp-tls-cert", secrets)
        for name in ("sentinel", "cluster"):
            redis = find(overlay(name), "StatefulSet", "redis")["spec"]["template"]["spec"]
            self.assertEqual(redis["containers"][0]["name"], "redis")


if __name__ == "__main__":
    unittest.main()
