"""Steps of several trainings on one bar."""

from __future__ import annotations

from collections.abc import Callable


class Heard:
    """Counts steps and moves the bar."""

    def __init__(self, move: Callable[[int, int], None], planned: int) -> None:
        self.move, self.planned, self.done = move, planned, 0

    def __call__(self, step: int) -> None:
        self.done += 1
        if self.done % 10 == 0:
            self.move(self.done, self.planned)
