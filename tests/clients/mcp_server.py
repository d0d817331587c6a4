"""A server of the official MCP SDK that asks for a token: `mcp_server.py json|stream`. Prints its port."""
import socket
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("peer")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two integers."""
    return a + b


@server.tool(name="fs.read")
def read(path: str) -> str:
    """Reads a file."""
    return f"content of {path}"


@server.tool()
def fails() -> str:
    """Always fails."""
    raise ToolError("no luck")


app = server.streamable_http_app(json_response=sys.argv[1] == "json")


async def guarded(scope, receive, send):
    if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != b"Bearer hunter2":
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"a token, please"})
        return
    await app(scope, receive, send)


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(guarded, log_level="warning")).run(sockets=[listener])
