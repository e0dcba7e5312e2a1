"""Compute PyTorch's losses on small stored arrays, for `test_torch_cases`, which needs no PyTorch.

Run with torch 2.13.0 installed: ``python tests/torch_cases/make.py``. It writes, beside itself,
``cases.json`` (the settings of each case in `kldiv_cli.evaluate`'s words, and the scalars) and
``arrays.npz`` (the inputs in their storage dtype, and under ``map/ID`` the loss of each element).
PyTorch computes in float64 on the stored values. Under "selected" stand a batch of padded sequences
and what PyTorch makes of the positions that are chosen by indexing, or by its `ignore_index`.
"""

from __future__ import annotations

import json
import math
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).parent

Stored = npt.NDArray[Any]
Shape = tuple[int, ...]

SHAPES: tuple[Shape, ...] = ((), (1,), (7,), (3, 5), (2, 3, 4), (2, 3, 2, 5))
EMPTY: tuple[Shape, ...] = ((0,), (0, 5), (2, 0), (0, 0), (2, 0, 3), (3, 2, 0))
FACTORS: dict[Shape, tuple[Shape, ...]] = {
    (4, 5): ((), (5,), (4, 1), (1, 5), (4, 5)),
    (2, 3, 4): ((), (1,), (4,), (3, 1), (3, 4), (2, 1, 1), (1, 3, 1), (2, 3, 4)),
}
DTYPES = ("float16", "float32", "float64")
FLAGS = tuple(product((None, True, False), repeat=2))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One computation: what `kldiv_cli.evaluate` is given, by the names of the stored arrays."""

    id: str
    predictions: str
    targets: str
    settings: dict[str, Any]
    weight: str | None = None
    pos_weight: str | None = None
    flags: tuple[bool | None, bool | None] | None = None
    """PyTorch 0.4's `size_average` and `reduce`."""
    limit: bool = False
    """A target probability of 0 counts 0, whatever the prediction."""


@dataclass
class Arrays:
    """The inputs; each is drawn from its own seed, so that a new one changes no other."""

    stored: dict[str, Stored] = field(default_factory=dict)

    def add(self, kind: str, shape: Shape, dtype: str = "float64") -> str:
        name = f"{kind}/{_shape(shape)}/{dtype}"
        if name not in self.stored:
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            self.stored[name] = np.asarray(KINDS[kind](rng, shape)).astype(dtype)
        return name

    def give(self, name: str, values: Any) -> str:
        self.stored[name] = np.asarray(values)
        return name


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "0d"


# Inputs


Draw = Callable[[np.random.Generator, Shape], Any]


def _logits(rng: np.random.Generator, shape: Shape) -> Stored:
    return np.asarray(3 * rng.standard_normal(shape))


def _log_probs(rng: np.random.Generator, shape: Shape) -> Stored:
    z = np.atleast_1d(_logits(rng, shape))
    if z.ndim == 1 and z.size < 2:
        return -rng.exponential(size=shape)
    if z.size == 0:
        return z.reshape(shape)
    z = z - z.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def _sparse(rng: np.random.Generator, shape: Shape) -> Stored:
    p = np.exp(_log_probs(rng, shape))
    return np.where(rng.random(shape) < 0.4, 0.0, p)


def _one_hot(rng: np.random.Generator, shape: Shape) -> Stored:
    if not shape or 0 in shape:
        return np.ones(shape)
    return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]


def _masked(rng: np.random.Generator, shape: Shape) -> Stored:
    z = _logits(rng, shape)
    z[..., ::3] = -np.inf
    return z


def _zero_where_masked(rng: np.random.Generator, shape: Shape) -> Stored:
    p = np.exp(_log_probs(rng, shape))
    p[..., ::3] = 0.0
    return p


def _clamped(rng: np.random.Generator, shape: Shape) -> Stored:
    return rng.choice([0.0, 1e-300, 1e-30, 0.5, 1 - 2**-53, 1.0], size=shape)


