"""`code-interpreter-python` native: the component's own interpreter.py on the machine's Python.

It changes the process that it runs in, so each call has one of its own: a fork of this one, which has loaded the library, as
the component has when it is built."""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../../components/code-interpreter-python/src"))
sys.dont_write_bytecode = True
try:
    import _pydatetime  # noqa: F401  from Python 3.12 on a module of its own
except ImportError:
    import datetime

    sys.modules["_pydatetime"] = datetime
import interpreter

ARGUMENTS = json.dumps({"code": "print('hi')\nimport math\nmath.factorial(20)"})
WANTED = {"stdout": "hi\n", "stderr": "", "value": "2432902008176640000"}


def answer() -> str:
    result = interpreter.run(json.loads(ARGUMENTS)["code"], {}, 7, lambda: 1_767_225_600_000, 20_000)
    return json.dumps(result, ensure_ascii=False)


def call() -> tuple[float, float]:
    """Microseconds of wall time, and of processor time of both processes."""
    began, worked = time.perf_counter(), time.thread_time()
    child = os.fork()
    if child == 0:
        right = json.loads(answer()) == WANTED
        os._exit(0 if right else 1)
    _, status, used = os.wait4(child, 0)
    assert status == 0, "a wrong answer"
    wall, parent = time.perf_counter() - began, time.thread_time() - worked
    return wall * 1e6, (parent + used.ru_utime + used.ru_stime) * 1e6


if __name__ == "__main__":
    calls = int(os.environ.get("STOCKADE_LATENCY_CALLS", "1"))
    call()
    measured = [call() for _ in range(calls)]
    walls = sorted(wall for wall, _ in measured)
    p50, p99 = (walls[int((calls - 1) * share)] for share in (0.5, 0.99))
    processor = sum(used for _, used in measured) / calls
    print(json.dumps({"latency": "code-interpreter-python", "p50_us": p50, "p99_us": p99, "cpu_us": processor}))
