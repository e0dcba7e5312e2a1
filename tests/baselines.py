"""Baselines of every kind: what tests of their file, of suggestions and of reports share."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from kldiv_cli.baseline import Baseline, Recorded, Setting
from kldiv_cli.evaluation import Input
from kldiv_cli.octaves import Octaves
from kldiv_cli.spec import Loss

DIGEST: Final = "0123456789abcdef" * 4
SETTINGS: Final[dict[str, Setting]] = {
    "loss": ("kl",),
    "log_softmax": True,
    "predictions_are": "logits",
    "targets_are": "probs",
    "axis": 1,
    "temperature": None,
    "zero_policy": "limit",
    "broadcast": False,
    "ignore_value": None,
    "trim_axis": False,
    "blocks_of": None,
    "weight": False,
    "pos_weight": False,
    "mask": False,
}

NAMES: Final = st.text(max_size=8)
"""Of any characters, control characters and half surrogate pairs too."""
FLOATS: Final = st.floats() | st.integers(-(2**62), 2**62)
_LOSSES: Final = st.sampled_from([("kl",), ("bce",), ("kl", "bce")])
_NUMBERS: Final = st.none() | st.floats(allow_nan=False, allow_infinity=False)
_STATISTICS: Final = st.sampled_from(
    ["elements", "sum", "mean", "p0.1", "p5", "p10", "p99.9", "maximum", "top1", "by_target.one.count", "z9"]
)


def described(space: str = "logits", *, address: str = "q.npy", sha256: str = DIGEST) -> Input:
    return Input(address, (40, 5), "float64", space, sha256)


def recorded(*, loss: Loss = "kl", **numbers: float) -> Recorded:
    """A pair with such numbers; two underscores stand for a dot."""
    return Recorded(
        settings={**SETTINGS, "loss": (loss,)},
        shape=(40, 5),
        inputs={"predictions": described(), "targets": described("probs", address="p.npy")},
        statistics={loss: {name.replace("__", "."): value for name, value in numbers.items()}},
        histograms={loss: Octaves(1, -3, (2, 0, 8), 0, 0)},
    )


@st.composite
def _inputs(draw: st.DrawFn) -> Input:
    shape = tuple(draw(st.lists(st.integers(0, 2**40), max_size=4)))
    return Input(draw(NAMES), shape, draw(NAMES), draw(NAMES), draw(NAMES))


@st.composite
def _octaves(draw: st.DrawFn) -> Octaves:
    counts = tuple(draw(st.lists(st.integers(0, 2**40), max_size=5)))
    first = draw(st.integers(-1074, 1024 - len(counts)))
    return Octaves(
        *(draw(st.integers(0, 9)), first, counts, draw(st.integers(0, 9)), draw(st.integers(0, 9)))
    )


@st.composite
def records(draw: st.DrawFn) -> Recorded:
    losses: tuple[Loss, ...] = draw(_LOSSES)
    roles = ["predictions", "targets", *draw(st.sets(st.sampled_from(["weight", "pos_weight", "mask"])))]
    return Recorded(
        settings={
            "loss": losses,
            "log_softmax": draw(st.booleans()),
            "predictions_are": draw(NAMES),
            "targets_are": draw(NAMES),
            "axis": draw(st.integers(0, 9)),
            "temperature": draw(_NUMBERS),
            "zero_policy": draw(NAMES),
            "broadcast": draw(st.booleans()),
            "ignore_value": draw(_NUMBERS | st.sampled_from(["nan", "inf", "-inf"])),
            "trim_axis": draw(st.booleans()),
            "blocks_of": draw(st.none() | st.integers(2, 99)),
            **{role: role in roles for role in ("weight", "pos_weight", "mask")},
        },
        shape=tuple(draw(st.lists(st.integers(0, 2**40), max_size=4))),
        inputs={role: draw(_inputs()) for role in roles},
        statistics={loss: draw(st.dictionaries(_STATISTICS, FLOATS)) for loss in losses},
        histograms=draw(st.dictionaries(st.sampled_from(losses), _octaves())),
    )


def baselines() -> st.SearchStrategy[Baseline]:
    return st.dictionaries(NAMES, records(), max_size=3).map(
        lambda pairs: Baseline(path="b.json", pairs=pairs)
    )
