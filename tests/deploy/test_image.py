"""Claim: the image of the Dockerfile, run as deploy/ says (user 1000, no capability, a root that cannot be written, the
seccomp profile), gets ready over TLS, answers a call, finishes what is in flight at its stop signal, and leaves. Its
Dockerfile is as the linter wants it.

The build's compiler is stood in for by the program in target/release (image.py); with IMAGE_BUILD=1 it compiles, for which
there is `.ci/test-image --build`."""

import contextlib
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile
import unittest

import dockerfile
import image
import pods
from manifests import DEPLOY, ROOT, find, gateway_container, gateway_environment, gateway_pod, overlay
from programs import LIMIT, RELEASE, running, until

COMPILE = os.environ.get("IMAGE_BUILD") == "1"
SERVER = "everything.mcp-servers.svc.cluster.local"
ACCEPT = "Accept: application/json, text/event-stream"
CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "hi"}}}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
}


def setUpModule():
    """One image for all tests: it is never written to."""
    global IMAGE, FOLDER
    if COMPILE:
        FOLDER = ROOT / "target" / "image" / "built"
    else:
        FOLDER = pathlib.Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    IMAGE = image.build(FOLDER, COMPILE)
    print(f"image: {IMAGE.size() / (1 << 20):.1f} MiB", file=sys.stderr)


def profile(objects):
    """The seccomp profile of the gateway's pod. The runtimes' default is what ours is without its first rule."""
    wanted = gateway_pod(objects)["securityContext"]["seccompProfile"]
    found = json.loads((DEPLOY / "seccomp" / "mcp-gateway.json").read_text())
    if wanted["type"] == "RuntimeDefault":
        del found["syscalls"][0]
    return found


class Container:
    """The gateway's container in a pod of this overlay: the image's process and its network, that has loopback alone."""

    def __init__(self, folder, objects, seccomp):
        self.folder = pathlib.Path(folder)
        self.objects = objects
        self.seccomp = seccomp
        self.manifest = gateway_container(objects)
        self.log = self.folder / "log"

    def command(self, pod, arguments):
        """What starts the container in the pod's network."""
        manifest = gateway_pod(self.objects)
        told = pods.specification(
            manifest,
            self.manifest,
            image=IMAGE.root,
            folder=self.folder / "container",
            volumes=self.volumes(manifest["securityContext"]["fsGroup"]),
            environment=gateway_environment(self.objects),
            command=[*IMAGE.entrypoint, *arguments],
            seccomp=self.seccomp,
        )
        return pods.start(pod, told, self.folder / "specification.json")

    def volumes(self, group):
        """The manifest's volumes, filled as the kubelet fills them: files of root's, that the pod's group reads."""
        config, tls = self.folder / "config", self.folder / "tls"
        hosts = self.folder / "hosts"
        if not config.exists():
            config.mkdir()
            tls.mkdir()
            data = find(self.objects, "ConfigMap", "mcp-gateway-config")["data"]
            (config / "gateway.toml").write_text(data["gateway.toml"])
            # Where the volume above it is mounted; a runtime makes it there as well.
            (config / "tls").mkdir()
            certificate(tls)
            for each in tls.iterdir():
                os.chown(each, 0, group)
                each.chmod(0o440)
            hosts.write_text(f"127.0.0.1 localhost {SERVER}\n")
        sources = {"config": config, "tls": tls}
        mounts = sorted(self.manifest["volumeMounts"], key=lambda mount: mount["mountPath"])
        found = [(sources[mount["name"]], mount["mountPath"]) for mount in mounts]
        return [(source, target, True) for source, target in [*found, (hosts, "/etc/hosts")]]

    @contextlib.contextmanager
    def pod(self):
        """The pod's network, with an MCP server where the configuration looks for it; gives the process that holds it."""
        with pods.network(self.folder) as pod:
            server = [RELEASE / "mcp-bench", "upstream", "--sessions", "--delay", "1s"]
            with running([*pods.inside(pod), *server], self.folder / "server"):
                yield pod

    @contextlib.contextmanager
    def started(self, sandbox):
        """The gateway, started; gives (what waits for it, its process)."""
        with running(self.command(sandbox, self.manifest["args"]), self.log) as process:
            gateway = pods.first_process(process)
            try:
                yield process, gateway
            finally:
                if process.poll() is None:
                    os.kill(gateway, signal.SIGKILL)

    def probe(self, sandbox, name):
        """Whether this probe of the manifest's succeeds."""
        get, limit = self.manifest[name]["httpGet"], self.manifest[name]["timeoutSeconds"]
        url = f"{get['scheme'].lower()}://127.0.0.1:{get['port']}{get['path']}"
        return self.curl(sandbox, url, "--fail", "--max-time", limit).returncode == 0

    def curl(self, sandbox, url, *options):
        command = [*pods.inside(sandbox), "curl", "--silent", "--show-error", "--insecure", *map(str, options), url]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)

    def post(self, message, *headers):
        """curl's options for a request of MCP's."""
        given = (ACCEPT, "Content-Type: application/json", *headers)
        options = [option for header in given for option in ("--header", header)]
        return ["--max-time", LIMIT, *options, "--data", json.dumps(message)]


