"""Commands of jetscale started as forks of one process that has imported everything already.

Importing torch and Lightning takes five seconds of a core, a tiny run takes one. A fork of a warm process
runs ``python -m MODULE`` as a new interpreter would (own arguments, environment, folder and streams; the exit
handlers run), and can be killed like any other process. All test processes of a session share one warm
process: they speak to it through a socket, and it ends when the last of them has closed its connection.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numba
from filelock import FileLock

from tests.runs import quiet_environment

# what every run imports; `jetscale.train` itself must be left out: it is run as the main module
WARM = (
    "lightning", "hydra._internal.utils", "pandas", "jetscale.jets.evaluation", "jetscale.launch.hydra_setup",
    "jetscale.training.run", "jetscale.launch.rounds", "jetscale.launch.sweep_plan",
    "jetscale.launch.plan_table", "jetscale.analysis.answers.fit_table", "jetscale.prepare.stores",
    "jetscale.launch.single_run", "jetscale.launch.command_line", "jetscale.model.kernels.cpu.calls",
    "pyarrow.dataset", "torch.utils.serialization",
)  # fmt: skip


def warm_up() -> None:
    """Import what every run imports, and have numba load its extensions, a second in every process."""
    gc.disable()  # see tests/conftest.py
    # PyTorch would import it, no command on a CPU needs it, and frozen it prints what it "leaked" at the end
    sys.modules["triton"] = None  # type: ignore[assignment]  # as Python marks what is not there
    for name in WARM:
        importlib.import_module(name)
    numba.njit(lambda: 0)()
    gc.collect()
    gc.freeze()  # a fork that ends has nothing of this to collect
    gc.enable()


class WarmProcess:
    """A started command, with as much of `subprocess.Popen` as the tests use."""

    def __init__(self, server: WarmServer, pid: int, streams: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._streams = streams  # folder of what it prints

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.status_of(self.pid, 0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Exit status once it has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            left = 0.2 if deadline is None else min(0.2, max(deadline - time.monotonic(), 0.0))
            self.returncode = self._server.status_of(self.pid, left)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed on standard output and on standard error, once it has ended."""
        self.wait(timeout)
        return self.printed("stdout"), self.printed("stderr")

    def printed(self, stream: str) -> str:
        """What it printed so far on ``stdout`` or ``stderr``."""
        return (self._streams / stream).read_text()

    def send_signal(self, number: int) -> None:
        """Send it a signal if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.wait()


class WarmServer:
    """A connection to the warm process that listens on a socket; the first that finds none starts it.

    Parameters
    ----------
    address : path of the socket, the same in all processes that share the warm process
    """

    def __init__(self, address: Path) -> None:
        self._process: subprocess.Popen[bytes] | None = None  # if it was started here
        self._folder = tempfile.TemporaryDirectory()
        self._started = 0
        self._ended: dict[int, int] = {}
        self._unread = b""
        with FileLock(address.with_suffix(".lock")):
            self._connection = _connected(address) or self._serve(address)

    def _serve(self, address: Path) -> socket.socket:
        address.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(address)], env=quiet_environment(),
            cwd=Path(__file__).resolve().parents[1],
        )  # fmt: skip
        while (connection := _connected(address)) is None:
            assert self._process.poll() is None, "the warm process ended while it imported"
            time.sleep(0.02)
        return connection

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        cwd: Path,
        env: Mapping[str, str] | None = None,
        *,
        session: bool = False,
    ) -> WarmProcess:
        """Start ``python -m module arguments`` in `cwd`; with `session` as the leader of a process group.

        Where `module` is the path of a Python file, that program is run. The environment is a quiet one
        unless `env` is another.
        """
        self._started += 1
        streams = Path(self._folder.name, str(self._started))
        streams.mkdir()
        order = {
            "module": module, "arguments": [str(word) for word in arguments], "cwd": str(cwd),
            "env": dict(quiet_environment() if env is None else env), "streams": str(streams),
            "session": session,
        }  # fmt: skip
        self._connection.sendall(json.dumps(order).encode() + b"\n")
        return WarmProcess(self, self._answer(lambda answer: "started" in answer)["started"], streams)

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        cwd: Path,
        env: Mapping[str, str] | None = None,
        timeout: float = 300.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, started as by `start`, to its end."""
        process = self.start(module, arguments, cwd, env)
        try:
            printed = process.communicate(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess([module, *arguments], process.wait(), *printed)

    def status_of(self, pid: int, seconds: float) -> int | None:
        """Exit status of a child; None where it has not ended within so many seconds."""
        if pid not in self._ended:
            self._answer(lambda answer: answer.get("ended") == pid, seconds)
        return self._ended.get(pid)

    def close(self) -> None:
        """Say that nothing more is wanted; commands that still run go on."""
        self._connection.shutdown(socket.SHUT_RDWR)  # also for copies of it that forks have
        self._connection.close()
        if self._process is not None:
            self._process.wait()  # until the other test processes need it no more
        self._folder.cleanup()

    def _answer(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 120.0) -> dict[str, Any]:
        """The first answer that is `wanted`; exit statuses on the way are kept. Empty after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                answer: dict[str, Any] = json.loads(line)
                if "ended" in answer:
                    self._ended[answer["ended"]] = answer["status"]
                if wanted(answer):
                    return answer
                continue
            ready, _, _ = select.select([self._connection], [], [], max(deadline - time.monotonic(), 0.0))
            if not ready:
                return {}
            received = self._connection.recv(1 << 16)
            assert received, "the warm process has died"
            self._unread += received


def _connected(address: Path) -> socket.socket | None:
    """A connection to the warm process, or None where none listens."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


class _Serving:
    """The warm process: forks for every order that comes through one of its connections."""

    def __init__(self, address: str) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(address)
        self._listening.listen()
        self._unread: dict[socket.socket, bytes] = {}  # half an order, by connection
        self._running: dict[int, tuple[int, socket.socket]] = {}  # descriptor of a process: its id, for whom

    def order(self) -> dict[str, Any] | None:
        """Serve until no connection is left, and return None; in a forked child, its order."""
        while True:
            for ready in select.select([self._listening, *self._unread, *self._running], [], [])[0]:
                if isinstance(ready, int):
                    self._tell_of_the_end(ready)
                elif ready is self._listening:
                    self._unread[ready.accept()[0]] = b""
                elif (order := self._forked(ready)) is not None:
                    return order
            if not self._unread:
                return None

    def _forked(self, client: socket.socket) -> dict[str, Any] | None:
        """Fork for each order that has come through a connection; in the child, returns the order."""
        try:
            received = client.recv(1 << 20)
        except ConnectionResetError:  # it was killed
            received = b""
        *lines, rest = (self._unread.pop(client) + received).split(b"\n")
        if not received:
            client.close()
            return None
        self._unread[client] = rest
        for line in lines:
            child = os.fork()
            if child == 0:
                for connection in (self._listening, *self._unread):
                    connection.close()
                for descriptor in self._running:
                    os.close(descriptor)
                order: dict[str, Any] = json.loads(line)
                return order
            self._running[os.pidfd_open(child)] = child, client
            _tell(client, {"started": child})
        return None

    def _tell_of_the_end(self, descriptor: int) -> None:
        child, client = self._running.pop(descriptor)
        os.close(descriptor)
        _tell(client, {"ended": child, "status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])})


def _tell(client: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the client may have gone
        client.sendall(json.dumps(answer).encode() + b"\n")


def _obey(order: dict[str, Any]) -> None:
    """Become what a new interpreter would be, and run the module."""
    if order["session"]:
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(order["streams"], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = [order["module"], *order["arguments"]]
    if order["module"].endswith(".py"):
        runpy.run_path(order["module"], run_name="__main__")
        return
    if not hasattr(sys.modules.get(order["module"]), "__path__"):
        sys.modules.pop(order["module"], None)  # imported by another module; a command is loaded anew
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def _end(status: object) -> NoReturn:
    """End as Python ends, but take nothing apart: for all that was imported that took 0.3 s of a core."""
    if status is not None and not isinstance(status, int):
        sys.stderr.write(f"{status}\n")
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python's own end does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    warm_up()
    if (received := _Serving(sys.argv[1]).order()) is not None:
        try:  # errors other than SystemExit are left to Python, which prints them and ends as usual
            _obey(received)
        except SystemExit as end:
            _end(end.code)
        _end(None)
