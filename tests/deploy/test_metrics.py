"""Claim: the page of metrics is what docs/metrics.md says, which has every name of the high-availability guide and of the
architecture; in either format it is what the format's own readers take; Prometheus keeps its exemplars."""

import contextlib
import json
import re
import subprocess
import time
import unittest
import urllib.parse

from box import TRACE, Box
from manifests import ROOT
from programs import LIMIT, until
from prometheus_client.openmetrics.parser import text_string_to_metric_families

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
# Metrics that have a series only once something happened that this traffic does not bring about.
UNSEEN = {
    "mcp_gateway_h2_errors_total",
    "mcp_gateway_rate_limit_fallback_total",
    "mcp_gateway_redis_redirects_total",
    "mcp_gateway_ws_closes_total",
}
# The names that the guide and the architecture promise, without `mcp_gateway_`, and the labels that they promise with them.
PROMISED = {
    "auth_failures_total": {"reason"},
    "build_info": set(),
    "circuit_breaker_state": {"server", "endpoint"},
    "connections_active": {"protocol", "shard"},
    "connections_rejected_total": {"reason"},
    "connections_total": set(),
    "handshakes_total": {"result"},
    "rate_limit_fallback_total": {"reason"},
    "rate_limited_total": {"scope"},
    "redis_up": set(),
    "request_duration_seconds": set(),
    "requests_in_flight": set(),
    "requests_total": {"server", "method", "status", "protocol"},
    "routing_errors_total": {"reason"},
    "sessions_active": set(),
    "shard_cpu_seconds_total": {"shard"},
    "shard_loop_lag_seconds": {"shard"},
    "shard_request_duration_seconds": {"shard"},
    "tcp_bytes_total": {"direction"},
    "tcp_connections_active": set(),
    "tcp_messages_total": {"direction", "type"},
    "tcp_protocol_errors_total": {"error_type"},
    "upstream_duration_seconds": set(),
    "upstream_pool_connections": {"state"},
    "upstream_requests_total": {"server", "endpoint", "status"},
}


def families(page):
    """The page's metrics: name to (type, help, sets of label names)."""
    found = {}
    for line in page.splitlines():
        if line.startswith("# HELP "):
            _, _, name, text = line.split(" ", 3)
            found[name] = ["", text, set()]
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            found[name][0] = kind
        else:
            series, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            names = frozenset(re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', labels or "")) - {"le"}
            family = series if series in found else re.sub(r"_(bucket|sum|count)$", "", series)
            found[family][2].add(names)
    return found


def documented():
    """The same as docs/metrics.md has it, with one set of label names each."""
    found = {}
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if line.startswith("| `mcp_gateway_"):
            name, kind, labels, text = (cell.strip() for cell in line.strip("|").split(" | "))
            found[name.strip("`")] = (kind, text, frozenset(re.findall(r"`(\w+)`", labels)))
    return found


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.box = Box(cls.enterClassContext(contextlib.ExitStack()))

    def tearDown(self):
        self.assertIsNone(self.box.traffic.failure)

    def test_the_page_is_what_its_documentation_says(self):
        expected = documented()

        def settled():
            found = families(self.box.page())
            return found if all(labels for name, (_, _, labels) in found.items() if name not in UNSEEN) else None

        with contextlib.suppress(AssertionError):
            until(settled, "a metric has no series", limit=LIMIT)
        found = families(self.box.page())
        self.assertEqual(sorted(found), sorted(expected))
        for name, (kind, text, labels) in found.items():
            with self.subTest(metric=name):
                self.assertEqual((kind, text), expected[name][:2])
                self.assertEqual(labels or {expected[name][2]}, {expected[name][2]})
                self.assertTrue(labels or name in UNSEEN, "it has no series")

    def test_promtool_takes_the_page(self):
        command = ["promtool", "check", "metrics"]
        done = subprocess.run(command, input=self.box.page(), capture_output=True, text=True, check=False, timeout=LIMIT)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_openmetrics_is_what_its_reader_takes(self):
        def page():
            page = self.box.page(OPEN_METRICS)
            return page if TRACE in page else None

        read = list(text_string_to_metric_families(until(page, "no exemplar")))
        kinds = {"info": "gauge"}
        suffixes = {"counter": "_total", "info": "_info"}
        found = {family.name + suffixes.get(family.type, ""): kinds.get(family.type, family.type) for family in read}
        self.assertEqual(found, {name: kind for name, (kind, _, _) in documented().items()})
        for family in read:
            with self.subTest(family=family.name):
                self.assertEqual(family.unit, next(iter(re.findall(r"_(seconds|bytes)$", family.name)), ""))
                for sample in family.samples:
                    if sample.exemplar:
                        self.assertRegex(sample.name, r"^mcp_gateway_(shard_)?request_duration_seconds_bucket$")
                        self.assertEqual(sample.exemplar.labels, {"trace_id": TRACE})
                        self.assertLessEqual(sample.exemplar.value, float(sample.labels["le"]))
                        self.assertLess(abs(time.time() - float(sample.exemplar.timestamp)), 600)

    def test_prometheus_keeps_exemplars(self):
        def kept(name):
            now = time.time()
            asked = urllib.parse.urlencode({"query": name, "start": now - 600, "end": now + 600})
            answer = self.box.get(f"api/v1/query_exemplars?{asked}")
            return json.loads(answer)["data"] if answer else []

        for family in ("request_duration_seconds", "shard_request_duration_seconds"):
            with self.subTest(family=family):
                name = f"mcp_gateway_{family}_bucket"
                found = until(lambda name=name: kept(name), "Prometheus keeps none")
                for series in found:
                    self.assertEqual(series["seriesLabels"]["job"], "mcp-gateway")
                    self.assertEqual({each["labels"]["trace_id"] for each in series["exemplars"]}, {TRACE})

    def test_all_shards_are_the_sum_of_each(self):
        def settled():
            page = self.box.page()
            count = {
                family: sum(
                    int(value) for value in re.findall(rf"(?m)^mcp_gateway_{family}_count(?:{{.*}})? (\d+)$", page)
                )
                for family in ("request_duration_seconds", "shard_request_duration_seconds")
            }
            shards = set(re.findall(r'shard_request_duration_seconds_count{.*shard="(\d+)"', page))
            self.assertEqual(len(set(count.values())), 1, count)
            return shards == {"0", "1"}

        until(settled, "a shard has no histogram")


class Documentation(unittest.TestCase):
    def test_it_has_what_the_guide_and_the_architecture_promise(self):
        found = documented()
        for name, labels in PROMISED.items():
            with self.subTest(metric=name):
                self.assertIn(f"mcp_gateway_{name}", found)
                self.assertLessEqual(labels, found[f"mcp_gateway_{name}"][2])


if __name__ == "__main__":
    unittest.main()