def certificate(folder):
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=mcp.example.com"
    names = "subjectAltName=DNS:mcp.example.com,DNS:localhost,IP:127.0.0.1"
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    image.run([*command.split(), "-addext", names, *files])


class Lint(unittest.TestCase):
    def test_the_linter_finds_nothing(self):
        linter = pathlib.Path(sys.executable).parent / "hadolint"
        command = [linter, "--no-color", ROOT / "Dockerfile"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)

    def test_what_the_linter_does_not_ask_for(self):
        text = (ROOT / "Dockerfile").read_text()
        built, final = dockerfile.stages(text)
        for stage in (built, final):
            self.assertNotIn("latest", stage.base)
        compiled = built.last("RUN").rest
        self.assertIn(" --locked ", compiled)
        self.assertNotIn("http", compiled)
        self.assertEqual({each.name for each in final.instructions}, {"COPY", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT"})
        # A name would not do: `runAsNonRoot` cannot be held against it.
        self.assertEqual(final.last("USER").rest, "1000:1000")
        self.assertTrue(final.last("ENTRYPOINT").rest.startswith("["))
        self.assertEqual(final.last("STOPSIGNAL").rest, "SIGTERM")
        ports = [each["containerPort"] for each in gateway_container(overlay("dev"))["ports"]]
        self.assertEqual([int(port) for port in final.last("EXPOSE").words()], ports)

    def test_the_context_is_the_sources(self):
        files = dockerfile.context(ROOT, (ROOT / ".dockerignore").read_text())
        self.assertIn("Cargo.lock", files)
        for path in files:
            self.assertNotRegex(path, r"(^|/)(\.git|target|node_modules|\.venv|__pycache__)/")

    def test_the_reader(self):
        built = "FROM a:1 AS b\nRUN --mount=type=cache,target=/x \\\n  # between\n  c && \\\n  d\n"
        first, second = dockerfile.stages(f'# no\n{built}FROM e\nCMD ["f g", "h"]\n')
        self.assertEqual((first.base, first.name, second.base, second.name), ("a:1", "b", "e", None))
        (command,) = first.instructions
        self.assertEqual((command.option("mount"), command.rest), (["type=cache,target=/x"], "c && d"))
        self.assertEqual(second.last("CMD").words(), ["f g", "h"])


class Files(unittest.TestCase):
    def test_no_shell_and_nothing_to_write(self):
        user, group = map(int, IMAGE.user.split(":"))
        for place, _, files in os.walk(IMAGE.root):
            for name in (".", *files):
                path = pathlib.Path(place, name)
                found = path.lstat()
                if stat.S_ISLNK(found.st_mode):
                    continue
                inside = f"/{path.relative_to(IMAGE.root)}"
                self.assertNotEqual(found.st_uid, user, inside)
                self.assertNotEqual(found.st_gid, group, inside)
                # Where everybody may write, as in /tmp, the root that cannot be written stands against it.
                self.assertFalse(found.st_mode & stat.S_IWOTH and not stat.S_ISDIR(found.st_mode), inside)
                self.assertFalse(found.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(found.st_mode), inside)
        for shell in ("sh", "bash", "dash", "busybox"):
            for folder in ("bin", "usr/bin", "usr/local/bin"):
                self.assertFalse((IMAGE.root / folder / shell).exists())

    def test_the_program_finds_its_libraries(self):
        loader = "/lib64/ld-linux-x86-64.so.2"
        listed = image.run(["chroot", IMAGE.root, loader, "--list", *IMAGE.entrypoint])
        self.assertIn("libc.so.6 =>", listed)
        self.assertNotIn("not found", listed)


class Runs(unittest.TestCase):
    def container(self, profile_of="dev"):
        """That of the overlay that needs nothing beside it, under the seccomp profile of this one."""
        folder = self.enterContext(tempfile.TemporaryDirectory())
        return Container(folder, overlay("dev"), profile(overlay(profile_of)))

    def test_it_checks_its_configuration(self):
        container = self.container()
        (config,) = [each for each in container.manifest["args"] if each.endswith(".toml")]
        with container.pod() as sandbox:
            command = container.command(sandbox, ["check", config])
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_it_serves_without_privileges_and_drains(self):
        container = self.container()
        with container.pod() as sandbox, container.started(sandbox) as (process, gateway):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                until(lambda probe=probe: container.probe(sandbox, probe), f"{probe}: {container.log.read_text()}", process)
            self.stripped(gateway)
            url = "https://127.0.0.1:8443/mcp"
            hello = container.curl(sandbox, url, "--include", *container.post(HELLO))
            (session,) = [line for line in hello.stdout.splitlines() if line.lower().startswith("mcp-session-id:")]
            call = container.post(CALL, session, "MCP-Protocol-Version: 2025-11-25")
            command = [*pods.inside(sandbox), "curl", "--silent", "--insecure", *map(str, call), url]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as calling:
                until(lambda: self.in_flight(container, sandbox), "no call in flight", process)
                os.kill(gateway, getattr(signal, IMAGE.stop_signal))
                answer, _ = calling.communicate(timeout=LIMIT)
            content = json.loads(answer).get("result", {}).get("content")
            self.assertEqual(content, [{"type": "text", "text": "hi"}], answer)
            self.assertEqual(process.wait(timeout=gateway_pod(container.objects)["terminationGracePeriodSeconds"]), 0)
        self.assertIn('"drained"', container.log.read_text())

    def in_flight(self, container, sandbox):
        page = container.curl(sandbox, "http://127.0.0.1:9090/metrics").stdout
        (count,) = [line for line in page.splitlines() if line.startswith("mcp_gateway_requests_in_flight ")]
        return count.split()[1] != "0"

    def stripped(self, gateway):
        """The process is what the manifest says: another user without a capability, present or to be had."""
        lines = pathlib.Path(f"/proc/{gateway}/status").read_text().splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        for name, expected in (("Uid", ["1000"] * 4), ("Gid", ["1000"] * 4), ("Groups", ["2000"])):
            self.assertEqual(status[name], expected)
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[capabilities][0], 16), 0, capabilities)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"], status["NSpid"][-1]), (["1"], ["2"], "1"))
        mounts = pathlib.Path(f"/proc/{gateway}/mountinfo").read_text().splitlines()
        for line in mounts:
            fields = line.split()
            if fields[4] not in ("/proc", "/dev") and not fields[4].startswith("/dev/"):
                self.assertTrue(fields[5].startswith("ro"), line)

    def test_the_profile_decides_on_the_driver(self):
        for name, refused in (("managed-redis", True), ("production", False)):
            container = self.container(profile_of=name)
            with self.subTest(overlay=name), container.pod() as sandbox, container.started(sandbox) as (process, _):
                until(lambda container=container: container.probe(sandbox, "livenessProbe"), container.log, process)
                self.assertEqual("io_uring is refused" in container.log.read_text(), refused, container.log.read_text())


if __name__ == "__main__":
    unittest.main()
