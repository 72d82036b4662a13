"""Rounds, medians and ratios: how two programs are compared.

Both are measured in every round, one right after the other and the other way round in the
next round, so that a machine that is slower for a minute is slower for both. What counts is
the ratio within a round; its median and its whole spread are reported.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


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


def interleave(
    rounds: int, ours: Callable[[int], Any], peer: Callable[[int], Any]
) -> tuple[list[Any], list[Any]]:
    """Call both once a round, each with the number of the round; who is first alternates."""
    got: tuple[list[Any], list[Any]] = ([], [])
    for i in range(rounds):
        order = ((0, ours), (1, peer)) if i % 2 == 0 else ((1, peer), (0, ours))
        for which, call in order:
            got[which].append(call(i))
    return got


def percentile(values: list[float], percent: float) -> float:
    """The value below which `percent` of the sorted values lie (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]
