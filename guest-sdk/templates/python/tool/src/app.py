"""Adds two numbers. The host makes a fresh instance for every call."""

import json

from wit_world import exports
from wit_world.imports.types import ToolOutput, ToolSpec

PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}


class Tool(exports.Tool):
    def describe(self) -> ToolSpec:
        return ToolSpec(name="{{crate}}", description="Adds two numbers.", parameters=json.dumps(PARAMETERS))

    async def call(self, arguments: str) -> ToolOutput:
        try:
            numbers = json.loads(arguments)
            total = numbers["a"] + numbers["b"]
        except (KeyError, TypeError, ValueError) as mistake:
            # The model can read what was wrong and try again.
            return ToolOutput(content=f"arguments: {mistake!r}", is_error=True)
        return ToolOutput(content=json.dumps(total), is_error=False)
