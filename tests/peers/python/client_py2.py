"""Drives the client of Python's `mcp` 2.x: `client_py2.py everything|modern|auto-everything|auto-modern URL`. The `auto` tours let
the client find the server's era by itself. Instead of the URL, a JSON array is the command of a stdio server. Prints one JSON object, `{step: "ok" | error}`; exits with 0 when every step went
well. A CA of the tests' own is trusted by SSL_CERT_FILE.
"""

import json
import os
import ssl
import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError, types
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import PromptsListChanged, ResourceUpdated, ToolsListChanged

from tour import Mailbox, Tour, check, everything, first_text, reason, stdio_command, wire

MODES = {"everything": "legacy", "modern": "2026-07-28", "auto-everything": "auto", "auto-modern": "auto"}
"""How each tour negotiates the revision."""

WATCHED = "test://watched-resource"


async def sample(context: Any, params: Any) -> types.CreateMessageResult:
    """Answers for the model."""
    content = types.TextContent(type="text", text="Sampled by the client")
    return types.CreateMessageResult(role="assistant", content=content, model="test-model", stop_reason="endTurn")


async def elicit(context: Any, params: Any) -> types.ElicitResult:
    """Answers for the user."""
    return types.ElicitResult(action="accept", content={"name": "Ada", "ok": True, "color": "green", "context": "tour"})


async def roots(context: Any) -> types.ListRootsResult:
    """The roots of the tour."""
    return types.ListRootsResult(roots=[types.Root(uri="file:///tour", name="Tour root")])


async def modern(tour: Tour, client: Client, mailbox: Mailbox) -> None:
    """Walks through the modern fixture."""

    async def tools() -> None:
        tools = {tool["name"]: tool for tool in wire(await client.list_tools())["tools"]}
        schema = tools["json_schema_2020_12_tool"]["inputSchema"]
        check(schema["$defs"]["address"]["$anchor"] == "addressDef", "schema changed", schema)
        check("simple text" in first_text(await client.call_tool("test_simple_text", {})), "another text", None)

    async def mirrored() -> None:
        # Values that need the base64 form in their header, and ones that do not.
        for region in ("us-east1", " padded ", "Zürich 漢字", "=?base64?literal?="):
            arguments = {"region": region, "priority": 42, "verbose": False, "query": "SELECT 1"}
            answer = first_text(await client.call_tool("test_custom_headers", arguments))
            check(json.loads(answer) == arguments, "arguments changed", answer)

    async def failing() -> None:
        check(wire(await client.call_tool("test_error_handling", {}))["isError"], "no error", None)
        try:
            await client.call_tool("no-such-tool", {})
        except MCPError as error:
            check(error.error.code == -32602, "another error", error)
            return
        raise AssertionError("no refusal")

    async def progress() -> None:
        seen: list[float] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
        check(seen == [0, 50, 100], "progress out of order", seen)

    async def logging() -> None:
        await client.call_tool("test_logging_tool", {})
        await mailbox.take(lambda letter: letter.get("data") == "Tool execution completed")

    async def prompts() -> None:
        check(len(wire(await client.list_prompts())["prompts"]) == 5, "prompts missing", None)
        answer = wire(await client.get_prompt("test_prompt_with_arguments", {"arg1": "one", "arg2": "two"}))
        check("arg2='two'" in answer["messages"][0]["content"]["text"], "argument lost", answer)

    async def resources() -> None:
        check(len(wire(await client.list_resources())["resources"]) == 3, "resources missing", None)
        contents = wire(await client.read_resource("test://template/42/data"))["contents"]
        check(json.loads(contents[0]["text"])["id"] == "42", "wrong content", contents)

    async def completion() -> None:
        ref = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
        answer = wire(await client.complete(ref, {"name": "arg1", "value": "par"}))
        check(answer["completion"]["values"] == ["paris", "park", "party"], "wrong completions", answer)

    async def input_for_tools() -> None:
        for name, expected in (
            ("elicitation", "Hello, Ada!"),
            ("sampling", "Sampled by the client"),
            ("list_roots", "file:///tour"),
            ("request_state", "state-ok"),
            ("multiple_inputs", "Sampled by the client Ada: 1 root(s)"),
            ("multi_round", "Ada likes green"),
        ):
            answer = first_text(await client.call_tool(f"test_input_required_result_{name}", {}))
            check(expected in answer, name, answer)

    async def input_for_prompt() -> None:
        answer = wire(await client.get_prompt("test_input_required_result_prompt"))
        check(answer["messages"][0]["content"]["text"] == "Context: tour", "context lost", answer)

    async def listen() -> None:
        async with client.listen(tools_list_changed=True) as tools, client.listen(
            prompts_list_changed=True, resource_subscriptions=[WATCHED]
        ) as others:
            for tool in ("test_trigger_prompt_change", "test_trigger_tool_change", "test_update_watched_resource"):
                await client.call_tool(tool, {})
            check(await anext(tools) == ToolsListChanged(), "another event", None)
            check(await anext(others) == PromptsListChanged(), "another event", None)
            check(await anext(others) == ResourceUpdated(uri=WATCHED), "another event", None)

    async def cancellation() -> None:
        key = f"tour-py-{os.getpid()}"
        async with anyio.create_task_group() as group:

            async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                group.cancel_scope.cancel()

            await client.call_tool("test_wait", {"key": key}, progress_callback=on_progress)
        while first_text(await client.call_tool("test_was_cancelled", {"key": key})) != "cancelled":
            await anyio.sleep(0.05)

    for name, run in (
        ("tools", tools),
        ("tools/call with mirrored arguments", mirrored),
        ("tools/call failing", failing),
        ("progress", progress),
        ("logging", logging),
        ("prompts", prompts),
        ("resources", resources),
        ("completion", completion),
        ("input for tools", input_for_tools),
        ("input for a prompt", input_for_prompt),
        ("subscriptions/listen", listen),
        ("cancellation reaches the server", cancellation),
    ):
        await tour.step(name, run)


