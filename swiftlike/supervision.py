"""Supervision: child processes kept alive, one for each job, and what parent and child say to each other.

Owns starting, restarting with back-off, passing signals on, ending in time, and the child's side of that agreement. Never
knows what a job is about: whoever hands it over says how it is started and what its exit codes mean.

The agreement. A child's first line on standard output is `ready` or `refused`, and a sentence; it logs to standard error.
It ends with 0 once it has drained and with 2 when it was refused; other codes are its job's own. SIGTERM drains it, SIGHUP
makes it read its files again. It is given its parent's process id and ends with that (`end_with`), however it ends. It is
of its parent's process group and does not hear SIGINT: a terminal sends that to the whole group, and only the parent knows
in which order its children should go. A SIGHUP waits until the child says that it hears them (`hear_hangups`): one that came
earlier would kill it, or be missed by a process that has read its files already.
"""

import asyncio
import ctypes
import logging
import os
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from swiftlike.limits import DESCRIPTORS_MAX

log: Final = logging.getLogger(__name__)

READY: Final = "ready"
REFUSED: Final = "refused"

DRAINED_CODE: Final = 0
REFUSED_CODE: Final = 2

KILL_AFTER_S: Final = 5.0
"""Beyond drain_s: a process that has not ended by then does not listen, and is killed."""

STATUS_BYTES_MAX: Final = 64 * 1024
"""The status line of a child, a sentence."""

_SILENT: Final = ""
"""The status of a child that ended before it wrote one."""

_PR_SET_PDEATHSIG: Final = 1


# --- the child's side ---------------------------------------------------------------------------------------------


def end_with(parent: int) -> None:
    """Let the kernel send SIGTERM when the parent ends, however it ends, so that nobody is left without one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(DRAINED_CODE)  # it ended before the kernel knew


def allow_descriptors() -> None:
    """Raise the soft limit of open descriptors as far as the hard one lets it, to DESCRIPTORS_MAX at most.

    The usual soft limit is 1,024, and a worker with 400 large uploads holds 1,600 connections; a device holds those of all
    its callers, and a descriptor for each volume.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def hear_hangups() -> None:
    """Take SIGHUP from now on, and one that came meanwhile at once; the process has a handler for it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def tell(line: str) -> None:
    """Write the line that the parent waits for; it may have gone."""
    try:
        print(line.replace("\n", " "), flush=True)  # noqa: T201 (this is the protocol with the parent)
    except BrokenPipeError:
        log.info("nobody reads standard output")


# --- the parent's side --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a parent waits."""

    drain_s: float
    """After SIGTERM, how long what is at work may take to finish."""
    restart_min_s: float
    """Before a dead process is started again; doubles with each death that follows soon."""
    restart_max_s: float
    """The longest such wait; also how often a refused one is tried again."""


def cause(code: int) -> str:
    """Say how a process ended."""
    if code == REFUSED_CODE:
        return "it was refused"
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with code {code}: see its log"


@dataclass(frozen=True, slots=True)
class Job:
    """What one child does, over and over."""

    title: str
    """As logs call it: `device d1`."""
    arguments: Callable[[int | None], Sequence[str]]
    """Of the interpreter at the next start, by the exit code of the last one: None at the first. The parent's process id
    is added."""
    patience: Patience
    cause: Callable[[int], str] = cause
    """What an exit code means."""
    on_served: Callable[[], None] = lambda: None
    """Told each time that a process says that it serves."""


class Children:
    """The processes of several jobs. Usable inside its context, which ends them all when it is left."""

    def __init__(self, when_hopeless: Callable[[Sequence[str]], None]) -> None:
        """Take who hears of it when all first starts are refused: every reason."""
        self._when_hopeless = when_hopeless
        self._group = asyncio.TaskGroup()
        self._children: dict[str, _Child] = {}
        self._firsts: dict[str, str | None] = {}
        self._attempted = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Begin to own processes."""
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End all, and wait until they have."""
        for child in self._children.values():
            child.retire()
        await self._group.__aexit__(kind, error, traceback)

    def names(self) -> list[str]:
        """List whose processes are kept."""
        return list(self._children)

    def adopt(self, name: str, job: Job) -> None:
        """Begin to keep a process."""
        assert name not in self._children, "two children of one name would be one to whoever retires it"
        child = _Child(job, lambda refusal: self._note_attempt(name, child, refusal))
        self._children[name] = child
        self._group.create_task(child.keep())

    def retire(self, name: str) -> None:
        """End a process, and start it no more."""
        self._children.pop(name).retire()
        self._firsts.pop(name, None)

    def reassign(self, name: str, job: Job, *, restart: bool) -> None:
        """Give a child another job, which takes another process or only a second look at the files."""
        self._children[name].take(job, restart=restart)

    async def wait_attempted(self) -> list[str]:
        """Return once the first start of every child has ended: why those that do not serve were refused."""
        await self._attempted.wait()
        return self._refusals()

    def _refusals(self) -> list[str]:
        return [refusal for refusal in self._firsts.values() if refusal is not None]

    def _note_attempt(self, name: str, child: "_Child", refusal: str | None) -> None:
        """Hear how a start ended: None, it serves. When the first of everyone was refused, nothing will come of it.

        A process that was killed before it said anything tells nothing, and is no start.
        """
        if name in self._firsts or self._children.get(name) is not child:
            return
        self._firsts[name] = refusal
        if self._firsts.keys() >= self._children.keys():
            self._attempted.set()
        if len(self._refusals()) == len(self._children):
            self._when_hopeless(self._refusals())


