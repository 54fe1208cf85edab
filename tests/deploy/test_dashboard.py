"""Claim: a real Prometheus that scrapes a gateway under traffic finds what the dashboard and the alerts ask for, and Grafana's own
types read the dashboard whole. What comes from the cluster (cAdvisor, kube-state-metrics) is parsed only."""

import contextlib
import functools
import json
import re
import subprocess
import tempfile
import unittest

import yaml
from box import Box
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard
from manifests import DEPLOY, OVERLAYS, find, overlay
from programs import LIMIT, until

# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "10s", "$namespace": "mcp-system", "$pod": ".+"}
# The guide's list, and the panels that show each item.
GUIDE = {
    "Connection count and success rate": ["Open connections", "Connections that came to be"],
    "Request latency percentiles (p50, p95, p99)": ["Latency of requests"],
    "Error rate by endpoint": ["Error rate by server", "Error rate by endpoint"],
    "Circuit breaker states": ["Circuit breakers"],
    "Redis connectivity and performance": ["Redis is there", "Connections to nodes", "Commands", "Latency of commands"],
    "Pod CPU/Memory utilization": ["CPU of pods", "Memory of pods"],
    "Network throughput": ["Network of pods", "Bytes of the binary protocol"],
}
# The series of a cluster that queries may ask for.
CLUSTER = {
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "container_network_receive_bytes_total",
    "container_network_transmit_bytes_total",
    "kube_pod_container_resource_limits",
    "kube_pod_container_status_restarts_total",
}


