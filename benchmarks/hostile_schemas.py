"""How long plain requests take while a server reads schemas that are as large as may be.

Against a server that runs (`nprdsl serve`): rounds with and without ten clients that keep sending
schemas, each new to the server and slow to read, take turns. Prints the median and the 99th
percentile of a plain request's time in both, and what became of the schemas.

    python -m benchmarks.hostile_schemas [--address http://127.0.0.1:30000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import threading
import time
from collections import Counter
from multiprocessing.synchronize import Event
from typing import Any

import httpx
import numpy as np

CLIENTS = 10
REQUESTS = 60  # plain ones of a round
PLAIN = {"text": "3*4?", "sampling_params": {"max_new_tokens": 16, "temperature": 0}}


def hostile(number: int) -> bytes:
    """A request with a schema near the limits on size, unlike those of other numbers."""
    if number % 2:
        source = "start: a0\n" + "\n".join(f"a{n}: a{n + 1}" for n in range(3000))
        source += f'\na3000: "{number}"\n'
    else:
        choices = " | ".join(f'"<a{n}x{number}>" TEXT' for n in range(2500))
        source = f'start: ({choices})* "<e>"\n%declare TEXT\n'
    form = {"language": {"name": "hostile", "source": source}}
    params = {"custom_params": {"nprdsl": form}}
    return json.dumps({"text": "3*4?", "sampling_params": params}).encode()


def crowd(address: str, first: int, begun: Event, stop: Event, statuses: Any) -> None:
    """The process of the hostile clients, who send one schema after another until `stop`."""
    counts: Counter[int] = Counter()

    def send(client: int) -> None:
        number = first + client
        with httpx.Client(base_url=address, timeout=120) as http:
            while not stop.is_set():
                head = {"content-type": "application/json"}
                told = http.post("/generate", content=hostile(number), headers=head)
                counts[told.status_code] += 1
                number += CLIENTS

    threads = [threading.Thread(target=send, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    begun.set()
    for thread in threads:
        thread.join()
    statuses.put(counts)


def times(http: httpx.Client) -> list[float]:
    """Seconds of each plain request of a round, one after another."""
    taken = []
    for _ in range(REQUESTS):
        begin = time.perf_counter()
        http.post("/generate", json=PLAIN).raise_for_status()
        taken.append(time.perf_counter() - begin)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="http://127.0.0.1:30000")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    alone: list[float] = []
    beside: list[float] = []
    statuses: Counter[int] = Counter()
    spawn = multiprocessing.get_context("spawn")
    with httpx.Client(base_url=options.address, timeout=120) as http:
        times(http)
        for round_ in range(options.rounds):
            alone += times(http)
            begun, stop, told = spawn.Event(), spawn.Event(), spawn.Queue()
            arguments = (options.address, 100_000 * (round_ + 1), begun, stop, told)
            others = spawn.Process(target=crowd, args=arguments)
            others.start()
            begun.wait()
            time.sleep(0.5)
            beside += times(http)
            stop.set()
            statuses += told.get()
            others.join()
    for name, taken in (("alone", alone), (f"beside {CLIENTS} hostile", beside)):
        median, worst = np.percentile(taken, [50, 99]) * 1000
        print(f"{name:>18}: median {median:6.1f} ms, p99 {worst:6.1f} ms, {len(taken)} requests")
    ratio = np.percentile(beside, 99) / np.percentile(alone, 99)
    print(f"p99 beside / alone: {ratio:.2f}; schemas by status: {dict(statuses)}")


if __name__ == "__main__":
    main()
