"""Owns how a Python client driver runs and reports, and the tour that the clients of both `mcp` generations walk through
`server-everything`. Results are compared as the plain JSON that came over the wire, so that the generations' differing
names of attributes do not matter. Never opens a connection.
"""

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

STEP_LIMIT_S = 20
"""Longest time that a step may take, in seconds."""

TEXT_URI = "demo://resource/dynamic/text/7"


class Tour:
    """Runs named steps and remembers how each ended."""

    def __init__(self) -> None:
        self.results: dict[str, str] = {}

    async def step(self, name: str, run: Callable[[], Awaitable[Any]]) -> None:
        """Runs one step."""
        try:
            with anyio.fail_after(STEP_LIMIT_S):
                await run()
            self.results[name] = "ok"
        except Exception as error:
            self.results[name] = reason(error)

    def finish(self) -> None:
        """Prints `{step: "ok" | error}` and ends the process: 0 when every step went well."""
        print(json.dumps(self.results))
        sys.exit(any(result != "ok" for result in self.results.values()))


class Mailbox:
    """Holds what the server said unasked until a step wants it."""

    def __init__(self) -> None:
        self._letters: list[dict[str, Any]] = []
        self._arrived = anyio.Event()

    def push(self, letter: dict[str, Any]) -> None:
        """Takes in a notification."""
        self._letters.append(letter)
        self._arrived.set()
        self._arrived = anyio.Event()

    async def take(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first notification for which `wanted` holds; a step's limit ends a vain wait."""
        while True:
            arrived = self._arrived
            for letter in self._letters:
                if wanted(letter):
                    self._letters.remove(letter)
                    return letter
            await arrived.wait()


def stdio_command(target: str) -> list[str]:
    """The command that a tour's target is, when it is a JSON array and no URL."""
    return json.loads(target) if target.startswith("[") else []


def check(held: bool, message: str, got: Any) -> None:
    """Raises with `message` and what was got unless `held`."""
    if not held:
        raise AssertionError(f"{message}; got {got!r}"[:500])


def reason(error: BaseException) -> str:
    """What went wrong, with what is inside a group of errors."""
    inner = "".join(f"; {reason(part)}" for part in getattr(error, "exceptions", ()))
    return f"{type(error).__name__}: {error}{inner}"


def wire(model: Any) -> dict[str, Any]:
    """A result as it came over the wire."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def first_text(answer: Any) -> str:
    """The first text of a tool's answer."""
    return next(part["text"] for part in wire(answer)["content"] if part["type"] == "text")


async def everything(tour: Tour, client: Any, mailbox: Mailbox, types: Any, uri: Callable[[str], Any]) -> None:
    """Walks through `@modelcontextprotocol/server-everything`. `client` has the methods of `mcp`'s client; `uri` makes its
    type of URI."""

    async def tools_list() -> None:
        names = [tool["name"] for tool in wire(await client.list_tools())["tools"]]
        for name in ("echo", "get-sum", "trigger-long-running-operation"):
            check(name in names, f"{name} missing", names)

    async def echo() -> None:
        # Every kind of character must come back as it went, and more of them than fit into one TLS record.
        message = '"\\\x00\x1f\u2028é漢😀' * 2000
        check(first_text(await client.call_tool("echo", {"message": message})) == f"Echo: {message}", "another text", None)

    async def structured() -> None:
        answer = wire(await client.call_tool("get-structured-content", {"location": "Chicago"}))
        check("temperature" in answer["structuredContent"], "no structure", answer)

    async def parallel() -> None:
        async def add(n: int) -> None:
            answer = first_text(await client.call_tool("get-sum", {"a": n, "b": 1000}))
            check(str(n + 1000) in answer, f"sum of {n}", answer)

        async with anyio.create_task_group() as group:
            for n in range(32):
                group.start_soon(add, n)

    async def progress() -> None:
        seen: list[float] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        arguments = {"duration": 0.5, "steps": 5}
        answer = await client.call_tool("trigger-long-running-operation", arguments, progress_callback=on_progress)
        check("completed" in first_text(answer), "not completed", answer)
        check(len(seen) >= 4 and seen == sorted(seen), "progress out of order", seen)

    async def prompts() -> None:
        names = [prompt["name"] for prompt in wire(await client.list_prompts())["prompts"]]
        check("args-prompt" in names, "no args-prompt", names)
        answer = wire(await client.get_prompt("args-prompt", {"city": "Oslo"}))
        check("Oslo" in answer["messages"][0]["content"]["text"], "argument lost", answer)

    async def completion() -> None:
        ref = types.PromptReference(type="ref/prompt", name="completable-prompt")
        answer = wire(await client.complete(ref, {"name": "department", "value": "S"}))
        check(answer["completion"]["values"] == ["Sales", "Support"], "wrong completions", answer)

    async def resources() -> None:
        check(len(wire(await client.list_resources())["resources"]) > 0, "no resources", None)
        templates = wire(await client.list_resource_templates())["resourceTemplates"]
        check(len(templates) >= 2, "templates missing", templates)
        contents = wire(await client.read_resource(uri(TEXT_URI)))["contents"]
        check(contents[0]["text"].startswith("Resource 7"), "wrong content", contents)

    async def subscribe() -> None:
        await client.subscribe_resource(uri(TEXT_URI))
        await client.call_tool("toggle-subscriber-updates", {})
        await mailbox.take(lambda letter: letter.get("method") == "notifications/resources/updated")
        await client.call_tool("toggle-subscriber-updates", {})
        await client.unsubscribe_resource(uri(TEXT_URI))

    async def logging() -> None:
        await client.set_logging_level("debug")
        await client.call_tool("toggle-simulated-logging", {})
        await mailbox.take(lambda letter: letter.get("method") == "notifications/message")
        await client.call_tool("toggle-simulated-logging", {})

    async def sampling() -> None:
        answer = await client.call_tool("trigger-sampling-request", {"prompt": "hello", "maxTokens": 20})
        check("Sampled by the client" in first_text(answer), "no sample", answer)

    async def elicitation() -> None:
        answer = await client.call_tool("trigger-elicitation-request", {})
        check("Ada" in json.dumps(wire(answer)), "no form", answer)

    async def roots() -> None:
        answer = await client.call_tool("get-roots-list", {})
        check("file:///tour" in first_text(answer), "no roots", answer)

    await tour.step("ping", client.send_ping)
    await tour.step("tools/list", tools_list)
    await tour.step("tools/call echo", echo)
    await tour.step("tools/call structured", structured)
    await tour.step("tools/call in parallel", parallel)
    await tour.step("progress", progress)
    await tour.step("prompts", prompts)
    await tour.step("completion", completion)
    await tour.step("resources", resources)
    await tour.step("resources/subscribe", subscribe)
    await tour.step("logging", logging)
    await tour.step("sampling", sampling)
    await tour.step("elicitation", elicitation)
    await tour.step("roots", roots)