KINDS: dict[str, Draw] = {
    "logits": _logits,
    "large-logits": lambda rng, shape: 400 * rng.standard_normal(shape),
    "masked-logits": _masked,
    "log-probs": _log_probs,
    "log-teacher": _log_probs,
    "masked-log-probs": lambda rng, shape: np.where(rng.random(shape) < 0.3, -np.inf, _log_probs(rng, shape)),
    "probs": lambda rng, shape: np.exp(_log_probs(rng, shape)),
    "soft": lambda rng, shape: np.exp(_log_probs(rng, shape)),
    "sparse": _sparse,
    "zero-where-masked": _zero_where_masked,
    "one-hot": _one_hot,
    "labels": lambda rng, shape: rng.integers(3, size=shape),
    "unit": lambda rng, shape: rng.random(shape),
    "saturated": _clamped,
    "binary": lambda rng, shape: rng.integers(2, size=shape),
    "fractions": lambda rng, shape: rng.random(shape),
    "beyond": lambda rng, shape: rng.choice([-1.0, 0.0, 0.5, 1.0, 2.0], size=shape),
    "infinite": lambda rng, shape: rng.choice([-np.inf, -1.0, 2.0, np.inf], size=shape),
    "weight": lambda rng, shape: rng.choice([0.0, 0.25, 1.0, 1.7], size=shape),
    "pos-weight": lambda rng, shape: 3 * rng.random(shape),
}


# Cases


def _cases(arrays: Arrays) -> Iterator[Case]:
    for family in (
        _kl_of_log_probs,
        _kl_of_logits,
        _kl_in_log_space,
        _kl_infinite,
        _kl_of_other_spaces,
        _bce_of_probs,
        _bce_of_logits,
        _weighted,
        _empty,
        _legacy,
    ):
        yield from family(arrays)


def _kl_of_log_probs(arrays: Arrays) -> Iterator[Case]:
    targets = (("soft", None), ("sparse", None), ("one-hot", "uint8"))
    for shape, dtype, (kind, stored_as) in product(SHAPES, DTYPES, targets):
        if kind == "one-hot" and not shape:
            continue
        for axis in _axes(shape) if (kind, dtype) == ("soft", "float64") else (-1,):
            yield Case(
                id=f"kl-log_probs-{kind}-{_shape(shape)}-{dtype}-axis{axis}",
                predictions=arrays.add("log-probs", shape, dtype),
                targets=arrays.add(kind, shape, stored_as or dtype),
                settings={"loss": "kl", "axis": axis},
            )


def _kl_of_logits(arrays: Arrays) -> Iterator[Case]:
    for shape, dtype, kind in product(SHAPES, DTYPES, ("soft", "one-hot")):
        for axis in _axes(shape):
            yield Case(
                id=f"kl-logits-{kind}-{_shape(shape)}-{dtype}-axis{axis}",
                predictions=arrays.add("logits", shape, dtype),
                targets=arrays.add(kind, shape, "bool" if kind == "one-hot" else dtype),
                settings={"loss": "kl", "log_softmax": axis},
            )
    for shape, temperature in product(((3, 5), (2, 3, 4)), (0.1, 2.0, 7.5)):
        for axis in _axes(shape):
            yield Case(
                id=f"kl-logits-T{temperature}-{_shape(shape)}-axis{axis}",
                predictions=arrays.add("logits", shape, "float32"),
                targets=arrays.add("soft", shape, "float32"),
                settings={"loss": "kl", "log_softmax": axis, "temperature": temperature},
            )
    for shape in ((7,), (3, 5), (2, 3, 4)):
        yield Case(
            id=f"kl-logits-large-{_shape(shape)}",
            predictions=arrays.add("large-logits", shape),
            targets=arrays.add("sparse", shape),
            settings={"loss": "kl", "log_softmax": -1},
        )