class _Child:
    """One job's process, over and over."""

    def __init__(self, job: Job, on_attempt: Callable[[str | None], None]) -> None:
        self.job = job
        self._on_attempt = on_attempt
        self._process: Process | None = None
        self._last_code: int | None = None
        self._retired = asyncio.Event()
        self._ending = asyncio.Event()
        """The present process was told to end: for good, or for another to take its place."""
        self._unsent: list[signal.Signals] = []
        """What a process is to be sent that is just being made."""
        self._at_once = asyncio.Event()
        """What it waits for before the next start need not be waited for any more."""

    async def keep(self) -> None:
        """Start the process again whenever it ends, until retired."""
        loop = asyncio.get_running_loop()
        wait_s = self.job.patience.restart_min_s
        while not self._retired.is_set():
            began = loop.time()
            self._last_code = code = await self._run_once()
            if self._retired.is_set():
                return
            patience = self.job.patience
            if loop.time() - began > patience.restart_max_s:
                wait_s = patience.restart_min_s
            if code == REFUSED_CODE:
                wait_s = patience.restart_max_s
            if code == -signal.SIGTERM and self._ending.is_set():
                continue  # it was told to end before it could hear of it, which is no reason to wait either
            if code != DRAINED_CODE:  # it drained by itself to take up what a restart can: no reason to wait
                log.error("%s: %s; started again in %g s", self.job.title, self.job.cause(code), wait_s)
                await self._wait(wait_s)
                wait_s = min(wait_s * 2, patience.restart_max_s)

    def retire(self) -> None:
        """End the process, and start it no more."""
        self._retired.set()
        self._at_once.set()
        self._end()

    def take(self, job: Job, *, restart: bool) -> None:
        """Go on with another job: in another process, or in this one once it has read its files again."""
        self.job = job
        if restart:
            self._end()
        else:
            self._signal(signal.SIGHUP)
        self._at_once.set()  # one that was refused may be welcome now

    async def _run_once(self) -> int:
        """Run the process until it ends, and see to it that it does so in time."""
        self._ending.clear()
        self._unsent.clear()
        with _signals_held():
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self.job.arguments(self._last_code),
                *("--parent", str(os.getpid())),
                stdin=DEVNULL,
                stdout=PIPE,
                limit=STATUS_BYTES_MAX,
            )
        self._process = process
        log.info("%s: process %d", self.job.title, process.pid)
        for number in self._unsent:
            self._signal(number)
        try:
            async with asyncio.TaskGroup() as group:
                killer = group.create_task(self._kill_when_late(process))
                status = await self._read_status(process)
                if status != _SILENT:
                    self._on_attempt(status)
                code = await process.wait()
                if status == _SILENT and code >= 0:
                    self._on_attempt(f"{self.job.title} ended before it served: see its log")
                killer.cancel()
            return code
        finally:
            self._process = None

    async def _read_status(self, process: Process) -> str | None:
        """Return why the process does not serve; None when it does; _SILENT when it ended without a word."""
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode("utf-8", "replace").strip()
        word, _, rest = line.partition(" ")
        if word == READY:
            log.info("%s serves on %s", self.job.title, rest)
            self.job.on_served()
            return None
        return rest if word == REFUSED else _SILENT

    async def _kill_when_late(self, process: Process) -> None:
        """Nobody else takes its place before it has ended, so it may not take for ever."""
        await self._ending.wait()
        await asyncio.sleep(self.job.patience.drain_s + KILL_AFTER_S)
        log.error("%s: process %d did not end in time and is killed", self.job.title, process.pid)
        process.kill()

    async def _wait(self, wait_s: float) -> None:
        self._at_once.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._at_once.wait()
        except TimeoutError:
            return

    def _end(self) -> None:
        self._ending.set()
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            self._unsent.append(number)
        elif self._process.returncode is None:
            self._process.send_signal(number)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Block SIGINT and SIGHUP while a child is made: it inherits that, and is deaf to them from its first instruction.

    The event loop forks before it waits for anything, so that another child's end of this cannot come in between.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
