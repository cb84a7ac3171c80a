"""The results, and the verdict that follows from them."""

from typing import Any, NamedTuple

from .._native import implementation

WORTH_RATIO = 1.2
"""Pooling pays off if a fresh object costs at least this many times as much as a pooled one. Less may be noise."""

WORTH_SECONDS = 100e-9
"""It must also cost at least this many seconds more. With less, no program becomes noticeably faster."""


class Case(NamedTuple):
    """Times of fresh and pooled objects, with a number of them in flight at once. Times are in seconds, per object."""

    in_flight: int
    #: created, used and dropped
    fresh: float
    #: got, used, reset and put
    pooled: float

    @property
    def ratio(self) -> float:
        """Fresh divided by pooled."""
        return self.fresh / self.pooled

    @property
    def pays(self) -> bool:
        """Whether a pooled object is clearly cheaper."""
        return self.ratio >= WORTH_RATIO and self.fresh - self.pooled >= WORTH_SECONDS


class Measured(NamedTuple):
    """The results with one allocator."""

    one: Case
    many: Case
    #: how long a reset takes, in seconds
    reset: float
    #: resident memory of one object, in bytes; 0: too little to measure
    memory: int
    #: whether the measurement wrote to each page of the objects, because they are memory and there was no `--use`
    touched: bool

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Measured":
        """The reverse of `as_plain`."""
        return cls(**{**plain, "one": Case(**plain["one"]), "many": Case(**plain["many"])})

    def as_plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {**self._asdict(), "one": self.one._asdict(), "many": self.many._asdict()}

    @property
    def pays(self) -> bool:
        """Whether pooling pays off, with one or with many in flight."""
        return self.one.pays or self.many.pays


class Results(NamedTuple):
    """All results."""

    #: the user's expression
    create: str
    #: the name of the allocator in use
    allocator: str
    in_use: Measured
    #: `None` if the allocator cannot be tuned, or is already tuned
    tuned: Measured | None
    #: the environment variables that tune it
    tuning: dict[str, str]


def verdict(results: Results) -> str:
    """Whether pooling pays off, and why, in a sentence."""
    one, many = results.in_use.one, results.in_use.many
    tuned = results.tuned
    gain = None if tuned is None or tuned.pays else _gain_by_tuning(results.in_use, tuned)
    if gain is not None and results.in_use.pays:
        settings = " ".join(f"{name}={value}" for name, value in results.tuning.items())
        return (
            f"Tune the allocator instead of pooling it: with {settings} a fresh object costs "
            f"{seconds_text(gain.pooled)} instead of {seconds_text(gain.fresh)}, with {gain.in_flight} in flight, "
            "and a pool saves no more."
        )
    if not results.in_use.pays or (tuned is not None and not tuned.pays):  # or only just, in one of two measurements
        return f"Do not pool it: {_why_not(results.in_use)}."
    if one.pays and many.pays:
        return f"Pool it: {_why(one)}{_even_tuned(results)}."
    if many.pays:
        return f"Pool it where many are in flight at once (here {many.in_flight}): {_why(many)}; {_alone(one)}."
    return (
        f"Pool it where few are in flight at once: {_why(one)}, but with {many.in_flight} in flight {_no_gain(many)}."
    )


def _gain_by_tuning(in_use: Measured, tuned: Measured) -> Case | None:
    """The case where a fresh object is clearly cheaper with a tuned allocator, with that instead of the pooled one."""
    pairs = ((in_use.one, tuned.one), (in_use.many, tuned.many))
    return next((case for before, after in pairs if (case := before._replace(pooled=after.fresh)).pays), None)


def _why(case: Case) -> str:
    return (
        f"a fresh object costs {seconds_text(case.fresh)}, {_times(case)} as much as a pooled one "
        f"({seconds_text(case.pooled)})"
    )


def _times(case: Case) -> str:
    return f"{case.ratio:.1f} times" if case.ratio < 10 else f"{case.ratio:.0f} times"


def _even_tuned(results: Results) -> str:
    if results.tuned is None or not results.tuned.one.pays:
        return ""
    return f", and {_times(results.tuned.one)} with a tuned allocator"


def _alone(case: Case) -> str:
    return f"with one at a time, {_no_gain(case)}"


def _no_gain(case: Case) -> str:
    return f"pooling gains nothing noticeable ({seconds_text(case.fresh)} fresh, {seconds_text(case.pooled)} pooled)"


def _why_not(measured: Measured) -> str:
    one = measured.one
    costs = f"a fresh object costs {seconds_text(one.fresh)}, a pooled one {seconds_text(one.pooled)}"
    if measured.reset > one.pooled / 2:
        return f"{costs}, of which the reset takes {seconds_text(measured.reset)}"
    if implementation == "python" and one.pooled < 2e-6:
        return f"{costs}, because a get and a put take that long in pure Python; the C extension is ten times as fast"
    if one.ratio >= WORTH_RATIO:
        return f"{costs}: a pool saves too little to matter"
    if one.fresh < 10 * WORTH_SECONDS:
        return f"{costs}: it is created too quickly for a pool to be any better"
    return f"{costs}: nearly all of that is the use of the object, which a pool does not make cheaper"


def seconds_text(seconds: float) -> str:
    """`seconds` to three digits, with a suitable unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def bytes_text(count: float) -> str:
    """`count` bytes, with a suitable unit."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{_digits(count / size)} {unit}"
    return f"{count:.0f} bytes"


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"
