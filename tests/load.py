"""Publishing from several threads while something breaks, and striking at random moments of it."""

import random
import threading

from ensign_sync import EnsignError
from tests.waiting import eventually

THREADS = 4
LIMIT = 300.0


class Load:
    """Four threads that publish numbered events through one client, in lists of different lengths.

    Attributes:
        acked: For each thread, the numbers whose publish call returned.
        failed: What other calls raised.
    """

    def __init__(self, client, each, seed=0):
        self.client, self.each = client, each
        self.acked = {who: [] for who in range(THREADS)}
        self.failed = []
        self._threads = [threading.Thread(target=self._publish, args=(who, seed)) for who in self.acked]
        for thread in self._threads:
            thread.start()

    def _publish(self, who, seed):
        rng, n = random.Random(seed * 10 + who), 0
        while n < self.each:
            numbers = list(range(n, min(self.each, n + rng.choice((1, 3, 10, 40)))))
            n += len(numbers)
            try:
                acks = self.client.publish("weather", [b"%d %d" % (who, number) for number in numbers])
                assert None not in acks
                self.acked[who] += numbers
            except EnsignError as error:
                self.failed.append(error)

    @property
    def done(self):
        """How many events were acknowledged."""
        return sum(map(len, self.acked.values()))

    @property
    def running(self):
        """Whether a thread still publishes."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self):
        """Wait for the threads."""
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive(), "a publisher hangs"

    def check(self, node):
        """Everything acknowledged is stored, each thread's in order; returns how much is stored more than once."""
        stored = {who: [] for who in self.acked}
        for event in node.events("weather"):
            who, number = map(int, event.data.split())
            stored[who].append(number)
        twice = 0
        for who, numbers in stored.items():
            first = list(dict.fromkeys(numbers))
            assert set(self.acked[who]) <= set(first), "acknowledged and not stored"
            assert first == sorted(first), "out of order"
            twice += len(numbers) - len(first)
        if not self.failed:
            assert self.done == self.each * THREADS
        return twice


def strike(load, times, fault, seed):
    """Cause a fault so many times, at random moments of the load; returns how often it struck."""
    rng, struck = random.Random(seed), 0
    for _ in range(times):
        # Some time after the last one had its effect, so that each strikes a line on which something moves.
        aim = min(load.done + rng.randrange(1, max(2, load.each * THREADS // times)), load.each * THREADS - 1)
        eventually(lambda a=aim: load.done >= a or not load.running, LIMIT)
        if not load.running:
            break
        threading.Event().wait(rng.random() * 0.005)  # the moment is what is random here
        struck += fault() is not False
    return struck


def under_kills(tmp_path, kills, each, **options):
    """Publish to a node that is killed and started again so many times, through a client with these options.

    Returns the load, how often it was killed, how much was stored twice, and what the client counted.
    """
    from ensign_sync.node import Node

    with Node(str(tmp_path / "data.db"), topics=["weather"], process=True) as node, node.client(**options) as client:
        load = Load(client, each)

        def kill():
            node.faults.kill()
            node.restart()

        struck = strike(load, kills, kill, 2)
        load.join()
        return load, struck, load.check(node), client.stats()
