"""Claim: a real Prometheus that scrapes a gateway under traffic finds what the dashboard and the alerts ask for, and the page of
metrics is what docs/metrics.md says. What comes from the cluster (cAdvisor, kube-state-metrics) is parsed only."""

import contextlib
import functools
import http.client
import json
import math
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import yaml
from manifests import DEPLOY, GATEWAY, OVERLAYS, ROOT, find, overlay
from programs import LIMIT, REDIS_PASSWORD, RELEASE, free_ports, listens, redis, running, until

REVISION = "2025-11-25"
# Longest run of the traffic; it ends with the tests.
TRAFFIC = "120s"
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
# Metrics that have a series only once something happened that this traffic does not bring about.
UNSEEN = {
    "mcp_gateway_h2_errors_total",
    "mcp_gateway_rate_limit_fallback_total",
    "mcp_gateway_redis_redirects_total",
    "mcp_gateway_ws_closes_total",
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


def alerts():
    groups = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def of_cluster(query):
    return re.findall(r"\b(?:container|kube|node)_\w+", query)


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


class Traffic:
    """Clients that come anew, over and over: sessions at a server that answers and at one that is away."""

    def __init__(self, https, binary):
        self.https, self.binary = https, binary
        self.context = ssl.create_default_context()
        # The gateway makes a certificate of its own.
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.stop = threading.Event()
        self.failure = None

    def run(self):
        try:
            self.break_protocol()
            while not self.stop.wait(0.1):
                self.session("fast", 200)
                self.session("away", 502, 503)
        # Each test shows it when it ends.
        except Exception as error:
            self.failure = error

    def session(self, server, *expected):
        with contextlib.closing(
            http.client.HTTPSConnection("127.0.0.1", self.https, timeout=LIMIT, context=self.context)
        ) as connection:
            client = {"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
            status, headers = self.post(connection, server, {}, "initialize", client)
            if status not in expected:
                raise AssertionError(f"{server} answers initialize with {status}")
            if status == 200:
                kept = {"Mcp-Session-Id": headers["Mcp-Session-Id"], "MCP-Protocol-Version": REVISION}
                self.post(connection, server, kept, "tools/list", {})

    def post(self, connection, server, more, method, params):
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **more}
        connection.request("POST", f"/mcp/{server}", json.dumps(message), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers

    def break_protocol(self):
        """What is no frame of the binary protocol."""
        with (
            socket.create_connection(("127.0.0.1", self.binary), timeout=LIMIT) as plain,
            self.context.wrap_socket(plain) as stream,
        ):
            stream.sendall(b"\xff" * 64)
            with contextlib.suppress(OSError):
                while stream.recv(4096):
                    pass


class Box:
    """A gateway with a Redis and three servers, one of which is away; traffic; a Prometheus."""

    def __init__(self, stack):
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis_port = stack.enter_context(redis(self.folder))
        fast, https, binary, admin, self.prometheus = free_ports(5)
        # Bound, so that nobody else has the port, and not listened to.
        away = stack.enter_context(socket.socket())
        away.bind(("127.0.0.1", 0))
        upstream = [RELEASE / "mcp-bench", "upstream", "--listen", f"127.0.0.1:{fast}", "--for", TRAFFIC]
        answers = stack.enter_context(running(upstream, self.folder / "fast.log"))
        until(lambda: listens(fast), "the server does not start", answers)
        config = self.folder / "gateway.toml"
        config.write_text(f"""
[gateway.server]
listen = "127.0.0.1"
https_port = {https}
binary_port = {binary}
admin_listen = "127.0.0.1:{admin}"
[gateway.runtime]
shards = 2
pin = false
[gateway.redis]
url = "redis://127.0.0.1:{redis_port}"
[gateway.redis.auth]
password_env = "REDIS_AUTH_TOKEN"
[gateway.rate_limit]
requests_per_second = 100000
burst = 100000
[gateway.list_cache]
ttl = "1m"
[[servers]]
name = "fast"
transport = "streamable-http"
endpoints = ["http://127.0.0.1:{fast}/mcp"]
health.kind = "tcp"
health.interval = "1s"
health.timeout = "1s"
[[servers]]
name = "away"
transport = "streamable-http"
endpoints = ["http://127.0.0.1:{away.getsockname()[1]}/mcp"]
[[servers]]
name = "process"
transport = "stdio"
mode = "shared"
command = ["{RELEASE / "mcp-stdio-fixture"}"]
""")
        command = [GATEWAY, "--config", config]
        password = {"REDIS_AUTH_TOKEN": REDIS_PASSWORD}
        gateway = stack.enter_context(running(command, self.folder / "gateway.log", password))
        self.metrics = f"http://127.0.0.1:{admin}/metrics"
        until(lambda: self.page(), "the gateway does not start", gateway)
        self.call(stack, f"https://127.0.0.1:{https}/mcp/fast", "echo")
        self.call(stack, f"mcpb://127.0.0.1:{binary}", "fast__echo")
        self.traffic = Traffic(https, binary)
        thread = threading.Thread(target=self.traffic.run)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self.traffic.stop.set)
        self.scrape(stack, admin)

    def call(self, stack, url, tool):
        options = ["--insecure", "--connections", "4", "--rate", "20", "--duration", TRAFFIC, "--tool", tool]
        command = [RELEASE / "mcp-bench", "run", "--url", url, *options]
        stack.enter_context(running(command, self.folder / f"{tool}.log"))

    def scrape(self, stack, admin):
        # The labels are those that the operator gives a pod's series.
        targets = {"targets": [f"127.0.0.1:{admin}"], "labels": {"namespace": "mcp-system", "pod": "mcp-gateway-0"}}
        job = {"job_name": "mcp-gateway", "static_configs": [targets]}
        config = self.folder / "prometheus.yaml"
        often = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config.write_text(yaml.safe_dump({"global": often, "scrape_configs": [job]}))
        options = [f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'tsdb'}"]
        command = ["prometheus", *options, f"--web.listen-address=127.0.0.1:{self.prometheus}"]
        prometheus = stack.enter_context(running(command, self.folder / "prometheus.log"))
        until(lambda: self.get("-/ready") is not None, "Prometheus does not start", prometheus)

    def page(self):
        with contextlib.suppress(OSError), urllib.request.urlopen(self.metrics, timeout=LIMIT) as answer:
            return answer.read().decode()

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.prometheus}/{path}", timeout=LIMIT) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise AssertionError(f"{path}: {error.read().decode()}") from error
        except OSError:
            return None

    def numbers(self, query):
        """What Prometheus makes of the query at this moment, without what is no number."""
        answer = self.get(f"api/v1/query?{urllib.parse.urlencode({'query': query})}")
        values = [float(each["value"][1]) for each in json.loads(answer)["data"]["result"]] if answer else []
        return [value for value in values if math.isfinite(value)]

    def first_numbers(self, wanted):
        """The queries that have no number within the limit."""
        by = time.monotonic() + LIMIT
        missing = list(wanted)
        while missing and time.monotonic() < by and self.traffic.failure is None:
            missing = [query for query in missing if not self.numbers(query)]
            self.traffic.stop.wait(0.5 if missing else 0)
        return missing


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


class Dashboard(unittest.TestCase):
    def test_it_shows_each_item_of_the_guide(self):
        titles = [panel["title"] for panel in panels()]
        self.assertEqual(len(set(titles)), len(titles), "a title is there twice")
        for item, wanted in GUIDE.items():
            with self.subTest(item=item):
                self.assertEqual([title for title in wanted if title not in titles], [])

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
        self.assertTrue(carriers)


if __name__ == "__main__":
    unittest.main()
