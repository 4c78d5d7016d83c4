"""Apart: a function in a process of its own, since what it reads may end the process.

Owns the child, and what its death becomes. LMDB maps its file and believes its pages: a damaged one ends in a failed
assertion (SIGABRT), and one that the disk does not read, or that is not there, in SIGBUS. Neither can be caught, and whoever
looks for damage is owed a sentence.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

from swiftlike.supervision import end_with

T = TypeVar("T")

OF_DAMAGE: Final = (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)
"""How a process dies of what it reads."""


class Died(Exception):
    """The process ended before its function did; `of_damage` says whether by what it read."""

    def __init__(self, code: int) -> None:
        """Take its exit code."""
        self.of_damage: Final = -code in OF_DAMAGE
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        super().__init__(f"the process that reads it {how}")


def apart(expected: tuple[type[Exception], ...], function: Callable[..., T], *arguments: object) -> T:
    """Return what a function of a module returns in another process, or raise what it raises of what is `expected`.

    Anything else that it raises is a bug: the other process shows the traceback. Raises Died when it ended without an answer.
    """
    context = multiprocessing.get_context("spawn")  # a fork would take over what threads hold
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(
        target=_answer, args=(sending, os.getpid(), expected, function, arguments), daemon=True
    )
    child.start()
    sending.close()  # so that the child's death is the end of the pipe
    try:
        with receiving:
            result, error = receiving.recv()
    except EOFError:
        child.join()
        assert child.exitcode, "it ends with 0 only when it has answered"
        raise Died(child.exitcode) from None
    finally:
        child.terminate()
        child.join()
    if error is not None:
        raise error
    answer: T = result
    return answer


def _answer(
    sending: Connection,
    parent: int,
    expected: tuple[type[Exception], ...],
    function: Callable[..., Any],
    arguments: tuple[object, ...],
) -> None:
    """Call the function; in the child."""
    end_with(parent)
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a terminal sends it to both, and the parent says what is to be said
    try:
        answer, refusal = function(*arguments), None
    except expected as error:
        answer, refusal = None, error
    sending.send((answer, refusal))
