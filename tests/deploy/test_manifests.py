"""Claim: every overlay renders, is valid Kubernetes, carries a configuration that the gateway takes, and says what the gateway
needs a cluster to do; above all where the high-availability guide itself would not work."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import tomllib
import unittest

import kubernetes_validate
import yaml
from manifests import (
    DEPLOY,
    GATEWAY,
    OVERLAYS,
    ROOT,
    allows,
    bytes_of,
    find,
    gateway_container,
    gateway_environment,
    gateway_pod,
    overlay,
    render,
    seconds,
)

KUBERNETES = "1.34"
# What other projects define, with what each object must have at least.
CUSTOM = {
    ("cert-manager.io/v1", "Certificate"): ["secretName", "issuerRef", "dnsNames|commonName"],
    ("cert-manager.io/v1", "Issuer"): ["selfSigned|ca|acme"],
    ("monitoring.coreos.com/v1", "PrometheusRule"): ["groups"],
    ("monitoring.coreos.com/v1", "ServiceMonitor"): ["selector", "endpoints"],
}
GATEWAY_LABELS = {"app": "mcp-gateway"}
REDIS = {"app": "redis"}
PROMETHEUS = {"namespace:kubernetes.io/metadata.name": "monitoring"}
SERVERS = {"namespace:mcp-bridge/servers": "true"}


class Overlays(unittest.TestCase):
    def each(self):
        for name in OVERLAYS:
            with self.subTest(overlay=name):
                yield overlay(name)

    def test_every_object_is_valid(self):
        folders = [f"overlays/{name}" for name in OVERLAYS] + ["seccomp"]
        for folder in folders:
            for item in render(folder):
                kind = (item["apiVersion"], item["kind"])
                with self.subTest(folder=folder, kind=kind, name=item["metadata"]["name"]):
                    if kind in CUSTOM:
                        for wanted in CUSTOM[kind]:
                            self.assertTrue(any(key in item["spec"] for key in wanted.split("|")), wanted)
                    else:
                        kubernetes_validate.validate(item, KUBERNETES, strict=True)

    def test_the_gateway_takes_its_configuration(self):
        for objects in self.each():
            text = find(objects, "ConfigMap", "mcp-gateway-config")["data"]["gateway.toml"]
            with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
                file.write(text)
                file.flush()
                done = subprocess.run(
                    [GATEWAY, "check", file.name],
                    env={**os.environ, **gateway_environment(objects)},
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=30,
                )
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_what_is_mounted_is_where_the_configuration_looks(self):
        for objects in self.each():
            container = gateway_container(objects)
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            config = tomllib.loads(find(objects, "ConfigMap", "mcp-gateway-config")["data"]["gateway.toml"])
            paths = list(config["gateway"]["server"]["tls"].values())
            paths += [value for key, value in gateway_environment(objects).items() if key.endswith("_FILE")]
            for path in paths:
                self.assertIn(path.rsplit("/", 1)[0], mounts, path)
            volumes = {volume["name"] for volume in gateway_pod(objects)["volumes"]}
            self.assertEqual({mount["name"] for mount in container["volumeMounts"]}, volumes)

    def test_a_drain_fits_into_the_grace_period(self):
        for objects in self.each():
            config = tomllib.loads(find(objects, "ConfigMap", "mcp-gateway-config")["data"]["gateway.toml"])
            server = config["gateway"]["server"]
            delay = seconds(server["drain_delay"])
            drain = delay + seconds(server["drain_timeout"])
            pod = gateway_pod(objects)
            before = gateway_container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
            readiness = gateway_container(objects)["readinessProbe"]
            self.assertGreaterEqual(before, readiness["periodSeconds"])
            # Half of it is for clients of HTTP/1.1 to hear that their connections end.
            self.assertGreaterEqual(delay, 2 * readiness["periodSeconds"])
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], before + drain + 5)

    def test_a_busy_pod_is_not_restarted(self):
        for objects in self.each():
            container = gateway_container(objects)
            liveness, readiness = container["livenessProbe"], container["readinessProbe"]
            self.assertEqual(readiness["httpGet"], {"path": "/ready", "port": 8443, "scheme": "HTTPS"})
            # tests/tests/liveness.rs: not where a pod that is full refuses the probe's connection.
            self.assertEqual(liveness["httpGet"], {"path": "/health", "port": 9090, "scheme": "HTTP"})
            self.assertGreaterEqual(liveness["failureThreshold"] * liveness["periodSeconds"], 60)
            self.assertIn("startupProbe", container)

    def test_pods_are_locked_down(self):
        for objects in self.each():
            for item in objects:
                if item["kind"] not in ("Deployment", "StatefulSet", "Job", "CronJob"):
                    continue
                spec = item["spec"]
                spec = spec.get("jobTemplate", {}).get("spec", spec)["template"]["spec"]
                with self.subTest(name=item["metadata"]["name"]):
                    self.assertTrue(spec["securityContext"]["runAsNonRoot"])
                    self.assertIn(spec["securityContext"]["seccompProfile"]["type"], ("RuntimeDefault", "Localhost"))
                    self.assertFalse(spec["automountServiceAccountToken"])
                    for container in spec["containers"]:
                        locked = container["securityContext"]
                        self.assertTrue(locked["readOnlyRootFilesystem"])
                        self.assertFalse(locked["allowPrivilegeEscalation"])
                        self.assertEqual(locked["capabilities"], {"drop": ["ALL"]})
                        self.assertIn("memory", container["resources"]["limits"])

    def test_policies_let_through_what_the_gateway_does(self):
        for objects in self.each():
            for port in (8443, 9443):
                self.assertTrue(allows(objects, GATEWAY_LABELS, "ingress", port), port)
            self.assertTrue(allows(objects, GATEWAY_LABELS, "ingress", 9090, peer=PROMETHEUS))
            self.assertFalse(allows(objects, GATEWAY_LABELS, "ingress", 9090))
            for protocol in ("UDP", "TCP"):
                self.assertTrue(allows(objects, GATEWAY_LABELS, "egress", 53, protocol))
            self.assertTrue(allows(objects, GATEWAY_LABELS, "egress", 3001, peer=SERVERS))
            self.assertFalse(allows(objects, GATEWAY_LABELS, "egress", 22))
            if "MCP_GATEWAY__PEERS__LISTEN" in gateway_environment(objects):
                for direction in ("ingress", "egress"):
                    self.assertTrue(allows(objects, GATEWAY_LABELS, direction, 9444, peer=GATEWAY_LABELS))
                    self.assertFalse(allows(objects, GATEWAY_LABELS, direction, 9444, peer=REDIS))

    def test_redis_is_reached_and_reaches_itself(self):
        for name, ports in [("sentinel", (6379, 26379)), ("cluster", (6379,))]:
            objects = overlay(name)
            for port in ports:
                self.assertTrue(allows(objects, GATEWAY_LABELS, "egress", port, peer=REDIS), (name, port))
                self.assertTrue(allows(objects, REDIS, "ingress", port, peer=GATEWAY_LABELS), (name, port))
                self.assertTrue(allows(objects, REDIS, "ingress", port, peer=REDIS), (name, port))
                self.assertTrue(allows(objects, REDIS, "ingress", port, peer={"app": "redis-backup"}) or port != 6379)
        bus = overlay("cluster")
        self.assertTrue(allows(bus, REDIS, "ingress", 16379, peer=REDIS))
        self.assertFalse(allows(bus, REDIS, "ingress", 16379, peer=GATEWAY_LABELS))
        for port in (6379, 6380):
            self.assertTrue(allows(overlay("managed-redis"), GATEWAY_LABELS, "egress", port))

    def test_services_lead_to_the_pods(self):
        for name in OVERLAYS[1:]:
            objects = overlay(name)
            (external,) = [each for each in objects if each["kind"] == "Service" and each["spec"].get("type") == "LoadBalancer"]
            ports = {(each["port"], each["targetPort"]) for each in external["spec"]["ports"]}
            self.assertEqual(ports, {(443, 8443), (9443, 9443)})
            of_aws = "service.beta.kubernetes.io/aws-load-balancer"
            notes = external["metadata"]["annotations"]
            self.assertEqual((notes[f"{of_aws}-type"], notes[f"{of_aws}-healthcheck-path"]), ("nlb", "/ready"))
            named = {each["name"]: each["containerPort"] for each in gateway_container(objects)["ports"]}
            self.assertEqual({key: named[key] for key in ("https", "mcpb", "metrics")}, {"https": 8443, "mcpb": 9443, "metrics": 9090})
            pod = find(objects, "Deployment", "mcp-gateway")["spec"]["template"]["metadata"]["labels"]
            for service in [each for each in objects if each["kind"] == "Service"]:
                if service["metadata"]["name"].startswith("mcp-gateway"):
                    selector = service["spec"]["selector"]
                    self.assertEqual({key: pod.get(key) for key in selector}, selector, service["metadata"]["name"])

    def test_the_autoscaler_follows_the_guide_and_does_not_flap(self):
        for name in OVERLAYS[1:]:
            spec = find(overlay(name), "HorizontalPodAutoscaler", "mcp-gateway-hpa")["spec"]
            self.assertEqual(spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 300)
            self.assertEqual(spec["maxReplicas"], 50)
            self.assertIn("Pods", {metric["type"] for metric in spec["metrics"]})
            self.assertNotIn("replicas", find(overlay(name), "Deployment", "mcp-gateway")["spec"])

    def test_zones_are_spread_over(self):
        for objects in self.each():
            pod = gateway_pod(objects)
            (preferred,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
            self.assertEqual(preferred["podAffinityTerm"]["topologyKey"], "topology.kubernetes.io/zone")
            keys = {each["topologyKey"] for each in pod["topologySpreadConstraints"]}
            self.assertEqual(keys, {"topology.kubernetes.io/zone", "kubernetes.io/hostname"})

    def test_the_memory_limit_covers_the_connections(self):
        # Bytes of an idle TLS connection with its session, the kernel's as well, and at the worst: as they were measured.
        measured = (ROOT / "docs" / "performance.md").read_text()
        held, peak = (
            max(int(number.replace(",", "")) for number in re.findall(r"\d+,\d+", line.split("|")[2]))
            for line in measured.splitlines()
            if line.startswith(("| with the kernel's share", "| while 100,000 end their sessions"))
        )
        process, unfinished = 64 << 20, 256 << 20
        for name in OVERLAYS[1:]:
            objects = overlay(name)
            config = tomllib.loads(find(objects, "ConfigMap", "mcp-gateway-config")["data"]["gateway.toml"])
            connections = config["gateway"]["server"]["max_connections"]
            resources = gateway_container(objects)["resources"]
            limit = bytes_of(resources["limits"]["memory"])
            self.assertLess(process + unfinished + connections * peak, limit)
            # Connections have the autoscaler add pods before their memory does.
            metrics = find(objects, "HorizontalPodAutoscaler", "mcp-gateway-hpa")["spec"]["metrics"]
            (target,) = [int(each["pods"]["target"]["averageValue"]) for each in metrics if each["type"] == "Pods"]
            (percent,) = [
                each["resource"]["target"]["averageUtilization"]
                for each in metrics
                if each["type"] == "Resource" and each["resource"]["name"] == "memory"
            ]
            self.assertLess(process + target * held, bytes_of(resources["requests"]["memory"]) * percent / 100)

    def test_an_overlay_of_one_s_own_sets_the_image(self):
        with tempfile.TemporaryDirectory(dir=DEPLOY / "overlays") as folder:
            image = {"name": "mcp-gateway", "newName": "registry.example.com/mcp-gateway", "newTag": "0.2.0"}
            text = {"resources": ["../production"], "images": [image]}
            (pathlib.Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(text))
            objects = overlay(pathlib.Path(folder).name)
        self.assertEqual(gateway_container(objects)["image"], "registry.example.com/mcp-gateway:0.2.0")


class Seccomp(unittest.TestCase):
    def test_the_profile_adds_the_ring_and_nothing_else(self):
        profile = json.loads((DEPLOY / "seccomp" / "mcp-gateway.json").read_text())
        ring, *others = profile["syscalls"]
        self.assertEqual(ring, {"names": ["io_uring_enter", "io_uring_register", "io_uring_setup"], "action": "SCMP_ACT_ALLOW"})
        self.assertEqual((profile["defaultAction"], profile["defaultErrnoRet"]), ("SCMP_ACT_ERRNO", 1))
        allowed = [name for rule in others if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]]
        # What a container without capabilities is never given.
        for refused in ("mount", "setns", "unshare", "bpf", "init_module", "reboot", "perf_event_open", "kexec_load", "keyctl"):
            self.assertNotIn(refused, allowed)
        self.assertFalse(any(name.startswith("io_uring") for name in allowed))

    def test_production_uses_it(self):
        self.assertEqual(
            gateway_pod(overlay("production"))["securityContext"]["seccompProfile"],
            {"type": "Localhost", "localhostProfile": "mcp-gateway.json"},
        )
        self.assertEqual(gateway_pod(overlay("managed-redis"))["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})


if __name__ == "__main__":
    unittest.main()
