"""The simulated clock: requests wait in their client's queue, and the earliest ends are what happens next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """A model that a client was asked to train.

    Args:
        model: its name.
        number: of the request, among those of the model.
        client: that was asked.
        version: of the model, which the client starts from.
        seconds: that it takes, in simulated time, once the client begins.
    """

    model: str
    number: int
    client: int
    version: int
    seconds: float


class Clock:
    """Simulated time. A client does what it is asked in the order in which it is asked.

    Args:
        now: where it starts.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._queues: dict[int, list[Request]] = {}
        self._ends: dict[int, float] = {}

    def ask(self, request: Request) -> None:
        """A client gets a request; it begins at once if it has nothing else to do."""
        queue = self._queues.setdefault(request.client, [])
        queue.append(request)
        if len(queue) == 1:
            self._ends[request.client] = self.now + request.seconds

    def arrivals(self) -> list[Request]:
        """Go on to the next moment at which requests are done: these, in the order of clients."""
        self.now = min(self._ends.values())
        clients = sorted(client for client, end in self._ends.items() if end == self.now)
        done = [self._queues[client].pop(0) for client in clients]
        for client in clients:
            self._begin(client)
        return done

    def cancel(self, model: str) -> None:
        """Nobody trains a model any more; whoever was about it begins with the next request."""
        for client, queue in list(self._queues.items()):
            first = queue[0]
            queue[:] = [request for request in queue if request.model != model]
            if first.model == model:
                self._begin(client)

    def _begin(self, client: int) -> None:
        """A client begins with the first of its queue."""
        if self._queues[client]:
            self._ends[client] = self.now + self._queues[client][0].seconds
        else:
            del self._queues[client], self._ends[client]

    @property
    def pending(self) -> list[Request]:
        """All requests that are not done."""
        return [request for queue in self._queues.values() for request in queue]

    @property
    def flying(self) -> Counter[str]:
        """Model → how many requests of it are not done."""
        return Counter(request.model for request in self.pending)

    def state(self) -> dict[str, Any]:
        """All of it, as plain values."""
        queues = [[client, [asdict(r) for r in queue]] for client, queue in self._queues.items()]
        return {"now": self.now, "queues": queues, "ends": list(self._ends.items())}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Clock:
        """A clock of what `state` gave."""
        clock = cls(state["now"])
        clock._queues = {client: [Request(**r) for r in queue] for client, queue in state["queues"]}
        clock._ends = dict(state["ends"])
        return clock
