"""A gateway under traffic that a real Prometheus scrapes: what is started for that, and how it is asked. Claims nothing."""

import contextlib
import http.client
import json
import math
import pathlib
import socket
import ssl
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml
from manifests import GATEWAY
from programs import LIMIT, REDIS_PASSWORD, RELEASE, free_ports, listens, redis, running, until

REVISION = "2025-11-25"
# The trace that lists of tools belong to.
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
# Longest run of the traffic; it ends with the tests.
TRAFFIC = "120s"


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
                kept["traceparent"] = f"00-{TRACE}-00f067aa0ba902b7-01"
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
        options.append("--enable-feature=exemplar-storage")
        command = ["prometheus", *options, f"--web.listen-address=127.0.0.1:{self.prometheus}"]
        prometheus = stack.enter_context(running(command, self.folder / "prometheus.log"))
        until(lambda: self.get("-/ready") is not None, "Prometheus does not start", prometheus)

    def page(self, accept="text/plain"):
        request = urllib.request.Request(self.metrics, headers={"Accept": accept})
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=LIMIT) as answer:
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
