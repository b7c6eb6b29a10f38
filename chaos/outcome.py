"""What a figure is measured with, and what came out of it."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from scipy import special

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Plan:
    """How a figure is measured.

    Attributes:
        seed: Of everything drawn.
        short: Whether only the outcome is wanted, in seconds; durations are not judged then.
        long: Whether more tries are wanted than there is time for in a run of all figures.
    """

    seed: int
    short: bool
    long: bool = False

    def choose(self, full: int, short: int) -> int:
        """Return a number of tries."""
        return short if self.short else full

    def make_random(self) -> random.Random:
        """Return a source of random numbers of this run."""
        return random.Random(self.seed)


@dataclass(frozen=True, slots=True)
class Bar:
    """A value beside the limit it must keep.

    Attributes:
        name: What was measured, with its unit.
        value: As measured.
        limit: The largest value allowed, or the least if `at_least`.
        at_least: Whether the value must reach the limit instead of staying within it.
        timed: Whether it is a duration or depends on the machine's speed; a short run does not judge it.
    """

    name: str
    value: float
    limit: float
    at_least: bool = False
    timed: bool = False

    @property
    def is_held(self) -> bool:
        """Whether the value keeps the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{self.name} {self.value:.4g} ({sign} {self.limit:g}{'' if self.is_held else ', NOT HELD'})"


@dataclass(slots=True)
class Outcome:
    """What a figure came to.

    Attributes:
        tries: Independent chances to fail.
        failures: Descriptions of the tries that failed.
        bars: Values with limits.
        notes: What a reader needs to judge the numbers, in words.
    """

    tries: int = 0
    failures: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self, held: object, failure: str) -> None:
        """Count a try, and a failure unless it held."""
        self.tries += 1
        if not held:
            self.failures.append(failure)

    def require_control(self, seen: object, planted: str) -> None:
        """Require that a violation planted on purpose was seen.

        Raises:
            RuntimeError: It was not; zero found would say nothing.
        """
        if not seen:
            raise RuntimeError(f"The control was not seen: {planted}. What the figure finds would mean nothing.")
        self.notes.append(f"control seen: {planted}")

    def is_passed(self, plan: Plan) -> bool:
        """Return whether nothing failed and every judged bar is held."""
        return not self.failures and all(bar.is_held for bar in self.bars if not (bar.timed and plan.short))

    def compute_bound(self) -> float:
        """Return the upper end of the one-sided 95 % interval of the failures per try.

        It is the exact binomial one (Clopper and Pearson 1934), for no failures about 3 in the number of tries.
        """
        failed = len(self.failures)
        if failed >= self.tries:
            return 1.0
        return float(special.betaincinv(failed + 1, self.tries - failed, CONFIDENCE))

    def to_json(self, figure: str, plan: Plan, seconds: float) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "figure": figure,
            "passed": self.is_passed(plan),
            **asdict(plan),
            "tries": self.tries,
            "failures": len(self.failures),
            "bound": round(self.compute_bound(), 7),
            "bars": [asdict(bar) | {"held": bar.is_held} for bar in self.bars],
            "failed": self.failures[:20],
            "notes": self.notes,
            "seconds": round(seconds, 1),
        }

    def render_line(self, figure: str, plan: Plan, seconds: float) -> str:
        """Return the one line a figure is printed as."""
        verdict = "passed" if self.is_passed(plan) else "FAILED"
        found = f"{self.tries:,} tries, {len(self.failures):,} failures (≤ {self.compute_bound():.2g} a try)"
        parts = [found, *map(str, self.bars), *self.notes, *(f"failed: {one}" for one in self.failures[:5])]
        length = ", short" if plan.short else ""
        return f"{figure:<4}{verdict}  seed {plan.seed}{length}, {seconds:.0f} s: {'; '.join(parts)}"


class Figure(NamedTuple):
    """Something that must hold, and what measures it.

    Attributes:
        measure: Does it.
        bar: What must hold, in words.
        question: What is asked, the first line of the module that measures it.
    """

    measure: Callable[[Plan], Awaitable[Outcome]]
    bar: str
    question: str

    @classmethod
    def from_module(cls, module: ModuleType) -> Figure:
        """Return the figure that a module measures."""
        question = (module.__doc__ or "").partition(": ")[2].partition("\n")[0]
        return cls(module.measure, module.BAR, question)
