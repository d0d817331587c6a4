"""Time from the host: the component has no clock of its own, and a call that asked for one would end it."""

import sys
import time

import _pydatetime


def install(now):
    """`now()` gives milliseconds since 1970. The time zone is UTC, and sleeping takes no time."""
    # The usual module asks the operating system; this one, its twin in Python, asks `time`.
    sys.modules["datetime"] = _pydatetime
    gmtime, strftime, asctime = time.gmtime, time.strftime, time.asctime
    for name in ["time", "monotonic", "perf_counter", "process_time", "thread_time"]:
        setattr(time, name, lambda: now() / 1000)
        setattr(time, name + "_ns", lambda: now() * 1_000_000)
    time.sleep = lambda _: None
    time.gmtime = time.localtime = lambda seconds=None: gmtime(now() / 1000 if seconds is None else seconds)
    time.strftime = lambda form, moment=None: strftime(form, moment or time.gmtime())
    time.ctime = lambda seconds=None: asctime(time.gmtime(seconds))
    time.asctime = lambda moment=None: asctime(moment or time.gmtime())