@functools.cache
def panels():
    dashboard = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries():
    """The dashboard's queries as (panel, query), with the variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            yield panel["title"], query


def lost(ours, read, path="dashboard"):
    """What of ours was not read, or was read as something else."""
    if isinstance(ours, dict) and isinstance(read, dict):
        return [each for key in ours for each in lost(ours[key], read.get(key), f"{path}.{key}")]
    if isinstance(ours, list) and isinstance(read, list) and len(ours) == len(read):
        pairs = enumerate(zip(ours, read, strict=True))
        return [each for place, pair in pairs for each in lost(*pair, f"{path}[{place}]")]
    return [] if ours == read else [path]


def alerts():
    groups = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def of_cluster(query):
    return re.findall(r"\b(?:container|kube|node)_\w+", query)


class Scraped(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.box = Box(cls.enterClassContext(contextlib.ExitStack()))

    def tearDown(self):
        self.assertIsNone(self.box.traffic.failure)

    def test_each_query_of_the_dashboard_shows_something(self):
        wanted = {query: panel for panel, query in queries() if not of_cluster(query)}
        missing = self.box.first_numbers(wanted)
        self.assertEqual([(wanted[query], query) for query in missing], [])

    def test_what_panels_show_is_what_happens(self):
        job = '{job="mcp-gateway"}'
        for query, holds in [
            ('mcp_gateway_circuit_breaker_state{server="away"}', lambda value: value in (1, 2)),
            ('mcp_gateway_circuit_breaker_state{server="fast"}', lambda value: value == 0),
            (f"mcp_gateway_redis_up{job}", lambda value: value == 1),
            ('sum(rate(mcp_gateway_requests_total{status=~"5.."}[10s]))', lambda value: value > 0),
            ('sum(rate(mcp_gateway_requests_total{method="tools/call",protocol="mcpb"}[10s]))', lambda value: value > 0),
        ]:
            with self.subTest(query=query):
                until(lambda query=query, holds=holds: any(map(holds, self.box.numbers(query))), "it never holds")

    def test_each_series_of_the_alerts_is_there(self):
        wanted = {
            rule["alert"]: re.findall(r"\b(?:mcp_gateway_\w+|up\b)(?:\{[^}]*\})?", rule["expr"])
            for rule in alerts()
            if not of_cluster(rule["expr"])
        }
        self.assertEqual([alert for alert, selectors in wanted.items() if not selectors], [])
        missing = self.box.first_numbers({each for selectors in wanted.values() for each in selectors})
        self.assertEqual(missing, [])


class Dashboard(unittest.TestCase):
    def test_it_shows_each_item_of_the_guide(self):
        titles = [panel["title"] for panel in panels()]
        self.assertEqual(len(set(titles)), len(titles), "a title is there twice")
        for item, wanted in GUIDE.items():
            with self.subTest(item=item):
                self.assertEqual([title for title in wanted if title not in titles], [])

    def test_grafana_reads_all_of_it(self):
        plugins.register_default_plugins()
        shipped = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())
        read = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(shipped)))
        self.assertEqual(lost(shipped, read), [])
        # What is checked is worth something only if it tells what is not of the schema.
        shipped["panels"][1]["tilte"] = "wrong"
        read = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(shipped)))
        self.assertEqual(lost(shipped, read), ["dashboard.panels[1].tilte"])

    def test_latencies_show_exemplars(self):
        for panel in panels():
            for target in panel["targets"]:
                requests = re.search(r"mcp_gateway_(shard_)?request_duration_seconds_bucket", target["expr"])
                with self.subTest(query=target["expr"]):
                    self.assertEqual(target.get("exemplar", False), requests is not None)

    def test_percentiles_are_of_rates_and_counters_are_rates(self):
        rates = r"sum by \(le(?:, \w+)*\) \(rate\(mcp_gateway_\w+_seconds_bucket\{"
        quantile = re.compile(rf"histogram_quantile\([0-9.]+, {rates}")
        for query in [query for _, query in queries()] + [rule["expr"] for rule in alerts()]:
            with self.subTest(query=query):
                self.assertEqual(len(quantile.findall(query)), query.count("histogram_quantile("))
                counters = re.findall(r"(\w+)\(\w+_(?:total|bucket|sum|count)\b", query)
                self.assertLessEqual(set(counters), {"rate", "increase"})
                self.assertEqual(len(counters), len(re.findall(r"\w_(?:total|bucket|sum|count)\b", query)))
        latency = next(panel for panel in panels() if panel["title"] == "Latency of requests")
        shown = [target["expr"] for target in latency["targets"]]
        self.assertEqual([re.search(r"[0-9.]+", query).group() for query in shown], ["0.5", "0.95", "0.99"])

    def test_queries_of_the_cluster_s_series_parse(self):
        wanted = [query for _, query in queries() if of_cluster(query)]
        self.assertTrue(wanted)
        names = {name for query in [*wanted, *(rule["expr"] for rule in alerts())] for name in of_cluster(query)}
        self.assertEqual(names - CLUSTER, set())
        rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(wanted)]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}, file)
            file.flush()
            command = ["promtool", "check", "rules", file.name]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_overlays_with_monitoring_carry_it(self):
        carriers = 0
        for name in OVERLAYS:
            objects = overlay(name)
            if any(item["kind"] == "ServiceMonitor" for item in objects):
                carriers += 1
                with self.subTest(overlay=name):
                    found = find(objects, "ConfigMap", "mcp-gateway-dashboard")
                    self.assertEqual(found["metadata"]["labels"]["grafana_dashboard"], "1")
                    shipped = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())
                    self.assertEqual(json.loads(found["data"]["dashboard.json"]), shipped)
                    self.assert_the_job_has_its_name(objects)
        self.assertTrue(carriers)

    def assert_the_job_has_its_name(self, objects):
        """The operator names a job by the Service's value of the label that the monitor names."""
        monitor = find(objects, "ServiceMonitor", "mcp-gateway")["spec"]
        wanted = monitor["selector"]["matchLabels"].items()
        services = [item for item in objects if item["kind"] == "Service"]
        chosen = [item for item in services if wanted <= item["metadata"].get("labels", {}).items()]
        self.assertTrue(chosen)
        for service in chosen:
            self.assertEqual(service["metadata"]["labels"][monitor["jobLabel"]], "mcp-gateway")
            self.assertIn(monitor["endpoints"][0]["port"], [port["name"] for port in service["spec"]["ports"]])


if __name__ == "__main__":
    unittest.main()
