"""Random inputs of every kind, cut and stored in every way: what tests of whole evaluations share."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import h5py
import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from scipy.special import softmax  # type: ignore[import-untyped]

from kldiv_cli.blocks import Block
from kldiv_cli.budget import Resources
from kldiv_cli.evaluation import Evaluation, evaluate_sources
from kldiv_cli.findings import Finding
from kldiv_cli.kernels import SEGMENT
from kldiv_cli.shapes import map_shape
from kldiv_cli.sources import ArraySource, Inputs, Source
from kldiv_cli.spec import resolve_spec
from kldiv_cli.spread import LIMIT

AnyArray = npt.NDArray[Any]
Array = npt.NDArray[np.float64]


def repeatable(max_examples: int) -> settings:
    return settings(
        derandomize=True,
        deadline=None,
        max_examples=max_examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


# How data is cut


class Cut(NamedTuple):
    """The sizes by which data is cut; all but `segment` must make no difference."""

    segment: int = SEGMENT
    piece: int = 16 * SEGMENT
    smallest: int = 16 * SEGMENT
    largest: int = 1 << 20
    limit: int = LIMIT
    """Of more values there is a sketch: this does make a difference."""


@contextlib.contextmanager
def cutting(cut: Cut) -> Iterator[None]:
    """Make small arrays take the paths of large ones, wherever the sizes were imported to."""
    sizes = {
        "SEGMENT": cut.segment,
        "PIECE": cut.piece,
        "_SMALLEST_BLOCK": cut.smallest,
        "_LARGEST_BLOCK": cut.largest,
        "LIMIT": cut.limit,
    }
    with contextlib.ExitStack() as stack:
        for name, loaded in list(sys.modules.items()):
            if name.startswith("kldiv_cli"):
                for size in sizes.keys() & vars(loaded).keys():
                    stack.enter_context(mock.patch.object(loaded, size, sizes[size]))
        yield


def whole(cut: Cut) -> Cut:
    """The same segments and statistics, but everything in one block and one piece."""
    return cut._replace(piece=1 << 20, smallest=1 << 20, largest=1 << 20)


LIMITS = st.sampled_from([LIMIT, LIMIT, 3, 0])
"""Values are kept, or kept where there are hardly any, or sketched."""


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    segment = draw(st.integers(1, 9))
    smallest = segment * draw(st.integers(1, 6))
    largest = smallest + draw(st.integers(0, 60))
    return Cut(segment, draw(st.integers(1, 60)), smallest, largest, draw(LIMITS))


# What is computed


class Kind(NamedTuple):
    """Options of `resolve_spec` and the spaces the data must be in."""

    losses: tuple[str, ...]
    predictions: str
    targets: str
    softmax: bool = False
    weight: bool = False
    pos_weight: bool = False
    temperature: float | None = None

    def options(self, axis: int, **others: Any) -> dict[str, Any]:
        return {
            "losses": self.losses,
            "predictions_are": self.predictions,
            "targets_are": self.targets,
            "log_softmax": axis if self.softmax else None,
            "axis": axis,
            "temperature": self.temperature,
            "weight": self.weight,
            "pos_weight": self.pos_weight,
            **others,
        }


KINDS = [
    Kind(("kl",), "log-probs", "probs"),
    Kind(("kl",), "log-probs", "log-probs"),
    Kind(("kl",), "probs", "probs"),
    Kind(("kl",), "logits", "probs", softmax=True),
    Kind(("kl",), "logits", "log-probs", softmax=True, temperature=0.7),
    Kind(("kl",), "logits", "logits", softmax=True, temperature=3.0),
    Kind(("kl",), "log-probs", "logits"),
    Kind(("kl",), "logits", "labels", softmax=True),
    Kind(("bce",), "probs", "probs", weight=True),
    Kind(("bce",), "log-probs", "probs"),
    Kind(("bce",), "logits", "probs", weight=True, pos_weight=True),
    Kind(("bce",), "logits", "logits", temperature=2.0),
    Kind(("bce",), "logits", "labels"),
    Kind(("bce",), "logits", "labels", softmax=True, weight=True),
    Kind(("bce",), "logits", "logits", softmax=True),
    Kind(("kl", "bce"), "logits", "probs", softmax=True),
    Kind(("bce", "kl"), "probs", "labels"),
]
SINGLE = [kind for kind in KINDS if len(kind.losses) == 1]
WINDOWED = [kind for kind in KINDS if kind.losses != ("bce",) or kind.softmax or kind.targets == "labels"]


class Case(NamedTuple):
    kind: Kind
    axis: int
    predictions: AnyArray
    targets: AnyArray
    weight: AnyArray | None
    pos_weight: AnyArray | None
    options: dict[str, Any]
    mask: AnyArray | None = None

    def inputs(self) -> dict[str, AnyArray]:
        """The arrays there are, by name."""
        names = ("predictions", "targets", "weight", "pos_weight", "mask")
        named = zip(names, (*self[2:6], self.mask), strict=True)
        return {name: array for name, array in named if array is not None}


SEEDS = st.integers(0, 2**32 - 1)
FLOATS = st.sampled_from(["<f2", "<f4", "<f8"])


@st.composite
def shapes(draw: st.DrawFn, min_dims: int = 1, max_dims: int = 4, longest: int = 40) -> tuple[int, ...]:
    """A few dimensions, one of them possibly long."""
    shape = draw(st.lists(st.integers(1, 4), min_size=min_dims, max_size=max_dims))
    one_is_long = draw(st.booleans())
    if shape and one_is_long:
        shape[draw(st.integers(0, len(shape) - 1))] = draw(st.integers(1, longest))
    return tuple(shape)


@st.composite
def cases(draw: st.DrawFn, kinds: list[Kind] = KINDS, special: bool = True, selected: bool = False) -> Case:
    kind = draw(st.sampled_from(kinds))
    shape = draw(shapes())
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(draw(SEEDS))
    odd = special and draw(st.booleans())
    predictions = values_in(kind.predictions, rng, shape, axis, odd).astype(draw(FLOATS))
    targets = values_in(kind.targets, rng, shape, axis, odd)
    targets = targets.astype(
        draw(st.sampled_from(["u1", "<i2", "<i8"]) if kind.targets == "labels" else FLOATS)
    )
    weight = rng.random(shape[-draw(st.integers(1, len(shape))) :]) if kind.weight else None
    pos_weight = rng.random((1,) * draw(st.integers(0, len(shape)))) if kind.pos_weight else None
    options = {
        "zero_policy": draw(st.sampled_from(["limit", "torch"])),
        "by_target": draw(st.booleans()),
        "quantiles": draw(st.sampled_from([(), (0.25, 1.0)])),
        "worst": draw(st.sampled_from([0, 1, 5])),
        "blocks_of": draw(st.sampled_from([None, 2, 3])),
        "top1": "kl" in kind.losses and draw(st.booleans()),
        "histogram": draw(st.booleans()),
    }
    mask = draw(masks(shape, axis)) if selected else None
    if selected and (mask is None or draw(st.booleans())):
        options["ignore_value"] = draw(st.sampled_from(targets.ravel().tolist()))
    options["mask"] = mask is not None
    return Case(kind, axis, predictions, targets, weight, pos_weight, kind.options(axis, **options), mask)


def any_cases(kinds: list[Kind] = KINDS) -> st.SearchStrategy[Case]:
    """Cases of which everything counts or only some."""
    return st.booleans().flatmap(lambda selected: cases(kinds, selected=selected))


MASK_DTYPES = st.sampled_from(["?", "u1", "<i8", ">i2", "<f4", "<f8"])


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, ...], axis: int) -> AnyArray | None:
    """What distributions count, or what elements of them, in any shape; maybe none."""
    form = draw(st.sampled_from(["none", "without axis", "stretched", "full", "full"]))
    if form == "none":
        return None
    lengths = list(shape)
    if form == "stretched":
        for d in draw(st.sets(st.integers(0, len(shape) - 1))):
            lengths[d] = 1
    if form != "full":
        lengths[axis] = 1
    rng = np.random.default_rng(draw(SEEDS))
    mask = rng.random(lengths) < draw(st.sampled_from([0.0, 0.3, 0.7, 0.95, 1.0]))
    if form == "without axis":
        mask = mask.squeeze(axis)
    return mask.astype(draw(MASK_DTYPES))


def counted(case: Case) -> npt.NDArray[np.bool_]:
    """Which elements count, by NumPy alone."""
    shape, axis = case.predictions.shape, case.axis % case.predictions.ndim
    everything = np.ones(shape, bool)
    if case.mask is not None:
        mask = case.mask.astype(bool)
        without_axis = mask.shape == shape[:axis] + shape[axis + 1 :]
        everything &= np.expand_dims(mask, axis) if without_axis else mask
    ignored = case.options.get("ignore_value")
    if ignored is not None:
        heeded = case.targets != ignored
        everything &= np.expand_dims(heeded, axis) if case.kind.targets == "labels" else heeded
    return everything


def values_in(space: str, rng: np.random.Generator, shape: tuple[int, ...], axis: int, odd: bool) -> AnyArray:
    """Values of a space; `odd` ones have zeros, ones and infinities among them."""
    if space == "labels":
        others = shape[:axis] + shape[axis:][1:]
        return np.asarray(rng.integers(0, shape[axis], others))
    logits = 3 * rng.standard_normal(shape)
    if odd:
        logits[rng.random(shape) < 0.15] = -math.inf
        np.moveaxis(logits, axis, 0)[0] = 0.0
    if space == "logits":
        return logits
    probabilities = softmax(logits, axis=axis)
    with np.errstate(divide="ignore"):
        return np.asarray(probabilities if space == "probs" else np.log(probabilities))


class MapArray:
    """A map in memory that knows whether every element was written once."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.values = np.full(shape, math.nan)
        self.written = np.zeros(shape, int)

    def write(self, block: Block, values: AnyArray) -> None:
        self.values[block] = values
        self.written[block] += 1


