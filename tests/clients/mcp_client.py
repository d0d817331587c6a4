"""The official MCP client against a Stockade host's own MCP server."""
import asyncio
import os

import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

URL, KEY = os.environ["STOCKADE_URL"], os.environ["STOCKADE_API_KEY"]


async def main():
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=120)
    async with streamable_http_client(f"{URL}/mcp", http_client=http) as streams, ClientSession(*streams[:2]) as session:
        begun = await session.initialize()
        assert begun.server_info.name == "stockade", begun
        tools = {t.name: t for t in (await session.list_tools()).tools}
        assert {"calculator", "mcp-peer__add"} <= set(tools), list(tools)
        assert tools["calculator"].input_schema["required"] == ["expression"], tools["calculator"]
        answer = await session.call_tool("calculator", {"expression": "0.1 + 0.2"})
        assert answer.content[0].text == "0.3" and not answer.is_error, answer
        answer = await session.call_tool("mcp-peer__add", {"a": 2, "b": 3})
        assert answer.content[0].text == "5", answer
        answer = await session.call_tool("calculator", {"expression": "1 / 0"})
        assert answer.is_error and "division by zero" in answer.content[0].text, answer
        await session.send_ping()
    print("all checks passed")


asyncio.run(main())
