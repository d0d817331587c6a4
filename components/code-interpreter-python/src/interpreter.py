"""Runs code with its output, last value, errors and files caught."""

import ast
import base64
import builtins
import io
import linecache
import random
import sys
import traceback

import clock
import library  # noqa: F401  what code may import has to be loaded when the component is built
import memory_files


def decoded(content: str) -> bytes:
    """The bytes of a file as arguments have them."""
    if content.startswith("base64:"):
        return base64.b64decode(content.removeprefix("base64:"), validate=True)
    return content.encode()


def encoded(content: bytes) -> str:
    """A file's bytes as text where they are, else as base64."""
    try:
        text = content.decode()
        if not text.startswith("base64:"):
            return text
    except UnicodeDecodeError:
        pass
    return "base64:" + base64.b64encode(content).decode()


def run(code: str, files: dict[str, bytes], seed: int, now, most: int) -> dict:
    """`{stdout, stderr, value?, error?, files?}`; files are those that the code wrote or changed."""
    random.seed(seed)
    clock.install(now)
    folder = memory_files.Folder(files)
    folder.install()
    out, err = io.StringIO(), io.StringIO()
    real = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    result = {}
    linecache.cache["code.py"] = len(code), None, code.splitlines(keepends=True), "code.py"
    try:
        value = evaluate(code)
        if value is not None:
            result["value"] = cut(repr(value), most)
    except SystemExit as leave:
        if leave.code not in (None, 0):
            result["error"] = f"SystemExit: {leave.code}"
    except BaseException as error:  # whatever it is, the model reads it
        # What went wrong stands at the end.
        result["error"] = explained(error)[-most:]
    finally:
        sys.stdout, sys.stderr = real
    written = folder.changed()
    if written:
        result["files"] = {name: encoded(content) for name, content in written.items()}
    return {"stdout": cut(out.getvalue(), most), "stderr": cut(err.getvalue(), most), **result}


def evaluate(code: str):
    """Executes the code; the value is that of a last expression, as in a notebook."""
    names = {"__name__": "__main__", "__builtins__": builtins}
    tree = ast.parse(code, "code.py")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "code.py", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "code.py", "eval"), names)


def explained(error: BaseException) -> str:
    """The traceback without this module's own frames."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == "code.py"]
    lines = [f"  line {f.lineno}, in {f.name}: {f.line}\n" for f in frames[-10:]]
    return "".join(lines) + "".join(traceback.format_exception_only(error)).strip()


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n[cut after {most} of {len(text)} characters]"
