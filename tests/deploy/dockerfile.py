"""Reads a Dockerfile: its stages, their instructions in order, and which files a build sees. Never runs anything."""

import dataclasses
import json
import os
import re
import shlex


@dataclasses.dataclass
class Instruction:
    """One instruction: `RUN` with `["--mount=…"]` and the rest as it stands."""

    name: str
    options: list[str]
    rest: str

    def option(self, name):
        """The values of `--name=value`, in order."""
        return [each.partition("=")[2] for each in self.options if each.startswith(f"--{name}=")]

    def words(self):
        """The arguments: of the exec form, or split as a shell would."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


@dataclasses.dataclass
class Stage:
    """What stands between a FROM and the next."""

    base: str
    name: str | None
    instructions: list[Instruction]

    def last(self, name):
        """The instruction of this name that counts: the last one; None where there is none."""
        found = [each for each in self.instructions if each.name == name]
        return found[-1] if found else None


def stages(text):
    """The stages of a Dockerfile, in order."""
    found = []
    for each in _instructions(text):
        if each.name == "FROM":
            base, *alias = each.words()
            found.append(Stage(base, alias[1] if alias else None, []))
        elif not found:
            raise ValueError(f"{each.name} before the first FROM")
        else:
            found[-1].instructions.append(each)
    return found


def _instructions(text):
    joined = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not line.strip():
            continue
        joined += line
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        name, _, rest = joined.strip().partition(" ")
        joined = ""
        options = []
        while (option := re.match(r"\s*(--[a-z-]+=\S+)\s+", rest)) is not None:
            options.append(option[1])
            rest = rest[option.end() :]
        yield Instruction(name.upper(), options, re.sub(r"\s+", " ", rest.strip()))
    if joined:
        raise ValueError("the last line goes on")


def context(folder, ignore):
    """The files of a build's context, relative to `folder`: all that a `.dockerignore` with this text leaves in."""
    lines = [line.strip() for line in ignore.splitlines()]
    patterns = [_pattern(line) for line in lines if line and not line.startswith("#")]

    def left_out(path):
        return any(pattern.fullmatch(path) for pattern in patterns)

    found = []
    for place, folders, files in os.walk(folder):
        here = os.path.relpath(place, folder)
        folders[:] = sorted(each for each in folders if not left_out(os.path.normpath(f"{here}/{each}")))
        found += [path for each in sorted(files) if not left_out(path := os.path.normpath(f"{here}/{each}"))]
    return found


def _pattern(line):
    if line.startswith("!"):
        raise ValueError(f"exceptions are not read: {line}")
    parts = [re.escape(each).replace(r"\*", "[^/]*") for each in line.strip("/").split("**/")]
    return re.compile("(?:.*/)?".join(parts))
