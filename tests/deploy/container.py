"""Becomes a container's process: the image's files with a root that cannot be written, the volumes, a user without
privileges, the seccomp profile; then the program in its place. It does what a container runtime does with a pod's
securityContext, and never knows more of that than the manifests here say. Run as root in mount and process namespaces
of its own: `container.py SPECIFICATION`."""

import ctypes
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys

# prctl(2).
SET_PDEATHSIG, CAPBSET_DROP, SET_NO_NEW_PRIVS, CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL = 1, 24, 38, 47, 4
# seccomp_init(3), seccomp_rule_add(3).
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
COMPARE = {"SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6}
COMPARE |= {"SCMP_CMP_MASKED_EQ": 7}
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def main():
    specification = json.loads(pathlib.Path(sys.argv[1]).read_text())
    root = files(specification)
    filter_ = seccomp(specification["seccomp"])
    os.chroot(root)
    os.chdir("/")
    privileges(specification)
    if filter_ is not None:
        # Last: the profile need not allow what came before.
        check(filter_[0].seccomp_load(filter_[1]))
    program, *arguments = specification["command"]
    os.execve(program, [program, *arguments], specification["environment"])


def files(specification):
    """Lays the image out at a place of its own: volumes, /proc and the few devices, all else not to be written."""
    place = pathlib.Path(specification["folder"])
    mount("-t", "tmpfs", "tmpfs", place)
    for each in ("upper", "work", "root"):
        (place / each).mkdir()
    layers = f"lowerdir={specification['image']},upperdir={place}/upper,workdir={place}/work"
    root = place / "root"
    mount("-t", "overlay", "-o", layers, "overlay", root)
    volumes = [
        (pathlib.Path(each["source"]), root / each["target"].strip("/"), each["read_only"])
        for each in specification["volumes"]
    ]
    for folder in ("proc", "sys", "dev"):
        (root / folder).mkdir(exist_ok=True)
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "tmpfs", "-o", "mode=755,nosuid", "tmpfs", root / "dev")
    for device in DEVICES:
        volumes.append((pathlib.Path("/dev") / device, root / "dev" / device, False))
    for source, target, read_only in volumes:
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.touch()
        mount("--bind", source, target)
        if read_only:
            mount("-o", "remount,bind,ro", target)
    if specification["read_only"]:
        mount("-o", "remount,bind,ro", root)
    return root


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def privileges(specification):
    """Gives up what root has, for good."""
    if specification["drop"] == ["ALL"]:
        for capability in range(int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
            prctl(CAPBSET_DROP, capability)
        prctl(CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL)
    os.setgroups(specification["groups"])
    os.setresgid(*[specification["group"]] * 3)
    os.setresuid(*[specification["user"]] * 3)
    if not specification["escalation"]:
        prctl(SET_NO_NEW_PRIVS, 1)
    # Another user's process has lost this.
    prctl(SET_PDEATHSIG, signal.SIGKILL)


def prctl(option, argument):
    check(ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0))


def seccomp(profile):
    """A filter of this profile, in the OCI's form, ready to be loaded; None for none."""
    if profile is None:
        return None
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(action(profile["defaultAction"], profile.get("defaultErrnoRet", 1))))
    for rule in profile["syscalls"]:
        comparisons = [
            Comparison(each["index"], COMPARE[each["op"]], each["value"], each["valueTwo"])
            for each in rule.get("args", [])
        ]
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # Below zero are those of other architectures.
            if number >= 0:
                wanted = action(rule["action"], rule.get("errnoRet", 1))
                array = (Comparison * len(comparisons))(*comparisons)
                check(library.seccomp_rule_add_array(context, ctypes.c_uint32(wanted), number, len(comparisons), array))
    return library, context


def action(name, errno):
    return {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO | errno}[name]


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno() or -result, f"refused ({platform.release()})")


if __name__ == "__main__":
    main()
