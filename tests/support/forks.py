"""Processes without their imports: one Python imports everything once, and the processes of tests are forks of it.

Imports were half of all that the tests did. The rest is as after `python -m …`: a pid, arguments, an environment and
settings of its own, its signals and its end. Commands that are started anew are in tests/cli.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import multiprocessing.connection
import os
import pkgutil
import runpy
import selectors
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict

from typing_extensions import override

SOCKET = "RUNLEDGER_TEST_FORKS"
# Modules that read no settings when they are imported, and what single actions import when they need it.
PACKAGES = ("app.routers", "app.control", "app.domain", "app.outbound", "app.webhooks", "app.runs")
MODULES = (
    *("app.cli.serving", "app.worker_main", "fastapi_offline", "uvicorn.protocols.http.h11_impl", "uvloop"),
    *("anthropic", "deepl", "google.genai", "gspread", "openpyxl", "PIL.Image", "pypdf"),
    *("feedparser", "simplemma", "spacy", "trafilatura", "wordllama"),
)


def are_possible() -> bool:
    return hasattr(os, "pidfd_open")


@contextlib.contextmanager
def served(path: Path) -> Generator[None]:
    """Forks are to be had at this socket, of a process that ends with the block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forks", str(listening.fileno())],
            cwd=Path(__file__).parents[2],
            env={**inherited(), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"},
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,
        )
    os.environ[SOCKET] = str(path)
    try:
        yield
    finally:
        del os.environ[SOCKET]
        process.communicate()


def inherited() -> dict[str, str]:
    """What processes of tests have of the environment that the tests are run in."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


class Fork(subprocess.Popen[bytes]):
    """`python -m …`, which is a child of another process."""

    def __init__(self, *arguments: str, cwd: Path, env: Mapping[str, str], output: IO[bytes]) -> None:
        self.args = [sys.executable, *arguments]
        self.stdin = self.stdout = self.stderr = None
        self.returncode: int | None = None
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.connect(os.environ[SOCKET])
        request = Request(arguments=list(arguments), cwd=str(cwd), env=dict(env))
        socket.send_fds(self._line, [json.dumps(request).encode()], [output.fileno()])
        self.pid = int(self._line.recv(16))

    @override
    def poll(self) -> int | None:
        return self._ended(0)

    @override
    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    @override
    def __exit__(self, *_: object) -> None:
        self.wait()
        self._line.close()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and multiprocessing.connection.wait([self._line], timeout):
            # Left there for other threads, which may wait too.
            self.returncode = int(self._line.recv(16, socket.MSG_PEEK))
        return self.returncode


class Request(TypedDict):
    """What a fork is to become."""

    arguments: list[str]
    cwd: str
    env: dict[str, str]


@dataclass
class Nest:
    """Where forks come from: `children` are those that have not ended, by the file that tells of their end."""

    listening: socket.socket
    selector: selectors.BaseSelector
    children: dict[int, tuple[int, socket.socket]]

    def serve(self) -> tuple[Request, int] | None:
        """Returns in each fork with what it is to do and where it writes; and `None` when the tests have ended."""
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        self.selector.register(self.listening, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj is not self.listening:
                    self.tell_end(key.fd)
                elif asked := self.fork():
                    return asked

    def fork(self) -> tuple[Request, int] | None:
        line, _ = self.listening.accept()
        request, [output], _, _ = socket.recv_fds(line, 1 << 20, 1)
        preload()
        pid = os.fork()
        if pid == 0:
            line.close()
            self.close()
            return json.loads(request), output
        os.close(output)
        line.send(str(pid).encode())
        end = os.pidfd_open(pid)
        self.children[end] = pid, line
        self.selector.register(end, selectors.EVENT_READ)
        return None

    def tell_end(self, end: int) -> None:
        pid, line = self.children.pop(end)
        self.selector.unregister(end)
        os.close(end)
        with line, contextlib.suppress(BrokenPipeError):
            line.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())

    def close(self) -> None:
        self.selector.close()
        self.listening.close()
        for end, (_, line) in self.children.items():
            os.close(end)
            line.close()


@functools.cache
def preload() -> None:
    gc.disable()
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}."):
            importlib.import_module(module.name)
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    gc.enable()


def become(request: Request, output: int) -> None:
    """Be `python -m …` in this directory and this environment, writing there."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:1] = [request["cwd"], *filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))]
    _, module, *sys.argv[1:] = request["arguments"]
    runpy._run_module_as_main(module)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]


def main() -> None:
    nest = Nest(socket.socket(fileno=int(sys.argv[1])), selectors.DefaultSelector(), {})
    asked = None
    with contextlib.suppress(KeyboardInterrupt):
        asked = nest.serve()
    if asked is not None:
        become(*asked)


if __name__ == "__main__":
    main()
