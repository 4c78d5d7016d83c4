"""The processes of a cluster on one machine: started together, ended in order, each kept alive alone.

Owns the order: at the end the workers drain first, and the devices that they write to after them. Never does a worker's or
a device's work in this process.
"""

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from proxy.supervisor import WorkerChildren, load_proxy
from storage_node.supervisor import DeviceChildren, load_storage
from tools.composition import DEVICE_PROCESS
from tools.serve.layout import ServeRefused

END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""SIGHUP too: a terminal that is closed must not leave a cluster behind, and there is no file of its own to read again."""


async def run(host_file: Path, when_ready: Callable[[Sequence[str]], None]) -> None:
    """Serve until a signal; tell `when_ready` once, with the reasons of those that were refused.

    Raises ServeRefused when no device, or no worker, can be used, and ConfigError.
    """
    ended = asyncio.Event()
    hopeless: list[str] = []

    def give_up(refusals: Sequence[str]) -> None:
        if not ended.is_set():  # those that were ended before they served are no reason
            hopeless.extend(dict.fromkeys(refusals))
            ended.set()

    loop = asyncio.get_running_loop()
    for number in END_SIGNALS:
        # nohup asks for the last of them to be ignored. A shell asks for SIGINT to be, of what it starts in the background,
        # but that is about its own terminal: whoever sends one here means it.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, ended.set)
    _, storage = load_storage(host_file)
    _, proxy = load_proxy(host_file)
    # Left in the reverse order: workers first.
    async with (
        DeviceChildren(host_file, storage, give_up, DEVICE_PROCESS) as devices,
        WorkerChildren(host_file, proxy, give_up) as workers,
    ):
        devices.start()
        workers.start()
        ending = asyncio.create_task(ended.wait())
        attempts = asyncio.gather(devices.wait_attempted(), workers.wait_attempted())
        try:
            await asyncio.wait((ending, attempts), return_when=asyncio.FIRST_COMPLETED)
            if attempts.done() and not hopeless:
                refused_devices, refused_workers = attempts.result()
                when_ready([*refused_devices, *refused_workers])
            await ending
        finally:
            attempts.cancel()
            ending.cancel()
            await asyncio.gather(attempts, ending, return_exceptions=True)
    if hopeless:
        raise ServeRefused("; ".join(hopeless))