async def main(name: str, url: str) -> None:
    tour = Tour()
    mailbox = Mailbox()
    ended: list[int] = []
    stdio = stdio_command(url)
    is_modern = name.endswith("modern")

    async def remember(response: httpx2.Response) -> None:
        if response.request.method == "DELETE":
            ended.append(response.status_code)

    async def on_message(message: Any) -> None:
        if not isinstance(message, Exception):
            mailbox.push(wire(message))

    async def on_log(params: Any) -> None:
        mailbox.push(wire(params))

    try:
        async with AsyncExitStack() as stack:
            http = httpx2.AsyncClient(
                timeout=httpx2.Timeout(30, read=300),
                verify=ssl.create_default_context(),
                event_hooks={"response": [remember]},
            )
            await stack.enter_async_context(http)
            transport: Any = (
                stdio_client(StdioServerParameters(command=stdio[0], args=stdio[1:]))
                if stdio
                else streamable_http_client(url, http_client=http)
            )
            client = Client(
                transport,
                mode=MODES[name],
                sampling_callback=sample,
                elicitation_callback=elicit,
                list_roots_callback=roots,
                message_handler=on_message,
                logging_callback=on_log,
                log_level="info",
            )
            await stack.enter_async_context(client)
            expected = "2026-07-28" if is_modern else "2025-11-25"
            check(client.protocol_version == expected, "another revision", client.protocol_version)
            tour.results["connect"] = "ok"
            if is_modern:
                await modern(tour, client, mailbox)
            else:
                await everything(tour, client, mailbox, types, str)
    except Exception as error:
        tour.results["close" if "connect" in tour.results else "connect"] = reason(error)

    async def session_end() -> None:
        check(is_modern or bool(stdio) or (len(ended) == 1 and ended[0] in (200, 202, 204)), "session not ended", ended)

    await tour.step("session end", session_end)
    tour.finish()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:3])
