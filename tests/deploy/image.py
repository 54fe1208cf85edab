"""Builds the image of the Dockerfile without a container engine: each instruction is run as it stands there, in roots
that are made of Debian's packages as the base images are. It never proves the base images themselves, which only their
registry has.

The compiler is the one thing that may be stood in for: `build(folder, compiles=False)` takes the program that is in
target/release, so that what is left of the build takes seconds. Needs root, for mounts; they are in namespaces of their
own, and end with them."""

import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess

import dockerfile
from manifests import GATEWAY, ROOT

DEBIAN = "bookworm"
# What the distroless project unpacks into `cc`, in its order: the layers static, base and cc.
DISTROLESS = ["base-files", "netbase", "tzdata", "media-types", "ca-certificates"]
DISTROLESS += ["libc6", "libssl3", "gcc-12-base", "libgcc-s1", "libgomp1", "libstdc++6"]
# What stays between runs: a Debian that compiles, and packages.
KEPT = ROOT / "target" / "image"
# Of the tools that `rust:VERSION-bookworm` adds to Debian's minimum, those that the build needs; and its environment.
TOOLS = ["ca-certificates", "gcc", "git", "libc6-dev"]
RUST = "/usr/local/rustup"
RUST_ENVIRONMENT = {
    "RUSTUP_HOME": RUST,
    "CARGO_HOME": "/usr/local/cargo",
    "PATH": "/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# What this machine's clients trust and where they find names; a container engine gives the latter to its containers as well.
OF_THE_MACHINE = ["/etc/ssl/certs/ca-certificates.crt", "/etc/resolv.conf", "/etc/hosts"]
# Seconds for a step that downloads or compiles.
LIMIT = 4 * 3600


@dataclasses.dataclass
class Image:
    """An image: its files, and what a container engine is told about it."""

    root: pathlib.Path
    user: str
    entrypoint: list[str]
    stop_signal: str
    ports: list[int]

    def size(self):
        """Bytes of all files."""
        return sum(each.lstat().st_size for each in self.root.rglob("*") if each.is_file() and not each.is_symlink())


def run(command, **options):
    """Runs a command to its end; what it said is in the error when it fails."""
    command = [str(each) for each in command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT, **options)
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(command)}: {done.stdout[-2000:]}{done.stderr[-6000:]}")
    return done.stdout


