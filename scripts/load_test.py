"""Load a server of ``cdetr serve`` at several times its capacity, and watch its memory over many requests (docs/serve.md).

Usage: python scripts/load_test.py [SOURCE] [--seconds 20] [--requests 10000] [server options ...]

The capacity is what the server answers to 16 clients that each wait for their answer. ``Detector.stream`` with batches of 8, in a
process of its own, is measured before. Then clients are open-loop: they send at a fixed rate, whether or not earlier requests are
answered, over at most 512 connections.
"""

import argparse
import asyncio
import io
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

TIMES = (0.5, 1, 2, 5)  # of the capacity
IMAGES = 16  # different ones
MOST_CONNECTIONS = 512


class Sent(NamedTuple):
    """What became of a request. seconds: from the time it was due."""

    status: int
    seconds: float


def pictures() -> list[bytes]:
    from conditional_detr.data.scenes import draw_scene

    found = []
    for index in range(IMAGES):
        content = io.BytesIO()
        draw_scene(0, index, 256, "load").image.resize((256, 192)).save(content, "JPEG", quality=90)
        found.append(content.getvalue())
    return found


def own_rate(source: str, queue: "multiprocessing.Queue[tuple[float, float]]") -> None:
    """Put the images per second of ``Detector.stream``, and the seconds of processor that each takes, into a queue."""
    from conditional_detr import Detector

    detector = Detector.from_pretrained(source)
    images = pictures()
    list(detector.stream(images, batch_size=8))
    count = 400
    start, busy = time.perf_counter(), time.process_time()
    for _ in detector.stream(itertools.islice(itertools.cycle(images), count), batch_size=8):
        pass
    queue.put((count / (time.perf_counter() - start), (time.process_time() - busy) / count))


class Client:
    """Sends requests over connections that are kept open."""

    def __init__(self, address: str, images: list[bytes]) -> None:
        host, port = address.removeprefix("http://").split(":")
        self.place = (host, int(port))
        head = "POST /v1/detect HTTP/1.1\r\nHost: load\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
        self.requests = [head.format(len(each)).encode() + each for each in images]
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.slots = asyncio.Semaphore(MOST_CONNECTIONS)

    async def send(self, number: int, due: float) -> Sent:
        async with self.slots:
            reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection(*self.place)
            try:
                writer.write(self.requests[number % len(self.requests)])
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                await reader.readexactly(int(fields[b"content-length"]))
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return Sent(0, time.perf_counter() - due)
            if fields.get(b"connection") == b"close":
                writer.close()
            else:
                self.idle.append((reader, writer))
            return Sent(int(head.split(b" ", 2)[1]), time.perf_counter() - due)

    async def at_rate(self, rate: float, count: int) -> tuple[list[Sent], float]:
        """Send requests at a rate. Return what became of them, and the seconds until the last answer."""
        start = time.perf_counter()
        tasks = []
        for number in range(count):
            due = start + number / rate
            if (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            tasks.append(asyncio.ensure_future(self.send(number, due)))
        return list(await asyncio.gather(*tasks)), time.perf_counter() - start

    async def in_turn(self, count: int, at_once: int) -> list[Sent]:
        """Send requests, each when another is answered."""
        numbers, found = iter(range(count)), []

        async def worker() -> None:
            for number in numbers:
                found.append(await self.send(number, time.perf_counter()))

        await asyncio.gather(*(worker() for _ in range(at_once)))
        return found


def memory(pid: int) -> float:
    """MiB that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def processor(pid: int) -> float:
    """Seconds of processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def row(sent: list[Sent], seconds: float) -> str:
    statuses = Counter(each.status for each in sent)
    answered = sorted(1000 * each.seconds for each in sent if each.status == 200)
    others = sum(count for status, count in statuses.items() if status not in (200, 429))
    p99 = answered[int(0.99 * (len(answered) - 1))]
    return f"{len(sent)} | {statuses[200]} | {statuses[429]} | {others} | {statuses[200] / seconds:.1f} | {statistics.median(answered):.0f} | {p99:.0f}"


async def load(address: str, pid: int, seconds: float, requests: int) -> None:
    client = Client(address, pictures())
    await client.in_turn(50, 4)
    start, busy, count = time.perf_counter(), processor(pid), 1000
    await client.in_turn(count, 16)
    capacity = count / (time.perf_counter() - start)
    print(
        f"server, 16 clients in turn: {capacity:.1f} images/s, {1000 * (processor(pid) - busy) / count:.1f} ms of processor each"
    )
    print("| times the capacity | sent | answered | 429 | other | images/s | median ms | p99 ms |")
    print("|---|---|---|---|---|---|---|---|")
    for factor in TIMES:
        rate = factor * capacity
        found, took = await client.at_rate(rate, max(1, round(rate * seconds)))
        print(f"| {factor:g} ({rate:.0f}/s) | {row(found, took)} |", flush=True)
        await asyncio.sleep(1)
    readings = []
    for _ in range(10):
        found = await client.in_turn(requests // 10, 16)
        assert all(each.status == 200 for each in found), Counter(each.status for each in found)
        readings.append(memory(pid))
    print(
        f"memory in MiB after every {requests // 10} of {requests} requests: {', '.join(f'{each:.0f}' for each in readings)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", nargs="?", default="starter:tiny")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--requests", type=int, default=10_000)
    arguments, options = parser.parse_known_args()
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[tuple[float, float]] = context.Queue()
    process = context.Process(target=own_rate, args=(arguments.source, queue))
    process.start()
    own, busy = queue.get()
    process.join()
    print(f"Detector.stream, batches of 8: {own:.1f} images/s, {1000 * busy:.1f} ms of processor each")

    command = [sys.executable, "-m", "conditional_detr", "serve", arguments.source, "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = next(line for line in server.stderr if " at http" in line).split(" at ")[1].split(";")[0]
        log = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
        try:
            asyncio.run(load(address, server.pid, arguments.seconds, arguments.requests))
        finally:
            server.terminate()
            server.wait(60)
            log.wait(10)
    print(json.dumps({"exit code of the server": server.returncode}))


if __name__ == "__main__":
    main()
