"""Injects a fault into any Python process that finds this folder on its PYTHONPATH: see `fault` in conftest.py.

Python imports this module before anything else. It watches what the process does to files below a folder (by Python's
audit events: opening for writing, renaming, removing, making folders), writes each to a log, and at the one that was
asked for kills the process, as a power cut would. It can also limit how large a file may grow.
"""

import json
import os
import resource
import signal
import sys

FAULT = json.loads(os.environ.get("LIT_PWM_TEST_FAULT", "{}"))
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PATHS = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.link": 1, "os.symlink": 1, "os.truncate": 0}


def changed(event, args):
    """The path that an audit event is about to change, or None."""
    if event == "open":
        path, mode, flags = args
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & WRITES)
        return path if writes else None
    return args[PATHS[event]] if event in PATHS else None


class Watch:
    """Counts changes below the folder, in the first process that was started alone."""

    def __init__(self):
        self.root, self.log = os.path.realpath(FAULT["root"]), FAULT["log"]
        self.process, self.count, self.busy, self.last = os.getpid(), 0, False, None

    def __call__(self, event, args):
        if (event != "open" and event not in PATHS) or self.busy or os.getpid() != self.process:
            return
        path = changed(event, args)
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        path = os.path.realpath(os.fsdecode(os.path.abspath(path)))
        if not path.startswith(self.root + os.sep) or path.endswith(".pyc") or FAULT.get("event") not in (None, event):
            return
        if (event, path) == self.last or (event == "os.mkdir" and os.path.isdir(path)):
            return  # the same once more, or nothing
        self.busy, self.last = True, (event, path)  # what follows is no event of the program
        self.count += 1
        line = f"{self.count} {event} {os.path.relpath(path, self.root)}\n"
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)
        if self.count == FAULT.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        self.busy = False


if "largest_file" in FAULT:  # Python ignores SIGXFSZ, so that writes beyond fail with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (FAULT["largest_file"],) * 2)
if "root" in FAULT and not os.environ.get("LIT_PWM_TEST_FAULT_BUSY"):
    os.environ["LIT_PWM_TEST_FAULT_BUSY"] = "1"  # for processes that this one starts
    sys.addaudithook(Watch())
