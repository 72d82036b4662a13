"""Rounds, medians and ratios: how two programs are compared.

Both are measured in every round, one right after the other and the other way round in the
next round, so that a machine that is slower for a minute is slower for both. What counts is
the ratio within a round; its median and its whole spread are reported.

Other work on the machine is noticed: a measurement during which other processes took more
than a small share of the processors is repeated a few times, and the least disturbed one
counts.
"""

import os
import pathlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

DISTURBED = 0.04  # share of all processors that others may take


@dataclass(frozen=True)
class Result:
    """One line of the comparison: the figures of all rounds, ours and the peer's."""

    case: str  # "prefill"
    x: str  # what varies inside the case: "512"
    unit: str
    higher_is_better: bool
    ours: list[float]
    peer: list[float]
    extra: dict[str, Any] = field(default_factory=dict)

    def ratios(self) -> list[float]:
        """How many times better we are, round by round."""
        pairs = zip(self.ours, self.peer, strict=True)
        return [a / b if self.higher_is_better else b / a for a, b in pairs]

    def to_json(self) -> dict[str, Any]:
        ratios = self.ratios()
        return {
            "case": self.case,
            "x": self.x,
            "unit": self.unit,
            "ratio": round(statistics.median(ratios), 3),
            "ratio_min": round(min(ratios), 3),
            "ratio_max": round(max(ratios), 3),
            "ours": [round(v, 3) for v in self.ours],
            "peer": [round(v, 3) for v in self.peer],
            **self.extra,
        }

    def line(self) -> str:
        ratios = self.ratios()
        ours, peer = statistics.median(self.ours), statistics.median(self.peer)
        return (
            f"{self.case:<15} {self.x:<18} {ours:>10.1f} {peer:>10.1f} {self.unit:<9}"
            f" {statistics.median(ratios):>6.2f}x  ({min(ratios):.2f}..{max(ratios):.2f})"
        )


HEADING = f"{'case':<15} {'':<18} {'tamp':>10} {'peer':>10} {'':<9} {'ratio':>7}  (spread)"


def machine_busy_seconds() -> float:
    """Processor time that anybody used since the machine started, stolen time included."""
    first = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, first[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


class Rounds:
    """Measures both programs, interleaved, and remembers how much others disturbed."""

    def __init__(self, rounds: int, retries: int, own_seconds: Callable[[], float]):
        self.rounds = rounds
        self.retries = retries
        self.own_seconds = own_seconds  # processor time of ourselves and of what we started
        self.disturbance: list[float] = []  # of the measurements of the last `interleave`

    def _watched(self, call: Callable[[int], Any], number: int) -> tuple[float, Any]:
        """The share of the processors that others took, and what the call returned."""
        busy, own, began = machine_busy_seconds(), self.own_seconds(), time.perf_counter()
        value = call(number)
        seconds = max(time.perf_counter() - began, 0.01)
        others = machine_busy_seconds() - busy - (self.own_seconds() - own)
        return max(others, 0.0) / seconds / (os.cpu_count() or 1), value

    def calm(self, call: Callable[[int], Any], i: int) -> Any:
        """The least disturbed of up to 1 + retries calls, each with a number of its own."""
        best: tuple[float, Any] | None = None
        for attempt in range(1 + self.retries):
            got = self._watched(call, i * (1 + self.retries) + attempt)
            if best is None or got[0] < best[0]:
                best = got
            if best[0] <= DISTURBED:
                break
        assert best is not None
        self.disturbance.append(best[0])
        return best[1]

    def interleave(
        self, ours: Callable[[int], Any], peer: Callable[[int], Any]
    ) -> tuple[list[Any], list[Any]]:
        """Call both in every round, who is first alternates. A call gets a number that no
        other call of its side gets, to make its input from."""
        got: tuple[list[Any], list[Any]] = ([], [])
        self.disturbance = []
        for i in range(self.rounds):
            order = ((0, ours), (1, peer)) if i % 2 == 0 else ((1, peer), (0, ours))
            for which, call in order:
                got[which].append(self.calm(call, i))
        return got


def percentile(values: list[float], percent: float) -> float:
    """The value below which `percent` of the sorted values lie (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]
