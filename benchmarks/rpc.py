"""The internal RPC on one core: small calls a second, and streams, over a Unix socket.

    python -m benchmarks.rpc [--loop uvloop|asyncio] [--callers 2] [--in-flight 64] [--seconds 3] [--body-bytes 4096]

Starts one server process and several caller processes. What counts is the server's own CPU: calls per CPU second is
what one core could answer if the callers had cores of their own.
"""

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import uvloop

from swiftlike.rpc.client import Client
from swiftlike.rpc.network import SocketNetwork
from swiftlike.rpc.server import Server
from swiftlike.rpc.service import Call, Service
from swiftlike.rpc.stream import ServedStream
from swiftlike.rpc.transport import Outcome, Reply, UnixAddress

SECRET = b"the secret of the benchmark"
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Load:
    """What one caller process does."""

    method: str
    request: bytes
    in_flight: int
    seconds: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=64, help="calls of one caller")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--body-bytes", type=int, default=4096)
    options = parser.parse_args()
    body = os.urandom(options.body_bytes)
    print(f"{options.loop}, {options.callers} callers with {options.in_flight} calls in flight each")
    for title, method, request in (
        ("empty call, plain handler", "empty", b""),
        (f"put of {len(body)} bytes, plain handler", "empty", body),
        (f"get of {len(body)} bytes, plain handler", "get", b""),
        (f"put of {len(body)} bytes, async handler", "async", body),
        (f"put of {len(body)} bytes, future", "future", body),
    ):
        load = Load(method, request, options.in_flight, options.seconds)
        calls, cpu_s, wall_s = measure(options.loop, options.callers, load, options.body_bytes)
        print(
            f"  {title:36} {calls / wall_s:9,.0f} calls/s  {calls / cpu_s:9,.0f} per CPU second of the server  "
            f"{cpu_s / calls * 1e6:5.1f} us"
        )
    for title, method in (("upload", "upload"), ("download", "download")):
        load = Load(method, b"", 1, options.seconds)
        chunks, cpu_s, wall_s = measure(options.loop, 1, load, options.body_bytes)
        gigabytes = chunks * CHUNK_BYTES / 1e9
        print(
            f"  {title + ' in one stream':36} {gigabytes / wall_s:9.2f} GB/s     {gigabytes / cpu_s:9.2f} per CPU second"
        )


def measure(loop: str, callers: int, load: Load, body_bytes: int) -> tuple[int, float, float]:
    """Return how many calls were answered, the CPU seconds of the server and the seconds that passed."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/rpc.sock"
        ready, stop = context.Event(), context.Event()
        results: multiprocessing.Queue[int] = context.Queue()
        cpu_s = context.Value("d", 0.0)
        server = context.Process(target=_serve, args=(loop, path, body_bytes, ready, stop, cpu_s))
        server.start()
        ready.wait()
        processes = [context.Process(target=_load, args=(loop, path, load, results)) for _ in range(callers)]
        for process in processes:
            process.start()
        calls = sum(results.get() for _ in processes)
        for process in processes:
            process.join()
        stop.set()
        server.join()
        return calls, cpu_s.value, load.seconds


def _serve(loop: str, path: str, body_bytes: int, ready, stop, cpu_s) -> None:  # type: ignore[no-untyped-def]
    async def serve() -> None:
        body = os.urandom(body_bytes)
        chunk = os.urandom(CHUNK_BYTES)
        done = Reply()
        service = Service()
        service.calls("empty", lambda call: done)
        service.calls("get", lambda call: Reply(body=body))

        async def awaited(call: Call) -> Reply:
            return done

        def later(call: Call) -> asyncio.Future[Reply]:
            running = asyncio.get_running_loop()
            future: asyncio.Future[Reply] = running.create_future()
            running.call_soon(future.set_result, done)
            return future

        async def upload(call: Call, stream: ServedStream) -> Reply:
            async for _ in stream:
                pass
            return done

        async def download(call: Call, stream: ServedStream) -> Reply:
            while True:
                await stream.send(chunk)

        service.calls("async", awaited)
        service.calls("future", later)
        service.streams("upload", upload)
        service.streams("download", download)
        async with Server(SocketNetwork(), service, SECRET) as server:
            await server.listen(UnixAddress(path))
            began_s = time.process_time()
            ready.set()
            await asyncio.to_thread(stop.wait)
            cpu_s.value = time.process_time() - began_s

    _run(loop, serve)


def _load(loop: str, path: str, load: Load, results) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        answered = 0
        peer = UnixAddress(path)
        header = {"key": b"a/path/of/usual/length/objects/0000001", "ballot": 2**50}
        async with Client(SocketNetwork(), SECRET) as client:
            until = client.now() + load.seconds

            async def caller() -> None:
                nonlocal answered
                while client.now() < until:
                    reply = await client.call(peer, load.method, header, load.request, deadline=until + 10)
                    assert reply.outcome is Outcome.OK, reply
                    answered += 1

            async def streamer() -> None:
                nonlocal answered
                chunk = os.urandom(CHUNK_BYTES)
                async with client.open_stream(peer, load.method, deadline=until + 10) as stream:
                    while client.now() < until:
                        if load.method == "upload":
                            await stream.send(chunk)
                        else:
                            await stream.receive()
                        answered += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(load.in_flight):
                    group.create_task(streamer() if load.method in ("upload", "download") else caller())
        results.put(answered)

    _run(loop, run)


def _run(loop: str, main: Callable[[], Coroutine[None, None, None]]) -> None:
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


if __name__ == "__main__":
    main()
