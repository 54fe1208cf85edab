"""An MCP server over WebSocket, on the transport of Python's `mcp` 1.x: each socket is one process of the stdio server whose
command is given. Prints `ready <port>`. Never looks into a message.
"""

import socket
import sys

import anyio
import uvicorn
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.server.websocket import websocket_server

COMMAND = sys.argv[1:]


async def pass_on(source, target) -> None:
    """Passes messages on until either end closes."""
    try:
        async for message in source:
            if not isinstance(message, Exception):
                await target.send(message)
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):
        pass


async def app(scope, receive, send) -> None:
    """Serves one socket."""
    if scope["type"] != "websocket":
        return
    server = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:])
    async with stdio_client(server) as (from_server, to_server):
        async with websocket_server(scope, receive, send) as (from_client, to_client):
            async with anyio.create_task_group() as group:
                group.start_soon(pass_on, from_server, to_client)
                await pass_on(from_client, to_server)
                group.cancel_scope.cancel()


async def main() -> None:
    """Listens on a free port until the process is ended."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(f"ready {listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, lifespan="off", log_level="warning")
    await uvicorn.Server(config).serve(sockets=[listener])


anyio.run(main)
