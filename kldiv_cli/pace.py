"""How many tasks are worth sending at once, by how long the last ones took."""

from __future__ import annotations

__all__ = ["Pace"]


class Pace:
    """Begins with one task, and holds bundles to so many seconds of work; any thread may ask."""

    def __init__(self, seconds: float, most: int) -> None:
        self._aim, self._largest = seconds, most
        self._most = most
        self._seconds: float | None = None
        """Of a task; what is older counts less."""
        self.seen = 0
        """How many bundles it has learnt from."""

    def learn(self, tasks: int, seconds: float, *, most: int | None = None) -> None:
        """Take in a bundle that came back; of results as large as its own no more than `most` are wanted."""
        of_task = seconds / tasks
        self._seconds = of_task if self._seconds is None else (self._seconds + of_task) / 2
        self._most = self._largest if most is None else min(self._largest, most)
        self.seen += 1

    def bundle(self) -> int:
        """How many tasks the next bundle may have."""
        if self._seconds is None:
            return 1
        return max(1, min(self._most, int(self._aim / max(self._seconds, 1e-9))))
