"""Drives the client of Python's `mcp` 1.x: `client_py1.py everything URL`, over HTTP, SSE or WebSocket, or `everything-h2` to do the
same over HTTP/2; instead of the URL, a JSON array is the command of a stdio server. Prints one JSON object, `{step: "ok" |
error}`; exits with 0 when every step went well. A CA of the tests' own is trusted by SSL_CERT_FILE.
"""

import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import anyio
import httpx
from mcp import ClientSession, McpError, types
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.websocket import websocket_client
from pydantic import AnyUrl

from tour import Mailbox, Tour, check, everything, reason, stdio_command, wire


SESSION_META = "mcp-gateway/sessionId"
"""Where a gateway tells the id of a session that was opened over a socket."""


async def sample(context: Any, params: Any) -> types.CreateMessageResult:
    """Answers for the model."""
    content = types.TextContent(type="text", text="Sampled by the client")
    return types.CreateMessageResult(role="assistant", content=content, model="test-model", stopReason="endTurn")


async def elicit(context: Any, params: Any) -> types.ElicitResult:
    """Answers for the user."""
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def roots(context: Any) -> types.ListRootsResult:
    """The roots of the tour."""
    return types.ListRootsResult(roots=[types.Root(uri=AnyUrl("file:///tour"), name="Tour root")])


async def main(url: str, http2: bool) -> None:
    tour = Tour()
    mailbox = Mailbox()
    ended: list[int] = []
    ends: list[Any] = []
    stdio = stdio_command(url)
    versions: set[str] = set()

    async def remember(response: httpx.Response) -> None:
        versions.add(response.http_version)
        if response.request.method == "DELETE":
            ended.append(response.status_code)

    async def finish() -> None:
        for end in ends:
            await end()

    async def listen(message: Any) -> None:
        if isinstance(message, types.ServerNotification):
            mailbox.push(wire(message))

    try:
        async with AsyncExitStack() as stack:
            timeout = httpx.Timeout(30, read=300)
            http = httpx.AsyncClient(http2=http2, timeout=timeout, event_hooks={"response": [remember]})
            await stack.enter_async_context(http)
            stack.push_async_callback(finish)
            over_socket = url.startswith("wss:")
            over_sse = not stdio and httpx.URL(url).path.startswith("/sse")
            opened: list[str] = []
            if stdio:
                parameters = StdioServerParameters(command=stdio[0], args=stdio[1:])
                streams: Any = await stack.enter_async_context(stdio_client(parameters))
            elif over_sse:

                def make(**options: Any) -> httpx.AsyncClient:
                    return httpx.AsyncClient(http2=http2, event_hooks={"response": [remember]}, **options)

                streams = await stack.enter_async_context(
                    sse_client(url, on_session_created=opened.append, httpx_client_factory=make)
                )
            elif over_socket:
                streams = await stack.enter_async_context(websocket_client(url))
            else:
                streams = await stack.enter_async_context(streamable_http_client(url, http_client=http))
            client = await stack.enter_async_context(
                ClientSession(
                    streams[0],
                    streams[1],
                    sampling_callback=sample,
                    elicitation_callback=elicit,
                    list_roots_callback=roots,
                    message_handler=listen,
                )
            )

            async def connect() -> None:
                hello = await client.initialize()
                check(hello.protocolVersion == "2025-11-25", "another revision", hello)
                check("everything" in hello.serverInfo.name, "wrong server", hello)
                if stdio:
                    return
                if over_sse:
                    session = opened[0] if opened else None
                elif over_socket:
                    session = (hello.meta or {}).get(SESSION_META)
                else:
                    session = streams[2]()
                check(session is not None, "no session id", hello)
                if over_sse:

                    async def see_end() -> None:
                        # Called when the stream is closed: its session ends with it.
                        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
                        with anyio.fail_after(20):
                            while (await http.post(url, params={"sessionId": session}, json=body)).status_code != 404:
                                await anyio.sleep(0.01)
                        ended.append(200)

                    ends.append(see_end)
                elif over_socket:

                    async def end() -> None:
                        end_url = url.replace("wss:", "https:").replace("/ws", "/mcp")
                        await http.delete(end_url, headers={"mcp-session-id": session})

                    stack.push_async_callback(end)

            async def give_up() -> None:
                try:
                    arguments = {"duration": 5, "steps": 50}
                    await client.call_tool("trigger-long-running-operation", arguments, timedelta(seconds=0.3))
                except McpError as error:
                    check("Timed out" in str(error), "another error", error)
                    return
                raise AssertionError("a call that was given up was answered")

            await tour.step("connect", connect)
            if tour.results["connect"] == "ok":
                await everything(tour, client, mailbox, types, AnyUrl)
                await tour.step("call given up", give_up)
                await tour.step("ping after a call given up", client.send_ping)

        async def session_end() -> None:
            check(bool(stdio) or len(ended) == 1 and ended[0] in (200, 202, 204), "session not ended", ended)

        async def version() -> None:
            expected = {"HTTP/2" if http2 else "HTTP/1.1"}
            check(bool(stdio) or url.startswith("wss:") or versions == expected, "another version of HTTP", versions)

        await tour.step("session end", session_end)
        await tour.step("version of HTTP", version)
    except Exception as error:
        tour.results["close"] = reason(error)
    tour.finish()


if __name__ == "__main__":
    anyio.run(main, sys.argv[2], sys.argv[1].endswith("-h2"))
