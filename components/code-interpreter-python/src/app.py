"""Runs a model's Python. The host makes a fresh instance for every call, so nothing outlives one."""

import json

import interpreter
from wit_world import exports
from wit_world.imports import config, system
from wit_world.imports.types import ToolOutput, ToolSpec

PARAMETERS = {
    "type": "object",
    "properties": {
        "code": {
            "type": "string",
            "description": "Python 3. Printed text and the value of a last expression are returned. "
            "The standard library is there as far as it needs no operating system; there is no network.",
        },
        "files": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Files that open() finds, by name: text, or `base64:` and the encoded bytes.",
        },
    },
    "required": ["code"],
}


class Tool(exports.Tool):
    def describe(self) -> ToolSpec:
        return ToolSpec(
            name="code_interpreter_python",
            description="Runs Python code and returns what it prints, the value of its last expression and the files it writes.",
            parameters=json.dumps(PARAMETERS),
        )

    async def call(self, arguments: str) -> ToolOutput:
        try:
            given = json.loads(arguments)
            code, files = given["code"], given.get("files") or {}
            if not isinstance(code, str) or not all(isinstance(v, str) for v in files.values()):
                raise TypeError("code and the contents of files are texts")
            files = {name: interpreter.decoded(content) for name, content in files.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as mistake:
            return ToolOutput(content=f"arguments: {mistake!r}", is_error=True)
        # The interpreter's own state was fixed when the component was built.
        seed = int.from_bytes(system.random(32), "big")
        most = json.loads(config.get()).get("max_output", 20_000)
        result = interpreter.run(code, files, seed, system.now, most)
        return ToolOutput(content=json.dumps(result, ensure_ascii=False), is_error="error" in result)