def _kl_in_log_space(arrays: Arrays) -> Iterator[Case]:
    for shape, dtype in product(SHAPES, DTYPES):
        yield Case(
            id=f"kl-log_target-{_shape(shape)}-{dtype}",
            predictions=arrays.add("log-probs", shape, dtype),
            targets=arrays.add("log-teacher", shape, dtype),
            settings={"loss": "kl", "axis": len(shape) // 2 if shape else 0, "log_target": True},
        )
    for shape in SHAPES:
        for axis in _axes(shape):
            yield Case(
                id=f"kl-log_target-logits-{_shape(shape)}-axis{axis}",
                predictions=arrays.add("logits", shape, "float32"),
                targets=arrays.add("log-teacher", shape, "float16"),
                settings={"loss": "kl", "log_softmax": axis, "log_target": True},
            )
    for shape, prediction in product(((7,), (3, 5), (2, 3, 4)), ("log-probs", "masked-log-probs")):
        yield Case(
            id=f"kl-log_target-zeros-{prediction}-{_shape(shape)}",
            predictions=arrays.add(prediction, shape),
            targets=arrays.add("masked-log-probs", shape, "float32"),
            settings={"loss": "kl", "log_target": True},
        )


def _kl_infinite(arrays: Arrays) -> Iterator[Case]:
    for shape, kind, limit in product(
        ((7,), (3, 5), (2, 3, 4)), ("soft", "sparse", "zero-where-masked"), (False, True)
    ):
        for prediction, settings in (
            ("masked-log-probs", {"axis": -1}),
            ("masked-logits", {"log_softmax": -1}),
        ):
            yield Case(
                id=f"kl-{prediction}-{kind}-{_shape(shape)}{'-limit' * limit}",
                predictions=arrays.add(prediction, shape),
                targets=arrays.add(kind, shape),
                settings={"loss": "kl", **settings},
                limit=limit,
            )
    rows = [[1, -math.inf, 2], [-math.inf] * 3, [1, math.inf, 2], [1, math.nan, 2], [0.5, -0.5, 0.25]]
    for axis in (0, 1):
        yield Case(
            id=f"kl-logits-nonfinite-axis{axis}",
            predictions=arrays.give("nonfinite-logits", np.array(rows, np.float32)),
            targets=arrays.add("soft", (5, 3)),
            settings={"loss": "kl", "log_softmax": axis},
        )
    yield from _kl_tables(arrays)


def _kl_tables(arrays: Arrays) -> Iterator[Case]:
    """Every kind of prediction against every kind of target."""
    inf, nan = math.inf, math.nan
    predictions = [-1, 0, 2, -inf, inf, nan]
    for name, targets in (
        ("target", [0, 0.5, 1, 2, -1, inf, nan]),
        ("log_target", [0, -1, 2, -inf, inf, nan, -1000]),
    ):
        x, y = np.meshgrid(predictions, targets, indexing="ij")
        yield Case(
            id=f"kl-every-{name}",
            predictions=arrays.give(f"every-prediction-by-{name}", x),
            targets=arrays.give(f"every-{name}", y),
            settings={"loss": "kl", "log_target": name == "log_target"},
        )


def _kl_of_other_spaces(arrays: Arrays) -> Iterator[Case]:
    for shape, dtype in product(((7,), (3, 5), (2, 3, 4)), DTYPES):
        yield Case(
            id=f"kl-probs-{_shape(shape)}-{dtype}",
            predictions=arrays.add("probs", shape, dtype),
            targets=arrays.add("sparse", shape, dtype),
            settings={"loss": "kl", "predictions_are": "probs"},
        )
    for shape, temperature in product(((3, 5), (2, 3, 4)), (None, 2.0)):
        for axis in _axes(shape):
            yield Case(
                id=f"kl-target_logits-{_shape(shape)}-axis{axis}-T{temperature}",
                predictions=arrays.add("logits", shape, "float16"),
                targets=arrays.add("large-logits" if temperature else "logits", shape, "float32"),
                settings={
                    "loss": "kl",
                    "log_softmax": axis,
                    "targets_are": "logits",
                    "temperature": temperature,
                },
            )
    for shape, axis in (((3,), 0), ((4, 3), 1), ((3, 5), 0), ((2, 3, 4), 1)):
        yield Case(
            id=f"kl-labels-{_shape(shape)}-axis{axis}",
            predictions=arrays.add("logits", shape, "float32"),
            targets=arrays.add("labels", shape[:axis] + shape[axis + 1 :], "int16"),
            settings={"loss": "kl", "log_softmax": axis, "targets_are": "labels"},
        )


def _bce_of_probs(arrays: Arrays) -> Iterator[Case]:
    for shape, dtype, kind in product(SHAPES, DTYPES, ("binary", "fractions")):
        yield Case(
            id=f"bce-probs-{kind}-{_shape(shape)}-{dtype}",
            predictions=arrays.add("unit", shape, dtype),
            targets=arrays.add(kind, shape, "int8" if kind == "binary" else dtype),
            settings={"loss": "bce", "axis": len(shape) // 2 if shape else 0},
        )
    for shape, kind in product(((7,), (3, 5), (2, 3, 2, 5)), ("binary", "fractions")):
        yield Case(
            id=f"bce-probs-clamped-{kind}-{_shape(shape)}",
            predictions=arrays.add("saturated", shape),
            targets=arrays.add(kind, shape, "bool" if kind == "binary" else "float64"),
            settings={"loss": "bce"},
        )


def _bce_of_logits(arrays: Arrays) -> Iterator[Case]:
    settings = {"loss": "bce", "predictions_are": "logits"}
    for shape, dtype, kind in product(SHAPES, DTYPES, ("binary", "fractions")):
        yield Case(
            id=f"bce-logits-{kind}-{_shape(shape)}-{dtype}",
            predictions=arrays.add("logits", shape, dtype),
            targets=arrays.add(kind, shape, "bool" if kind == "binary" else dtype),
            settings={**settings, "axis": len(shape) // 2 if shape else 0},
        )
    for logits, targets in (
        ("large-logits", "binary"),
        ("large-logits", "fractions"),
        ("logits", "beyond"),
        ("infinite", "binary"),
        ("infinite", "fractions"),
        ("infinite", "beyond"),
    ):
        yield Case(
            id=f"bce-logits-{logits}-{targets}",
            predictions=arrays.add(logits, (4, 6)),
            targets=arrays.add(targets, (4, 6)),
            settings=settings,
        )
    for temperature in (0.1, 2.0, 7.5):
        yield Case(
            id=f"bce-logits-T{temperature}",
            predictions=arrays.add("logits", (4, 5), "float32"),
            targets=arrays.add("fractions", (4, 5)),
            settings={**settings, "temperature": temperature},
        )


def _weighted(arrays: Arrays) -> Iterator[Case]:
    spaces = (("probs", "unit"), ("logits", "logits"))
    for (shape, factors), (space, predictions) in product(FACTORS.items(), spaces):
        for factor, which in product(factors, ("weight", "pos_weight", "both")):
            if space == "probs" and which != "weight":
                continue
            yield Case(
                id=f"bce-{space}-{which}-{_shape(shape)}-by-{_shape(factor)}",
                predictions=arrays.add(predictions, shape, "float32"),
                targets=arrays.add("fractions", shape, "float16"),
                settings={"loss": "bce", "predictions_are": space, "axis": 0},
                weight=None if which == "pos_weight" else arrays.add("weight", factor, "float32"),
                pos_weight=None if which == "weight" else arrays.add("pos-weight", factor, "float16"),
            )


def _empty(arrays: Arrays) -> Iterator[Case]:
    for shape in EMPTY:
        for axis in _axes(shape):
            for name, predictions, settings in (
                ("kl", "log-probs", {"loss": "kl", "axis": axis}),
                ("kl-logits", "logits", {"loss": "kl", "log_softmax": axis}),
                ("kl-log_target", "log-probs", {"loss": "kl", "axis": axis, "log_target": True}),
                ("bce-probs", "unit", {"loss": "bce", "axis": axis}),
                ("bce-logits", "logits", {"loss": "bce", "axis": axis, "predictions_are": "logits"}),
            ):
                yield Case(
                    id=f"empty-{name}-{_shape(shape)}-axis{axis}",
                    predictions=arrays.add(predictions, shape),
                    targets=arrays.add("unit", shape),
                    settings=settings,
                )


def _legacy(arrays: Arrays) -> Iterator[Case]:
    logits = arrays.add("logits", (3, 5), "float32")
    for name, predictions, targets, settings in (
        ("kl", arrays.add("log-probs", (3, 5)), arrays.add("sparse", (3, 5)), {"loss": "kl"}),
        ("kl-logits", logits, arrays.add("soft", (3, 5)), {"loss": "kl", "log_softmax": 0}),
        ("bce-probs", arrays.add("unit", (3, 5)), arrays.add("binary", (3, 5), "int8"), {"loss": "bce"}),
        (
            "bce-logits",
            logits,
            arrays.add("fractions", (3, 5)),
            {"loss": "bce", "predictions_are": "logits"},
        ),
    ):
        for size_average, reduce in FLAGS:
            yield Case(
                id=f"legacy-{name}-size_average={size_average}-reduce={reduce}",
                predictions=predictions,
                targets=targets,
                settings=settings,
                flags=(size_average, reduce),
            )


def _axes(shape: Shape) -> range:
    return range(max(len(shape), 1))


# Padded sequences


PADDED = (3, 6, 5)
LENGTHS = (6, 2, 3)


def _selections(arrays: Arrays) -> Iterator[tuple[Case, str | None]]:
    """Cases, and their masks; what stands where nothing counts is not to matter."""
    mask = np.arange(PADDED[1]) < np.array(LENGTHS)[:, None]
    elements = np.random.default_rng(1).random(PADDED) < 0.7
    of_positions, of_elements = arrays.give("mask/3x6", mask), arrays.give("mask/3x6x5", elements)

    def padded(kind: str, dtype: str, garbage: float, counts: Stored = mask[..., None]) -> str:
        whole = arrays.stored[arrays.add(kind, PADDED, dtype)]
        shape = "x".join(map(str, counts.shape))
        return arrays.give(f"padded-{kind}/{dtype}/{shape}", np.where(counts, whole, garbage).astype(dtype))

    for dtype in ("float32", "float64"):
        for kind, garbage, settings in (
            ("log-probs", np.nan, {}),
            ("logits", 999.0, {"log_softmax": 2}),
            ("unit", -100.0, {"predictions_are": "probs"}),
        ):
            case = Case(
                id=f"kl-{kind}-{dtype}",
                predictions=padded(kind, dtype, garbage),
                targets=padded("soft", dtype, np.inf),
                settings={"loss": "kl", **settings},
            )
            yield case, of_positions
        yield (
            Case(
                id=f"kl-log_target-{dtype}",
                predictions=padded("log-probs", dtype, np.nan, elements),
                targets=padded("log-teacher", dtype, np.nan, elements),
                settings={"loss": "kl", "log_target": True},
            ),
            of_elements,
        )
        yield (
            Case(
                id=f"bce-probs-{dtype}",
                predictions=padded("unit", dtype, 999.0, elements),
                targets=padded("fractions", dtype, -100.0, elements),
                weight=padded("weight", dtype, np.nan, elements),
                settings={"loss": "bce"},
            ),
            of_elements,
        )
        yield (
            Case(
                id=f"bce-logits-{dtype}",
                predictions=padded("logits", dtype, np.nan),
                targets=padded("binary", dtype, -100.0),
                settings={"loss": "bce", "predictions_are": "logits"},
            ),
            of_positions,
        )
        labels = arrays.stored[arrays.add("labels", PADDED[:-1], "int64")]
        yield (
            Case(
                id=f"labels-{dtype}",
                predictions=padded("logits", dtype, np.nan),
                targets=arrays.give("padded-labels/3x6", np.where(mask, labels, -100)),
                settings={"loss": "kl", "log_softmax": 2, "targets_are": "labels", "ignore_value": -100},
            ),
            None,
        )


def _selected(case: Case, mask: str | None, arrays: Arrays) -> dict[str, Any]:
    """The entry of a case of which only some counts."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation

    if mask is None:
        x = torch.from_numpy(arrays.stored[case.predictions].astype(np.float64)).flatten(0, 1)
        y = torch.from_numpy(arrays.stored[case.targets]).flatten()
        total, mean = (F.cross_entropy(x, y, ignore_index=-100, reduction=r) for r in ("sum", "mean"))
        scalars = {"sum": total.item(), "distmean": mean.item()}
    else:
        chosen = Arrays()
        for name in (case.predictions, case.targets, case.weight):
            if name is not None:
                chosen.give(name, arrays.stored[name][arrays.stored[mask]])
        settings = {**case.settings, **({"log_softmax": -1} if "log_softmax" in case.settings else {})}
        of_chosen = replace(case, settings=settings)
        scalars = {name: _loss(of_chosen, chosen, reduction=name).item() for name in ("sum", "mean")}
        if case.settings["loss"] == "kl" and arrays.stored[mask].ndim == 2:
            scalars["distmean"] = _loss(of_chosen, chosen, reduction="batchmean").item()
    return {
        "id": case.id,
        "predictions": case.predictions,
        "targets": case.targets,
        "weight": case.weight,
        "mask": mask,
        "settings": case.settings,
        "scalars": scalars,
    }


# PyTorch's answers


def _answer(case: Case, arrays: Arrays) -> tuple[Stored, dict[str, Any]]:
    """The loss of each element, and the case's entry in ``cases.json``."""
    loss = _loss(case, arrays, reduction="none")
    zero_policy = "torch" if not case.limit and bool(loss.isnan().any()) else "limit"
    entry: dict[str, Any] = {
        "id": case.id,
        "predictions": case.predictions,
        "targets": case.targets,
        "weight": case.weight,
        "pos_weight": case.pos_weight,
        "settings": {**case.settings, "zero_policy": zero_policy},
        "scalars": {name: _number(value) for name, value in _scalars(case, arrays, loss).items()},
    }
    if case.flags is not None:
        size_average, reduce = case.flags
        legacy = _loss(case, arrays, size_average=size_average, reduce=reduce)
        reduced = legacy.shape != loss.shape
        if not reduced and not bool((legacy == loss).all()):
            raise AssertionError(f"{case.id}: an unreduced loss that is not the map")
        entry["legacy"] = {
            "size_average": size_average,
            "reduce": reduce,
            "value": _number(legacy.item()) if reduced else None,
        }
    return loss.numpy(), entry


def _scalars(case: Case, arrays: Arrays, loss: torch.Tensor) -> dict[str, float]:
    axis = case.settings.get("log_softmax", case.settings.get("axis", -1))
    reductions = ("sum", "mean", "batchmean") if case.settings["loss"] == "kl" else ("sum", "mean")
    if case.limit:
        divisors = (1, max(loss.numel(), 1), loss.shape[0])
        scalars = {name: (loss.sum() / d).item() for name, d in zip(reductions, divisors, strict=True)}
    else:
        scalars = {name: _loss(case, arrays, reduction=name).item() for name in reductions}
    return {**scalars, "distmean": loss.sum(axis).mean().item()}


def _loss(case: Case, arrays: Arrays, **how: Any) -> torch.Tensor:
    """PyTorch's functional form, `how` being its reduction or its legacy flags."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation

    def load(name: str | None) -> torch.Tensor | None:
        return None if name is None else torch.from_numpy(arrays.stored[name].astype(np.float64))

    settings = case.settings
    x, weight, pos_weight = load(case.predictions), load(case.weight), load(case.pos_weight)
    assert x is not None
    temperature = settings.get("temperature")
    y, log_target = _targets(case, arrays, x)
    space = settings.get("predictions_are")
    if temperature is not None:
        x = x / temperature
    if settings["loss"] == "kl":
        if "log_softmax" in settings:
            x = F.log_softmax(x, settings["log_softmax"])
        elif space == "probs":
            x = x.log()
        loss = F.kl_div(x, y, log_target=log_target, **how)
        return torch.where(y == 0, 0.0, loss) if case.limit else loss
    if space == "logits":
        return F.binary_cross_entropy_with_logits(x, y, weight, pos_weight=pos_weight, **how)
    return F.binary_cross_entropy(x, y, weight, **how)


def _targets(case: Case, arrays: Arrays, x: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """The targets, and whether they are in log space."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation

    settings = case.settings
    stored = arrays.stored[case.targets]
    if settings.get("targets_are") == "labels":
        axis = settings["log_softmax"]
        one_hot = F.one_hot(torch.from_numpy(stored.astype(np.int64)), x.shape[axis])
        return one_hot.movedim(-1, axis).to(torch.float64), False
    y = torch.from_numpy(stored.astype(np.float64))
    if settings.get("targets_are") == "logits":
        return F.log_softmax(y / (settings["temperature"] or 1.0), settings["log_softmax"]), True
    return y, settings.get("log_target", False)


def _number(value: float) -> float | str:
    """JSON has no nan and no infinity: they are written as text."""
    return value if math.isfinite(value) else str(value)


def main() -> None:
    import torch
    from torch.nn import _reduction

    warnings.simplefilter("ignore")
    arrays = Arrays()
    cases = list(_cases(arrays))
    if len({case.id for case in cases}) != len(cases):
        raise AssertionError("two cases have the same id")
    entries, maps = [], {}
    for case in cases:
        maps[f"map/{case.id}"], entry = _answer(case, arrays)
        entries.append(entry)
    flags = [
        {
            "size_average": size_average,
            "reduce": reduce,
            "reduction": _reduction.legacy_get_string(size_average, reduce),
        }
        for size_average, reduce in FLAGS[1:]
    ]
    selected = [_selected(case, mask, arrays) for case, mask in list(_selections(arrays))]
    np.savez_compressed(HERE / "arrays.npz", **arrays.stored, **maps)
    header = f'{{"torch": "{torch.__version__}",\n"legacy": {json.dumps(flags)},\n"cases": [\n'
    lines, of_selections = (
        ",\n".join(json.dumps(entry, allow_nan=False) for entry in some) for some in (entries, selected)
    )
    text = f'{header}{lines}\n],\n"selected": [\n{of_selections}\n]}}\n'
    (HERE / "cases.json").write_text(text, encoding="utf-8")
    print(f"{len(cases)} cases, {len(selected)} selections, {len(arrays.stored)} inputs")


if __name__ == "__main__":
    main()