def build(folder, compiles):
    """Builds the image into `folder`, and returns it; `compiles` says whether the Dockerfile's cargo is cargo."""
    first, final = dockerfile.stages((ROOT / "Dockerfile").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {first.name: _build_stage(first, folder, compiles)}
    root = folder / "final"
    if root.exists():
        shutil.rmtree(root)
    _distroless(root, final.base)
    for each in final.instructions:
        if each.name == "COPY":
            source, target = each.words()
            (stage,) = each.option("from")
            run(["cp", "-a", f"{outputs[stage]}{source}.", f"{root}{target}"])
        elif each.name not in ("USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT"):
            raise AssertionError(f"{each.name} in the final stage, which has no shell")
    return Image(
        root=root,
        user=final.last("USER").rest,
        entrypoint=final.last("ENTRYPOINT").words(),
        stop_signal=final.last("STOPSIGNAL").rest,
        ports=[int(port) for port in final.last("EXPOSE").words()],
    )


def _build_stage(stage, folder, compiles):
    """Runs the stage's instructions; returns the folder that holds its files, as far as it wrote any."""
    sources, written = folder / "context", folder / "written"
    for each in (sources, written):
        if each.exists():
            shutil.rmtree(each)
        each.mkdir()
    for path in dockerfile.context(ROOT, (ROOT / ".dockerignore").read_text()):
        (sources / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, sources / path, follow_symlinks=False)
    base = _rust(stage.base) if compiles else pathlib.Path("/")
    at = folder / "root"
    at.mkdir(exist_ok=True)
    # A folder inside `lowerdir` cannot be what is written to: memory is.
    script = [
        "set -eu",
        f"mount -t tmpfs -o size=2g tmpfs {written}",
        f"mkdir {written}/upper {written}/work",
        f"mount -t overlay -o lowerdir={base},upperdir={written}/upper,workdir={written}/work overlay {at}",
        f"mount -t tmpfs tmpfs {at}/tmp",
        f"mount -t proc proc {at}/proc",
        f"mount --rbind /dev {at}/dev",
    ]
    if compiles:
        script += [f"mount --bind {each} {at}{each}" for each in OF_THE_MACHINE]
    environment = dict(RUST_ENVIRONMENT)
    if not compiles:
        stand_in = folder / "cargo"
        _stand_in(stand_in)
        environment["PATH"] = f"/tmp/stand-in:{os.environ['PATH']}"
        script += [f"install -D -m 0755 {stand_in} {at}/tmp/stand-in/cargo"]
    workdir = "/"
    for each in stage.instructions:
        if each.name == "WORKDIR":
            workdir = each.rest
            script += [f"mkdir -p {at}{workdir}"]
        elif each.name == "COPY":
            source, target = each.words()
            script += [f"cp -a {sources}/{source}/. {at}{workdir}/{target}/"]
        elif each.name == "RUN":
            for mount in each.option("mount"):
                script += _cache(mount, folder, at, compiles)
            command = f"cd {shlex.quote(workdir)} && {each.rest}"
            variables = shlex.join(f"{name}={value}" for name, value in environment.items())
            script += [f"chroot {at} /usr/bin/env -i {variables} /bin/sh -c {shlex.quote(command)}"]
        else:
            raise AssertionError(f"{each.name} in the stage that builds")
    result = folder / "out"
    if result.exists():
        shutil.rmtree(result)
    script += [f"mkdir {result}", f"cp -a {at}/out {result}/out"]
    run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", "\n".join(script)])
    return result


def _cache(mount, folder, at, compiles):
    """A cache of BuildKit's: a folder that the next build finds as this one left it."""
    options = dict(option.partition("=")[::2] for option in mount.split(","))
    if options.get("type") != "cache":
        raise AssertionError(f"a mount of another kind: {mount}")
    target = options["target"]
    kept = folder / "caches" / target.strip("/").replace("/", "-")
    kept.mkdir(parents=True, exist_ok=True)
    if not compiles and target.endswith("/target"):
        (kept / "release").mkdir(exist_ok=True)
        shutil.copy2(GATEWAY, kept / "release" / GATEWAY.name)
    return [f"mkdir -p {at}{target}", f"mount --bind {kept} {at}{target}"]


def _stand_in(path):
    """A cargo that builds nothing: it takes the one command that the image may be built by, and any other is an error."""
    path.write_text('#!/bin/sh\n[ "$*" = "build --release --locked --bin mcp-gateway" ] && [ -e Cargo.lock ]\n')


def _rust(base):
    """The root of `rust:VERSION-bookworm`: Debian's minimum, tools, and the machine's toolchain of that version."""
    version = base.removeprefix("rust:").removesuffix(f"-{DEBIAN}")
    if base != f"rust:{version}-{DEBIAN}":
        raise AssertionError(f"no way to make {base} is known here")
    root = KEPT / f"rust-{version}"
    if (root / ".made").exists():
        return root
    if root.exists():
        shutil.rmtree(root)
    run(["debootstrap", "--variant=minbase", f"--include={','.join(TOOLS)}", DEBIAN, root, _mirror()])
    toolchain = run(["rustup", "run", _toolchain(version), "rustc", "--print", "sysroot"]).strip()
    left_out = shutil.ignore_patterns("doc", "src")
    shutil.copytree(toolchain, root / RUST.strip("/"), symlinks=True, ignore=left_out)
    programs = root / RUST_ENVIRONMENT["CARGO_HOME"].strip("/") / "bin"
    programs.mkdir(parents=True)
    for program in ("cargo", "rustc", "rustdoc"):
        (programs / program).symlink_to(f"{RUST}/bin/{program}")
    for each in OF_THE_MACHINE:
        (root / each.strip("/")).touch()
    (root / ".made").touch()
    return root


def _toolchain(version):
    """The machine's name for a toolchain of this version."""
    for name in run(["rustup", "toolchain", "list", "--quiet"]).split():
        if run(["rustup", "run", name, "rustc", "--version"]).startswith(f"rustc {version}."):
            return name
    raise AssertionError(f"no toolchain of version {version} is installed")


def _mirror():
    """Where this machine's apt gets Debian's packages from."""
    wanted = [f"Codename: {DEBIAN}", "Created-By: Packages"]
    return run(["apt-get", "indextargets", "--format", "$(SITE)", *wanted]).split()[0]


def _distroless(root, base):
    """The root of `gcr.io/distroless/cc-debian12:nonroot`: packages without their scripts, authorities in one file."""
    if base != "gcr.io/distroless/cc-debian12:nonroot":
        raise AssertionError(f"no way to make {base} is known here")
    packages = KEPT / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    have = {each.name.split("_")[0] for each in packages.glob("*.deb")}
    if missing := [each for each in DISTROLESS if each not in have]:
        run(["apt-get", "update", "-qq"])
        # As another user apt could not write there, and says so.
        run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *missing], cwd=packages)
    root.mkdir()
    for each in sorted(packages.glob("*.deb")):
        run(["dpkg-deb", "--extract", each, root])
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/locale"):
        shutil.rmtree(root / folder, ignore_errors=True)
    authorities = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    (root / "etc/ssl/certs/ca-certificates.crt").write_text("".join(each.read_text() for each in authorities))
    shutil.rmtree(root / "usr/share/ca-certificates")
    users = ["root:x:0:0:root:/root:/sbin/nologin", "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin"]
    (root / "etc/passwd").write_text("".join(f"{each}\n" for each in users))
    (root / "etc/group").write_text("root:x:0:\nnonroot:x:65532:\n")
