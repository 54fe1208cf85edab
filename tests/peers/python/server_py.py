"""An MCP server on Python's `mcp`, of whichever generation runs it: `server_py.py stdio`, or `server_py.py http|sse|ws PORT` on
127.0.0.1; port 0 takes a free one, and a line `ready PORT` says which. `sse` and `ws` are of 1.x. Ends when its standard input does.
"""

import os
import socket
import sys
import threading
from typing import Any

import anyio
import uvicorn
from mcp import types

try:
    from mcp.server.mcpserver import Context, MCPServer
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("python-fixture")


@server.tool()
def echo(text: str) -> str:
    """Gives a text back."""
    return text


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("it fails")


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Tells its progress in steps."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps)
        # Clients forget who waits for progress with the response, and would lose what comes together with it.
        await anyio.sleep(0.02)
    return f"counted to {steps}"


@server.tool()
async def ask(question: str, ctx: Context) -> str:
    """Has the client's model answer."""
    content = types.TextContent(type="text", text=question)
    message = types.SamplingMessage(role="user", content=content)
    answer: Any = await ctx.session.create_message(messages=[message], max_tokens=10)
    return answer.content.text


@server.resource("note://{name}")
def note(name: str) -> str:
    """A note of any name."""
    return f"the note {name}"


@server.prompt()
def greet(name: str) -> str:
    """Greets."""
    return f"Hello, {name}!"


def app(kind: str) -> Any:
    """The ASGI application of a transport."""
    if kind == "http":
        return server.streamable_http_app()
    if kind == "sse":
        return server.sse_app()
    from mcp.server.websocket import websocket_server

    async def serve_socket(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        async with websocket_server(scope, receive, send) as streams:
            lowlevel = server._mcp_server
            await lowlevel.run(streams[0], streams[1], lowlevel.create_initialization_options())

    return serve_socket


def end_with_input() -> None:
    """Ends the process when its standard input is closed: no orphan outlives its test."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def main(kind: str, port: str = "0") -> None:
    """Serves until the process ends."""
    if kind == "stdio":
        server.run("stdio")
        return
    threading.Thread(target=end_with_input, daemon=True).start()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(port)))
    listener.listen(128)
    print(f"ready {listener.getsockname()[1]}", flush=True)
    # A gateway keeps its connections for minutes; the server must not be the one that closes them.
    config = uvicorn.Config(app(kind), log_level="error", timeout_keep_alive=300, lifespan="on" if kind == "http" else "off")
    anyio.run(lambda: uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main(*sys.argv[1:])
