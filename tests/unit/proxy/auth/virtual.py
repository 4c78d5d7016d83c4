"""Tests in virtual time: a coroutine that runs on a loop whose clock leaps."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

from swiftlike.rpc.virtual_time import run_in_virtual_time

P = ParamSpec("P")


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test to its end in no time."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_in_virtual_time(test(*args, **kwargs))

    return run