class Outcome(NamedTuple):
    evaluations: tuple[Evaluation, ...]
    map: Array | None
    steps: tuple[int, ...]
    """What progress was told."""

    @property
    def fingerprint(self) -> tuple[Any, ...]:
        """Everything in the results that must not differ by a bit."""
        return (
            *(
                (
                    *(e.loss, e.shape, e.axis, spelled(e.scalars), spelled(e.by_target), spelled(e.findings)),
                    *(spelled(e.statistics), spelled(e.worst), spelled(e.top1)),
                )
                for e in self.evaluations
            ),
            None if self.map is None else bits(self.map),
        )


def spelled(value: Any) -> Any:
    """The value with floats in hexadecimal, so that == compares bits and nan equals nan."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Finding):
        return ("finding", *(spelled(getattr(value, name)) for name in value.__dataclass_fields__))
    if isinstance(value, Mapping):
        return tuple((name, spelled(part)) for name, part in value.items())
    if isinstance(value, tuple):
        return tuple(spelled(part) for part in value)
    return value


def bits(array: Array) -> bytes:
    """The array, bit by bit; one nan is as good as another."""
    return np.where(np.isnan(array), math.nan, array).tobytes()


def run(
    options: dict[str, Any],
    inputs: Mapping[str, AnyArray | Source],
    *,
    cut: Cut | None = None,
    **resources: int | None,
) -> Outcome:
    """Evaluate, with the map where there is one loss, and check what holds of every run."""
    sources = Inputs(
        **{
            name: array if isinstance(array, Source) else ArraySource(np.asarray(array), name)
            for name, array in inputs.items()
        }
    )
    spec = resolve_spec(**options)
    shape = map_shape(spec, sources)
    writer = MapArray(shape)
    steps: list[int] = []
    with cutting(cut or whole(Cut())):
        evaluations = evaluate_sources(
            spec,
            sources,
            writers=[writer] if len(spec.losses) == 1 else [],
            resources=Resources(**{"memory": 1 << 40, **resources}),
            progress=steps.append,
        )
    if len(spec.losses) == 1:
        assert (writer.written == 1).all()
    assert sum(steps) == math.prod(shape)
    return Outcome(evaluations, writer.values if len(spec.losses) == 1 else None, tuple(steps))


def evaluated(predictions: AnyArray, targets: AnyArray, **options: Any) -> Outcome:
    """One run in one piece, of options as `resolve_spec` takes them."""
    factors: dict[str, AnyArray] = {
        name: options.pop(name) for name in ("weight", "pos_weight", "mask") if name in options
    }
    options |= dict.fromkeys(factors, True)
    return run(options, {"predictions": predictions, "targets": targets} | factors)


def finding(outcome: Outcome, id: str) -> Finding | None:
    (evaluation,) = outcome.evaluations
    return next((found for found in evaluation.findings if found.id == id), None)


def drop(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    axis %= len(shape)
    return shape[:axis] + shape[axis + 1 :]


# How it is stored


def strided(array: AnyArray) -> AnyArray:
    """A view with gaps, and backwards along the last dimension."""
    wide = np.zeros([2 * length for length in array.shape], array.dtype)
    every_other: tuple[Any, ...] = (..., *(slice(None, None, 2) for _ in array.shape))
    view: AnyArray = wide[every_other]
    view = view[..., ::-1] if array.ndim else view
    view[...] = array
    return view


def swapped(array: AnyArray) -> AnyArray:
    return array.astype(array.dtype.newbyteorder())


def read_only(array: AnyArray) -> AnyArray:
    copy = array.copy(order="F")
    copy.flags.writeable = False
    return copy


FORMATS = ["npy", "npy fortran", "npz", "npz deflated", "hdf5", "hdf5 chunked", "hdf5 gzip"]


def stored(path: Path, array: AnyArray, data: st.DataObject) -> str:
    """Store an array in any of the formats and return its address."""
    if data.draw(st.booleans()):
        array = swapped(array)
    form = data.draw(st.sampled_from(FORMATS if array.ndim else FORMATS[:-2]))
    if form.startswith("npy"):
        np.save(f"{path}.npy", np.array(array, order="F" if "fortran" in form else "C"))
        return f"{path}.npy"
    if form.startswith("npz"):
        save = np.savez_compressed if "deflated" in form else np.savez
        save(f"{path}.npz", values=array)
        return f"{path}.npz::values"
    chunks = None
    if array.ndim and form != "hdf5":
        chunks = data.draw(st.tuples(*(st.integers(1, length) for length in array.shape)))
    with h5py.File(f"{path}.h5", "w") as file:
        compression = "gzip" if "gzip" in form else None
        file.create_dataset("group/values", data=array, chunks=chunks, compression=compression)
    return f"{path}.h5::group/values"
