"""Each way of misuse, end to end: what gives it away, what is said, and that the option mends it."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, log_softmax, logsumexp, softmax, xlogy

import kldiv_cli
from kldiv_cli.__main__ import main
from kldiv_cli.errors import KldivError
from kldiv_cli.evaluation import Evaluation
from kldiv_cli.findings import Finding
from kldiv_cli.kernels import SEGMENT

AnyArray = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Options = dict[str, Any]

evaluate = partial(kldiv_cli.evaluate, workers=1)
"""Threads take longer to start than most of these arrays take to be read."""


# Data, and the right number


class Place(NamedTuple):
    """A shape, its axis of classes, and another axis."""

    shape: tuple[int, ...]
    axis: int
    other: int

    @property
    def outer(self) -> tuple[int, ...]:
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]

    def of_classes(self, classes: int) -> Place:
        return self._replace(shape=(*self.shape[: self.axis], classes, *self.shape[self.axis + 1 :]))


SMALL = Place((40, 7), 1, 0)
PLACES = [
    pytest.param(SMALL, id="rows"),
    pytest.param(Place((7, 40), 0, 1), id="columns"),
    pytest.param(Place((5, 9, 8), 1, 2), id="the middle"),
    pytest.param(Place((3, 2, 5, 6), 3, 0), id="four dimensions"),
    pytest.param(Place((3, SEGMENT + 904), 1, 0), id="more than a segment"),
    pytest.param(Place((2 * SEGMENT, 3), 0, 1), id="two segments down"),
    pytest.param(Place((2, 70_000), 1, 0), id="windows"),
]
STORAGE = ["f2", "f4", "f8"]

everywhere = pytest.mark.parametrize("place", PLACES)
stored_as = pytest.mark.parametrize("dtype", STORAGE)
IN_EACH = ("rows", "more than a segment", "windows")
"""Where each dtype is tried; elsewhere the classes only lie differently, and float32 tells."""

stored_everywhere = pytest.mark.parametrize(
    ("place", "dtype"),
    [
        pytest.param(*place.values, dtype, id=f"{place.id}-{dtype}")
        for place in PLACES
        for dtype in STORAGE
        if place.id in IN_EACH or dtype == "f4"
    ],
)


class Pair:
    """What a student and a teacher give out, in every space, stored in one dtype."""

    def __init__(self, place: Place = SMALL, dtype: str = "f8", seed: int = 5) -> None:
        rng = np.random.default_rng(seed)
        # In float16 the rare ones of a large vocabulary would be rounded to 0.
        spread = 0.25 if dtype == "f2" and place.shape[place.axis] > 1000 else 1.0
        teacher = rng.normal(0, 2 * spread, place.shape)
        student = teacher + rng.normal(0, spread, place.shape)
        self.place, self.dtype = place, dtype
        self._logits = {"predictions": student, "targets": teacher}

    def __call__(self, name: str, space: str) -> AnyArray:
        logits, axis = self._logits[name], self.place.axis
        if space == "labels":
            return np.asarray(logits.argmax(axis))
        values = {
            "logits": logits,
            "log-probs": log_softmax(logits, axis),
            "probs": softmax(logits, axis),
        }[space]
        return np.asarray(values).astype(self.dtype)


def log_probs_of(values: AnyArray, space: str, axis: int) -> Floats:
    x = values.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(log_softmax(x, axis) if space == "logits" else np.log(x) if space == "probs" else x)


def kl_of(predictions: AnyArray, spaces: tuple[str, str], targets: AnyArray, axis: int) -> float:
    """The mean KL divergence of stored arrays, by SciPy."""
    log_p = log_probs_of(predictions, spaces[0], axis)
    y = targets.astype(np.float64)
    y = y if spaces[1] == "probs" else np.exp(log_probs_of(targets, spaces[1], axis))
    terms = xlogy(y, y) - y * np.where(y > 0, log_p, 0.0)
    return float(terms.sum(axis).mean())


# What is found


def finding(result: Evaluation, id: str) -> Finding:
    (found,) = (found for found in result.findings if found.id == id)
    return found


def where(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """The first place at which a mask holds."""
    return tuple(int(i) for i in np.argwhere(mask)[0])


def ids(result: Evaluation) -> list[str]:
    return [found.id for found in result.findings]


def spelled(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    """The findings with values in hexadecimal, so that nan equals nan."""
    return [asdict(f) | {"value": None if f.value is None else float(f.value).hex()} for f in findings]


def mended(options: Options, shown: str | None) -> Options:
    """The options with the one that a finding shows; what it replaces is dropped."""
    assert shown is not None
    changed, words = dict(options), shown.split()
    if "--predictions-are" in words and "log_softmax" in changed:
        changed["axis"] = changed.pop("log_softmax")
    if "--log-softmax" in words:
        changed.pop("axis", None)
    if "--targets-are" in words:
        changed.pop("log_target", None)
    while words:
        name = words.pop(0)
        value: Any = words.pop(0) if words and not words[0].startswith("--") else True
        key = name.removeprefix("--").replace("-", "_")
        changed[key] = int(value) if key in ("axis", "log_softmax") else value
    return changed


@contextlib.contextmanager
def pieces_of(segments: int, block: int) -> Iterator[None]:
    """Cut small arrays as large ones are: pieces of so many segments, blocks of so many elements."""
    sizes = {"PIECE": segments * SEGMENT, "_SMALLEST_BLOCK": block, "_LARGEST_BLOCK": block}
    with contextlib.ExitStack() as stack:
        for name, loaded in list(sys.modules.items()):
            if name.startswith("kldiv_cli"):
                for size in sizes.keys() & vars(loaded).keys():
                    stack.enter_context(mock.patch.object(loaded, size, sizes[size]))
        yield


class Run(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def findings(self) -> list[dict[str, Any]]:
        record = json.loads(self.out)
        found: list[dict[str, Any]] = record["findings"]
        return found


Compute = Callable[..., Run]


@pytest.fixture
def compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compute:
    """Run `kldiv compute` on arrays, saved to files first, with options as words or as of `evaluate`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gc.set_threshold", lambda *numbers: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)

    def run(predictions: AnyArray, targets: AnyArray, *words: str, **options: Any) -> Run:
        np.save("predictions.npy", predictions)
        np.save("targets.npy", targets)
        code = main(["compute", "predictions.npy", "targets.npy", *words, *words_of(options)])
        return Run(code, *capsys.readouterr())

    return run


def words_of(options: Options) -> list[str]:
    words = []
    for name, value in options.items():
        words.append(f"--{name.replace('_', '-')}")
        words.extend([] if value is True else [str(value)])
    return words


# Arrays that are in another space than they were taken for


class Mistake(NamedTuple):
    id: str
    spaces: tuple[str, str]
    """What predictions and targets are."""
    options: Callable[[Place], Options]
    shown: Callable[[Place], str]
    """The option that mends it."""


MISTAKES = [
    Mistake(
        "predictions-probs",
        ("probs", "probs"),
        lambda at: {"axis": at.axis},
        lambda at: "--predictions-are probs",
    ),
    Mistake(
        "predictions-logits",
        ("logits", "probs"),
        lambda at: {"axis": at.axis},
        lambda at: f"--log-softmax {at.axis}",
    ),
    Mistake(
        "targets-log-probs",
        ("log-probs", "log-probs"),
        lambda at: {"axis": at.axis},
        lambda at: "--log-target",
    ),
    Mistake(
        "targets-log-probs",
        ("logits", "log-probs"),
        lambda at: {"log_softmax": at.axis},
        lambda at: "--log-target",
    ),
    Mistake(
        "targets-probs",
        ("log-probs", "probs"),
        lambda at: {"axis": at.axis, "log_target": True},
        lambda at: "--targets-are probs",
    ),
    Mistake(
        "targets-logits",
        ("log-probs", "logits"),
        lambda at: {"axis": at.axis},
        lambda at: "--targets-are logits",
    ),
    Mistake(
        "softmax-of-probs",
        ("probs", "probs"),
        lambda at: {"log_softmax": at.axis},
        lambda at: "--predictions-are probs",
    ),
    Mistake(
        "softmax-of-target-probs",
        ("log-probs", "probs"),
        lambda at: {"axis": at.axis, "targets_are": "logits"},
        lambda at: "--targets-are probs",
    ),
    Mistake(
        "wrong-axis",
        ("log-probs", "probs"),
        lambda at: {"axis": at.other},
        lambda at: f"--axis {at.axis}",
    ),
    Mistake(
        "wrong-axis",
        ("probs", "probs"),
        lambda at: {"axis": at.other, "predictions_are": "probs"},
        lambda at: f"--axis {at.axis}",
    ),
    Mistake(
        "wrong-axis",
        ("logits", "probs"),
        lambda at: {"log_softmax": at.other},
        lambda at: f"--log-softmax {at.axis}",
    ),
    Mistake(
        "predictions-probs",
        ("probs", "probs"),
        lambda at: {"axis": at.other},
        lambda at: f"--predictions-are probs --axis {at.axis}",
    ),
    Mistake(
        "targets-log-probs",
        ("log-probs", "log-probs"),
        lambda at: {"axis": at.other},
        lambda at: f"--log-target --axis {at.axis}",
    ),
]
each_mistake = pytest.mark.parametrize(
    "mistake",
    [pytest.param(m, id=f"{m.id} of {m.spaces[0]} and {m.spaces[1]} {k}") for k, m in enumerate(MISTAKES)],
)


def arrays_of(mistake: Mistake, pair: Pair) -> tuple[AnyArray, AnyArray]:
    return pair("predictions", mistake.spaces[0]), pair("targets", mistake.spaces[1])


def told_option(findings: list[tuple[str, str | None]], mistake: Mistake) -> str | None:
    """The option of a mistake, which is told of predictions first."""
    return next(option for id, option in findings if id == mistake.id)


@each_mistake
@stored_everywhere
def test_an_array_in_another_space_is_found_and_the_option_shown_mends_it(
    mistake: Mistake, dtype: str, place: Place
) -> None:
    arrays, options = arrays_of(mistake, Pair(place, dtype)), mistake.options(place)
    result = evaluate(*arrays, **options)
    found = next(found for found in result.findings if found.id == mistake.id)
    assert (found.severity, found.option) == ("warning", mistake.shown(place))
    assert found.count
    assert found.place is not None
    assert found.option is not None
    assert found.option in found.message or "drop --" in found.message
    right = evaluate(*arrays, **mended(options, found.option))
    assert right.findings == ()
    expected = kl_of(arrays[0], mistake.spaces, arrays[1], place.axis)
    assert right.distmean == pytest.approx(expected, rel=1e-9)
    assert not math.isclose(result.distmean, right.distmean, rel_tol=1e-3)


@each_mistake
def test_the_command_shows_a_mistake_and_following_it_gives_the_right_number(
    mistake: Mistake, compute: Compute
) -> None:
    place = SMALL
    arrays, options = arrays_of(mistake, Pair(place, "f4")), mistake.options(place)
    wrong = compute(*arrays, "--json", **options)
    shown = told_option([(f["id"], f["option"]) for f in wrong.findings], mistake)
    assert shown == mistake.shown(place)
    assert wrong.code == 0
    assert wrong.err.splitlines() == [f"{f['severity']}: {f['message']}" for f in wrong.findings]
    right = compute(*arrays, "--json", "--strict", **mended(options, shown))
    assert (right.code, right.err, right.findings) == (0, "", [])
    expected = kl_of(arrays[0], mistake.spaces, arrays[1], place.axis)
    assert json.loads(right.out)["distmean"] == pytest.approx(expected, rel=1e-9)


@each_mistake
@pytest.mark.parametrize("place", [PLACES[1], PLACES[2], PLACES[4], PLACES[5]])
def test_findings_are_the_same_whatever_the_blocks_and_the_workers(mistake: Mistake, place: Place) -> None:
    arrays, options = arrays_of(mistake, Pair(place, "f4")), mistake.options(place)
    expected = evaluate(*arrays, **options, workers=1)
    size = math.prod(place.shape)
    for segments, block, workers in [
        (1, 16 * SEGMENT, 1),
        (2, size // 30, 2),
        (1, SEGMENT, 3),
        (32, size // 7, 1),
    ]:
        with pieces_of(segments, block):
            obtained = evaluate(*arrays, **options, workers=workers, memory=1 << 40)
        assert spelled(obtained.findings) == spelled(expected.findings)
        assert obtained.sum == expected.sum or math.isnan(expected.sum)


# Where the worst is


def worst_sum(masses: Floats, value: float, place: tuple[int, ...] | None) -> None:
    """`place` is that of the sum farthest from 1, to the rounding of float32."""
    farthest = float(np.abs(masses - 1).max())
    assert abs(value - 1) == pytest.approx(farthest, rel=1e-5)
    assert place is not None
    assert masses[place] == pytest.approx(value, rel=1e-5)


@stored_everywhere
def test_probabilities_for_log_probabilities_are_told_by_their_worst_sum(dtype: str, place: Place) -> None:
    pair = Pair(place, dtype)
    predictions = pair("predictions", "probs")
    found = finding(evaluate(predictions, pair("targets", "probs"), axis=place.axis), "predictions-probs")
    masses = np.exp(predictions.astype(np.float64)).sum(place.axis)
    assert found.count == masses.size
    assert found.value is not None
    worst_sum(masses, found.value, found.place)


@stored_everywhere
def test_logits_are_told_by_the_greatest_above_zero(dtype: str, place: Place) -> None:
    pair = Pair(place, dtype)
    logits = pair("predictions", "logits")
    found = finding(evaluate(logits, pair("targets", "probs"), axis=place.axis), "predictions-logits")
    assert found.count == np.count_nonzero(logits > 1e-3)
    assert found.place == where(logits == logits.max())
    assert found.value == logits.max()


@stored_everywhere
@pytest.mark.parametrize("space", ["logits", "log-probs"])
def test_targets_that_are_no_probabilities_are_told_by_the_least_below_zero(
    dtype: str, place: Place, space: str
) -> None:
    pair = Pair(place, dtype)
    targets = pair("targets", space)
    found = finding(evaluate(pair("predictions", "log-probs"), targets, axis=place.axis), f"targets-{space}")
    assert found.count == np.count_nonzero(targets < 0)
    assert found.place == where(targets == targets.min())
    assert found.value == targets.min()


@stored_everywhere
def test_a_softmax_of_probabilities_is_told_by_the_first(dtype: str, place: Place) -> None:
    pair = Pair(place, dtype)
    result = evaluate(pair("predictions", "probs"), pair("targets", "probs"), log_softmax=place.axis)
    found = finding(result, "softmax-of-probs")
    assert (found.count, found.place) == (math.prod(place.outer), (0,) * len(place.outer))
    assert found.value == pytest.approx(1, abs=1e-2)


@everywhere
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", ["predictions", "targets"])
def test_a_distribution_that_is_not_normalised_is_told_with_its_sum(
    place: Place, dtype: str, name: str
) -> None:
    pair = Pair(place, dtype)
    arrays = {"predictions": pair("predictions", "log-probs"), "targets": pair("targets", "probs")}
    odd = tuple(n // 2 for n in place.outer)
    row: Any = (*odd[: place.axis], slice(None), *odd[place.axis :])
    arrays[name][row] = (
        arrays[name][row] + np.log(0.75) if name == "predictions" else arrays[name][row] * 0.75
    )
    found = finding(evaluate(*arrays.values(), axis=place.axis), f"{name}-unnormalised")
    assert (found.severity, found.count, found.place) == ("warning", 1, odd)
    assert found.value == pytest.approx(0.75, rel=1e-5)
    if name == "predictions":
        assert found.option == f"--log-softmax {place.axis}"
        assert found.option in found.message
        right = evaluate(*arrays.values(), log_softmax=place.axis)
        assert right.findings == ()
        expected = kl_of(arrays["predictions"], ("logits", "probs"), arrays["targets"], place.axis)
        assert right.distmean == pytest.approx(expected, rel=1e-9)


# Terms


@stored_everywhere
def test_terms_that_pytorch_makes_nan_are_counted_and_the_policy_decides(dtype: str, place: Place) -> None:
    pair = Pair(place, dtype)
    first = (slice(None),) * place.axis + (slice(0, 2),)
    predictions, targets = pair("predictions", "log-probs"), pair("targets", "probs")
    predictions[first], targets[first] = -math.inf, 0.0
    predictions = np.asarray(log_softmax(predictions.astype("f8"), place.axis)).astype(dtype)
    targets = np.asarray(targets / targets.sum(place.axis, keepdims=True, dtype="f8")).astype(dtype)
    count = 2 * math.prod(place.outer)
    limit = evaluate(predictions, targets, axis=place.axis)
    found = finding(limit, "zero-terms")
    assert ids(limit) == ["zero-terms"]
    assert (found.severity, found.count, found.place) == ("note", count, (0,) * len(place.shape))
    assert (found.value, found.option) == (0.0, "--zero-policy torch")
    expected = kl_of(predictions, ("log-probs", "probs"), targets, place.axis)
    assert limit.distmean == pytest.approx(expected, rel=1e-9)
    torch = evaluate(predictions, targets, **mended({"axis": place.axis}, found.option))
    assert math.isnan(torch.sum)
    found = finding(torch, "zero-terms")
    assert (found.severity, found.count, found.option) == ("warning", count, "--zero-policy limit")
    assert evaluate(predictions, targets, **mended({"axis": place.axis}, found.option)).sum == limit.sum


@stored_everywhere
def test_infinite_terms_are_counted_and_the_first_is_named(dtype: str, place: Place) -> None:
    pair = Pair(place, dtype)
    logits, targets = pair("predictions", "logits"), pair("targets", "probs")
    last = (slice(None),) * place.axis + (slice(-1, None),)
    logits[last] = -math.inf
    possible = np.zeros(place.shape, bool)
    possible[last] = targets[last] > 0
    result = evaluate(logits, targets, log_softmax=place.axis)
    found = finding(result, "infinite-terms")
    assert result.sum == math.inf
    assert (found.severity, found.count, found.value) == (
        "warning",
        int(np.count_nonzero(possible)),
        math.inf,
    )
    assert found.place == where(possible)


# The reduction, precision, sameness, padding, nothing


@pytest.mark.parametrize(
    ("place", "reduction", "told"),
    [
        (SMALL, "mean", "all 280 elements"),
        (Place((5, 9, 8), 2, 0), "mean", "all 360 elements"),
        (Place((5, 9, 8), 2, 0), "batchmean", "the first dimension, 5"),
        (Place((7,), 0, 0), "batchmean", "the first dimension, 7"),
        (SMALL, "batchmean", None),
        (Place((5, 9, 8), 2, 0), "distmean", None),
        (Place((5, 9, 8), 2, 0), "sum", None),
        (Place((5, 9, 8), 2, 0), None, None),
    ],
)
def test_a_mean_that_is_not_that_of_the_distributions_is_a_note_of_the_command(
    place: Place, reduction: str | None, told: str | None, compute: Compute
) -> None:
    pair = Pair(place)
    arrays = (pair("predictions", "log-probs"), pair("targets", "probs"))
    asked = {} if reduction is None else {"reduction": reduction}
    run = compute(*arrays, "--json", "--strict", axis=place.axis, **asked)
    assert run.code == 0
    assert [f["id"] for f in run.findings] == ["which-mean"] * (told is not None)
    if told is not None:
        (found,) = run.findings
        assert (found["severity"], found["option"]) == ("note", "--reduction distmean")
        assert told in found["message"]
        right = compute(*arrays, "--json", "--reduction", "distmean", axis=place.axis)
        assert right.findings == []
        expected = kl_of(arrays[0], ("log-probs", "probs"), arrays[1], place.axis)
        assert json.loads(right.out)["distmean"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtypes", [("f2", "f8"), ("f8", "f2"), ("f2", "f2")])
def test_a_mean_below_the_rounding_of_float16_is_a_note_that_a_wider_type_mends(
    dtypes: tuple[str, str],
) -> None:
    rng = np.random.default_rng(3)
    teacher = rng.normal(0, 1, (300, 50))
    student = teacher + rng.normal(0, 0.01, teacher.shape)
    x, y = log_softmax(student, -1), softmax(teacher, -1)
    coarse = evaluate(x.astype(dtypes[0]), y.astype(dtypes[1]))
    found = finding(coarse, "low-precision")
    assert found.severity == "note"
    assert found.value is not None
    assert abs(coarse.distmean) < found.value
    fine = evaluate(x.astype("f4"), y.astype("f4"))
    assert fine.findings == ()
    assert abs(coarse.distmean - fine.distmean) < found.value


@stored_everywhere
def test_the_same_data_twice_is_a_warning_until_one_element_differs(dtype: str, place: Place) -> None:
    logits = Pair(place, dtype)("targets", "logits")
    options: Options = {"log_softmax": place.axis, "targets_are": "logits"}
    result = evaluate(logits, logits.copy(), **options)
    found = finding(result, "identical")
    assert (found.severity, result.sum) == ("warning", 0.0)
    other = logits.copy()
    other[(-1,) * logits.ndim] += 3
    assert "identical" not in ids(evaluate(logits, other, **options))


@stored_as
def test_the_same_data_with_nan_are_the_same_data(dtype: str) -> None:
    logits = Pair(SMALL, dtype)("targets", "logits")
    logits[0, 0] = math.nan
    options: Options = {"log_softmax": 1, "targets_are": "logits"}
    assert "identical" in ids(evaluate(logits, logits.copy(), **options))
    other = logits.copy()
    other[0, 0] = 1.0
    assert "identical" not in ids(evaluate(logits, other, **options))


def test_one_file_twice_is_the_same_data(compute: Compute) -> None:
    pair = Pair()
    p = pair("targets", "probs")
    assert "identical" in [f["id"] for f in compute(p, p, "--json", predictions_are="probs").findings]
    run = Run(
        main(["compute", "targets.npy", "targets.npy", "--predictions-are", "probs", "--strict"]), "", ""
    )
    assert run.code == 1


FILLS = [
    ("targets", "probs", 0.0, "--mask FILE"),
    ("targets", "probs", -100.0, "--ignore-value -100"),
    ("targets", "log-probs", 0.0, "--mask FILE"),
    ("targets", "log-probs", -100.0, "--ignore-value -100"),
    ("targets", "logits", 0.0, "--mask FILE"),
    ("predictions", "log-probs", 0.0, "--mask FILE"),
    ("predictions", "log-probs", -100.0, "--mask FILE"),
    ("predictions", "probs", 0.0, "--mask FILE"),
    ("predictions", "logits", 0.0, "--mask FILE"),
    ("predictions", "logits", 5.5, "--mask FILE"),
    ("targets", "logits", 5.5, "--mask FILE"),
]


@pytest.mark.parametrize(("name", "space", "fill", "option"), FILLS)
@stored_everywhere
def test_padding_is_counted_and_leaving_it_out_gives_the_mean_of_the_rest(
    name: str, space: str, fill: float, option: str, dtype: str, place: Place
) -> None:
    if fill == 5.5:  # which fewer logits may be by chance
        place = place.of_classes(max(16, place.shape[place.axis]))
    pair = Pair(place, dtype)
    spaces = {"predictions": "log-probs", "targets": "probs"} | {name: space}
    arrays = {role: pair(role, spaces[role]) for role in spaces}
    kept = np.arange(math.prod(place.outer)).reshape(place.outer) % 3 != 1
    np.moveaxis(arrays[name], place.axis, -1)[~kept] = fill
    options: Options = {"axis": place.axis} | {f"{role}_are": spaces[role] for role in spaces}
    found = finding(evaluate(*arrays.values(), **options), f"{name}-padding")
    assert (found.severity, found.option) == ("warning", option)
    assert (found.count, found.place) == (int(np.count_nonzero(~kept)), where(~kept))
    left_out: Options = {"mask": kept} if option == "--mask FILE" else {"ignore_value": -100.0}
    right = evaluate(*arrays.values(), **options, **left_out)
    assert right.findings == ()
    rest = [np.moveaxis(array, place.axis, -1)[kept] for array in arrays.values()]
    expected = kl_of(rest[0], (spaces["predictions"], spaces["targets"]), rest[1], -1)
    assert right.distmean == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("fill", "classes", "told"), [(5.5, 16, True), (5.5, 15, False), (0.0, 4, True), (0.0, 3, False)]
)
@pytest.mark.parametrize("name", ["predictions", "targets"])
def test_equal_logits_are_padding_where_they_are_too_many_for_chance(
    name: str, fill: float, classes: int, told: bool
) -> None:
    pair = Pair(SMALL.of_classes(classes))
    arrays = {role: pair(role, "logits") for role in ("predictions", "targets")}
    arrays[name][5] = fill
    result = evaluate(*arrays.values(), log_softmax=1, targets_are="logits")
    assert (f"{name}-padding" in ids(result)) is told


@pytest.mark.parametrize("name", ["predictions", "targets"])
def test_a_distribution_of_minus_infinity_is_not_said_to_be_minus_100(name: str) -> None:
    pair = Pair()
    arrays = {role: pair(role, "log-probs") for role in ("predictions", "targets")}
    arrays[name][2] = -math.inf
    found = finding(evaluate(*arrays.values(), log_target=True), f"{name}-padding")
    assert (found.count, found.place, found.option) == (1, (2,), "--mask FILE")
    assert "all of probability 0" in found.message
    assert "-100" not in found.message


@pytest.mark.parametrize("shape", [(0, 7), (7, 0), (0,), (2, 0, 3)])
def test_empty_arrays_are_the_only_finding(shape: tuple[int, ...]) -> None:
    empty = np.zeros(shape)
    ways: list[Options] = [{}, {"log_softmax": -1}, {"loss": "bce"}]
    for options in ways:
        result = evaluate(empty, empty, **options)
        assert [(f.id, f.severity, f.count) for f in result.findings] == [("empty", "warning", 0)]


def test_where_all_is_masked_nothing_counts() -> None:
    pair = Pair()
    result = evaluate(pair("predictions", "log-probs"), pair("targets", "probs"), mask=np.zeros((40, 1)))
    assert ids(result) == ["empty"]


@stored_as
@pytest.mark.parametrize("how", ["shuffled", "rolled"])
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_in_another_order_are_found_and_not_once_they_are_put_right(
    dtype: str, how: str, axis: int
) -> None:
    place = Place((400, 10), 1, 0) if axis else Place((10, 400), 0, 1)
    pair = Pair(place, dtype)
    right, targets = pair("predictions", "logits"), pair("targets", "probs")
    order = np.roll(np.arange(400), 1) if how == "rolled" else np.random.default_rng(2).permutation(400)
    wrong = np.take(right, order, 1 - axis)
    found = finding(evaluate(wrong, targets, log_softmax=axis), "misaligned")
    assert found.severity == "warning"
    assert found.count is not None
    assert 32 <= found.count <= 400
    assert found.value is not None
    assert found.value < 0.3
    assert "are both in the same order?" in found.message
    result = evaluate(right, targets, log_softmax=axis)
    assert result.findings == ()
    assert result.distmean == pytest.approx(kl_of(right, ("logits", "probs"), targets, axis), rel=1e-9)


@pytest.mark.parametrize("rows", [1000, 4000])
@pytest.mark.parametrize("targets_are", ["probs", "labels"])
def test_rows_in_another_order_are_found_in_a_thousand_classes(rows: int, targets_are: str) -> None:
    rng = np.random.default_rng(1)
    teacher = 5 * rng.standard_normal((rows, 1000), "f4")
    student = (teacher + rng.standard_normal(teacher.shape, "f4"))[rng.permutation(rows)]
    targets = teacher.argmax(-1) if targets_are == "labels" else softmax(teacher, -1)
    assert ids(evaluate(student, targets, log_softmax=-1, targets_are=targets_are)) == ["misaligned"]


# BCE


def events(dtype: str = "f8", shape: tuple[int, ...] = (40, 7)) -> tuple[AnyArray, AnyArray]:
    """Logits of single events, and whether they happened."""
    rng = np.random.default_rng(11)
    logits = rng.normal(0, 2, shape)
    return logits.astype(dtype), (rng.random(shape) < expit(logits)).astype("u1")


def bce_of(logits: AnyArray, y: AnyArray) -> float:
    """The mean of softplus(z) - y z, by SciPy."""
    z = logits.astype(np.float64)
    return float((logsumexp([np.zeros_like(z), z], axis=0) - y * z).mean())


def refusal(run: Run) -> str:
    """The one line that says why nothing was computed."""
    assert (run.code, run.out) == (2, "")
    (line,) = run.err.splitlines()
    return line


@stored_as
def test_bce_of_logits_is_refused_and_the_option_named_mends_it(dtype: str, compute: Compute) -> None:
    logits, y = events(dtype)
    outside = (logits < 0) | (logits > 1)
    place = where(outside)
    line = refusal(compute(logits, y, loss="bce"))
    assert f"{np.count_nonzero(outside)} of 280 probabilities outside [0, 1]" in line
    assert f"first {float(logits[place])} at index {place}" in line
    assert line.endswith("if these are logits, say --predictions-are logits")
    right = compute(logits, y, "--json", "--strict", loss="bce", predictions_are="logits")
    assert (right.code, right.err, right.findings) == (0, "", [])
    assert json.loads(right.out)["mean"] == pytest.approx(bce_of(logits, y), rel=1e-9)


@stored_as
def test_labels_of_minus_one_are_refused_until_they_are_mapped(dtype: str, compute: Compute) -> None:
    logits, y = events(dtype)
    signs = 2 * y.astype("i1") - 1
    line = refusal(compute(np.clip(expit(logits.astype("f8")), 0.01, 0.99), signs, loss="bce"))
    assert f"{np.count_nonzero(signs < 0)} of 280 targets outside [0, 1], first -1.0" in line
    assert line.endswith("labels of -1 and 1 are to be mapped to these")
    p = np.clip(expit(logits.astype("f8")), 0.01, 0.99).astype(dtype)
    assert evaluate(p, y, loss="bce").findings == ()


@stored_as
def test_labels_of_minus_one_beside_logits_are_a_warning_as_pytorch_takes_them(dtype: str) -> None:
    logits, y = events(dtype)
    signs = 2 * y.astype("i1") - 1
    options: Options = {"loss": "bce", "predictions_are": "logits"}
    found = finding(evaluate(logits, signs, **options), "targets-outside")
    assert (found.severity, found.count, found.value) == ("warning", int(np.count_nonzero(signs < 0)), -1.0)
    assert found.place == where(signs < 0)
    right = evaluate(logits, y, **options)
    assert right.findings == ()
    assert right.mean == pytest.approx(bce_of(logits, y), rel=1e-9)


@stored_as
@pytest.mark.parametrize("shape", [(40, 7), (2, 70_000)])
def test_clamped_terms_are_counted_and_logits_are_not_clamped(dtype: str, shape: tuple[int, ...]) -> None:
    logits, y = events(dtype, shape)
    logits[:, ::3] = np.where(y[:, ::3], -150, 150)
    p = expit(logits.astype("f8")).astype(dtype)
    p[:, ::3] = 1 - y[:, ::3]
    result = evaluate(p, y, loss="bce")
    clamped = ((p == 0) & (y == 1)) | ((p == 1) & (y == 0))
    found = finding(result, "clamped-terms")
    assert (found.severity, found.count, found.value) == ("warning", int(np.count_nonzero(clamped)), 100.0)
    assert found.place == where(clamped)
    assert found.option == "--predictions-are logits"
    right = evaluate(logits, y, **mended({"loss": "bce"}, found.option))
    assert right.findings == ()
    assert right.mean == pytest.approx(bce_of(logits, y), rel=1e-9)
    assert right.mean > result.mean


@stored_as
def test_saturated_probabilities_are_a_note_and_logits_are_not_rounded(dtype: str) -> None:
    logits, y = events(dtype)
    logits[:, 0] = np.where(y[:, 0], 100, -100)
    p = expit(logits.astype("f8")).astype(dtype)
    p[:, 0] = y[:, 0]
    result = evaluate(p, y, loss="bce")
    exact = (p == 0) | (p == 1)
    found = finding(result, "saturated")
    assert ids(result) == ["saturated"]
    assert (found.severity, found.count) == ("note", int(np.count_nonzero(exact)))
    assert found.place == where(exact)
    assert found.value == y[0, 0]
    right = evaluate(logits, y, **mended({"loss": "bce"}, found.option))
    assert right.findings == ()
    assert right.mean == pytest.approx(bce_of(logits, y), rel=1e-9)


@stored_as
@pytest.mark.parametrize("shape", [(40, 7), (9,), (2, 70_000), (3, SEGMENT + 904)])
def test_a_sigmoid_of_probabilities_is_found_and_the_option_shown_mends_it(
    dtype: str, shape: tuple[int, ...]
) -> None:
    logits, y = events("f8", shape)
    p = np.clip(expit(logits), 0.001, 0.999).astype(dtype)
    options: Options = {"loss": "bce", "predictions_are": "logits"}
    result = evaluate(p, y, **options)
    found = finding(result, "sigmoid-of-probs")
    assert ids(result) == ["sigmoid-of-probs"]
    assert (found.severity, found.count, found.place) == ("warning", p.size, None)
    assert found.option == "--predictions-are probs"
    right = evaluate(p, y, **mended(options, found.option))
    assert right.findings == ()
    q = p.astype(np.float64)
    assert right.mean == pytest.approx(-(y * np.log(q) + (1 - y) * np.log1p(-q)).mean(), rel=1e-9)
    assert evaluate(logits.astype(dtype), y, **options).findings == ()


@pytest.mark.parametrize("place", [(0, 0), (20, 3), (39, 6)])
@pytest.mark.parametrize("odd", [-1e-3, 1.001, -30.0])
def test_one_logit_outside_the_unit_interval_tells_that_they_are_logits(
    place: tuple[int, int], odd: float
) -> None:
    z, y = np.random.default_rng(1).random((40, 7)), events()[1]
    z[place] = odd
    for segments, block in ((32, 1 << 20), (1, 70), (1, 7)):
        with pieces_of(segments, block):
            result = evaluate(z, y, loss="bce", predictions_are="logits", memory=1 << 40)
            assert result.findings == ()


def test_probabilities_are_found_among_what_counts() -> None:
    z, y = np.random.default_rng(1).random((40, 7)), events()[1]
    z[::5] = -100.0
    mask = (np.arange(40) % 5 != 0)[:, None]
    options: Options = {"loss": "bce", "predictions_are": "logits"}
    assert ids(evaluate(z, y, **options)) == []
    assert finding(evaluate(z, y, **options, mask=mask), "sigmoid-of-probs").count == 32 * 7


# Shapes: errors that name the option


@stored_as
def test_shapes_that_differ_are_refused_and_broadcasting_is_asked_for(dtype: str, compute: Compute) -> None:
    pair = Pair(dtype=dtype)
    predictions, targets = pair("predictions", "log-probs"), pair("targets", "probs")[:1]
    line = refusal(compute(predictions, targets))
    assert "(40, 7)" in line
    assert "(1, 7)" in line
    assert "--broadcast" in line
    right = compute(predictions, targets, "--json", broadcast=True)
    expected = kl_of(predictions, ("log-probs", "probs"), np.repeat(targets, 40, 0), 1)
    assert json.loads(right.out)["distmean"] == pytest.approx(expected, rel=1e-9)


@stored_as
@pytest.mark.parametrize("longer", ["predictions", "targets"])
@pytest.mark.parametrize("place", [SMALL, Place((7, 40), 0, 1), Place((5, 9, 8), 1, 2)])
def test_a_padded_vocabulary_is_refused_with_both_lengths_and_trimming_mends_it(
    dtype: str, longer: str, place: Place, compute: Compute
) -> None:
    pair = Pair(place, dtype)
    arrays = {name: pair(name, "logits") for name in ("predictions", "targets")}
    plain = [array.copy() for array in arrays.values()]
    widths = [(0, 9 * (d == place.axis)) for d in range(len(place.shape))]
    arrays[longer] = np.pad(arrays[longer], widths)
    length = place.shape[place.axis]
    options: Options = {"log_softmax": place.axis, "targets_are": "logits"}
    line = refusal(compute(*arrays.values(), **options))
    lengths = (length + 9, length) if longer == "predictions" else (length, length + 9)
    assert f"axis {place.axis} has {lengths[0]} and {lengths[1]} entries, is one padded?" in line
    assert f"--trim-axis cuts it to {length}" in line
    right = compute(*arrays.values(), "--json", "--strict", trim_axis=True, **options)
    assert (right.code, right.err, right.findings) == (0, "", [])
    expected = kl_of(plain[0], ("logits", "logits"), plain[1], place.axis)
    assert json.loads(right.out)["distmean"] == pytest.approx(expected, rel=1e-9)


@stored_as
@pytest.mark.parametrize("place", [SMALL, Place((7, 40), 0, 1), Place((5, 9, 8), 1, 2)])
def test_class_indices_for_targets_are_refused_and_saying_so_mends_it(
    dtype: str, place: Place, compute: Compute
) -> None:
    pair = Pair(place, dtype)
    logits, labels = pair("predictions", "logits"), pair("targets", "labels")
    line = refusal(compute(logits, labels, log_softmax=place.axis))
    assert line.endswith("if these are class labels, say --targets-are labels")
    right = compute(logits, labels, "--json", "--strict", log_softmax=place.axis, targets_are="labels")
    assert (right.code, right.err, right.findings) == (0, "", [])
    picked = np.take_along_axis(
        log_probs_of(logits, "logits", place.axis), np.expand_dims(labels, place.axis), place.axis
    )
    assert json.loads(right.out)["distmean"] == pytest.approx(-picked.mean(), rel=1e-9)


def test_every_error_that_is_mended_by_an_option_is_one_of_ours() -> None:
    pair = Pair()
    cases: list[tuple[tuple[AnyArray, AnyArray], Options]] = [
        ((pair("predictions", "logits"), pair("targets", "labels")), {}),
        ((pair("predictions", "logits"), np.pad(pair("targets", "probs"), [(0, 0), (0, 2)])), {}),
        ((pair("predictions", "logits"), pair("targets", "probs")), {"loss": "bce"}),
    ]
    for arrays, options in cases:
        with pytest.raises(KldivError) as error:
            evaluate(*arrays, **options)
        assert "\n" not in str(error.value)
        assert "--" in str(error.value)


# What no value gives away


@stored_as
@pytest.mark.parametrize("targets_are", ["probs", "logits"])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_divides_logits_and_its_square_multiplies_nothing(
    dtype: str, targets_are: str, temperature: float, compute: Compute
) -> None:
    pair = Pair(dtype=dtype)
    logits, targets = pair("predictions", "logits"), pair("targets", targets_are)
    run = compute(logits, targets, "--json", log_softmax=1, targets_are=targets_are, temperature=temperature)
    record = json.loads(run.out)
    divided = targets.astype("f8") / (temperature if targets_are == "logits" else 1)
    expected = kl_of(logits.astype("f8") / temperature, ("logits", targets_are), divided, 1)
    assert record["distmean"] == pytest.approx(expected, rel=1e-9)
    assert record["settings"]["temperature"] == temperature
    assert (run.err, run.findings) == ("", [])


@pytest.mark.parametrize("format", ["plain", "table", "md"])
@pytest.mark.parametrize("targets_are", ["probs", "logits"])
def test_a_temperature_is_told_beside_the_number(format: str, targets_are: str, compute: Compute) -> None:
    pair = Pair()
    arrays = (pair("predictions", "logits"), pair("targets", targets_are))
    run = compute(*arrays, format=format, log_softmax=1, targets_are=targets_are, temperature=0.5)
    assert "logits / 0.5" in run.out


@pytest.mark.parametrize("format", ["plain", "table", "json", "jsonl", "csv", "md"])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_direction_is_printed_with_both_names(format: str, swapped: bool, compute: Compute) -> None:
    pair = Pair()
    p, q = pair("predictions", "probs"), pair("targets", "probs")
    run = compute(*((q, p) if swapped else (p, q)), "--format", format, predictions_are="probs")
    assert (run.code, run.err) == (0, "")
    if format in ("json", "jsonl"):
        record = json.loads(run.out)
        assert record["direction"] == "KL(targets ‖ predictions)"
        assert (record["predictions"]["address"], record["targets"]["address"]) == (
            "predictions.npy",
            "targets.npy",
        )
    else:
        assert "predictions.npy" in run.out
        assert "targets.npy" in run.out
        assert "KL(" in run.out


# More log-probabilities than are all added up


@pytest.mark.parametrize(
    ("place", "dtype"),
    [
        (Place((5000, 257), 1, 0), "f2"),
        (Place((5000, 257), 1, 0), "f4"),
        (Place((257, 5000), 0, 1), "f4"),
        (Place((50, 257, 100), 1, 2), "f4"),
    ],
)
def test_every_fourth_of_many_distributions_is_added_up_whatever_the_blocks(place: Place, dtype: str) -> None:
    pair = Pair(place, dtype)
    predictions, targets = pair("predictions", "log-probs"), pair("targets", "probs")
    odd = np.random.default_rng(1).random(place.outer) < 0.01
    np.moveaxis(predictions, place.axis, -1)[odd] -= 0.5
    sums = sum(np.indices(place.outer))
    expected = evaluate(predictions, targets, axis=place.axis, workers=1)
    (found,) = expected.findings
    assert found.id == "predictions-unnormalised"
    assert found.count == np.count_nonzero(odd & (sums % 4 == 0))
    assert found.place is not None
    assert odd[found.place]
    assert sum(found.place) % 4 == 0
    assert found.value == pytest.approx(math.exp(-0.5), rel=0.01)
    assert "(of every fourth)" in found.message
    for workers, size in [(1, 100_000), (2, 333_333), (3, 16 * SEGMENT)]:
        with pieces_of(32, size):
            obtained = evaluate(predictions, targets, axis=place.axis, workers=workers, memory=1 << 40)
        assert obtained.findings == expected.findings
    other = evaluate(np.asfortranarray(predictions), np.asfortranarray(targets), axis=place.axis)
    assert other.findings == expected.findings


@pytest.mark.parametrize(("rows", "classes"), [(9, 131_072), (12, 150_000), (3, 400_000), (25, 50_000)])
def test_nothing_is_said_of_many_log_probabilities_of_a_large_vocabulary(rows: int, classes: int) -> None:
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal((rows, classes), "f4") for _ in range(2))
    assert evaluate(log_softmax(x, -1), softmax(y, -1)).findings == ()


def test_where_all_of_many_log_probabilities_are_0_none_is_padding() -> None:
    y = np.full((120_000, 10), 0.1)
    assert "predictions-padding" not in ids(evaluate(np.zeros(y.shape), y))


def test_padding_of_many_log_probabilities_is_said_to_be_sampled() -> None:
    y = np.full((120_000, 10), 0.1)
    x = np.log(y)
    x[::3] = 0
    found = finding(evaluate(x, y), "predictions-padding")
    assert found.count == 10_000
    assert "of the predictions (of every fourth) all 0" in found.message


# Pieces and blocks


def test_a_softmax_of_probabilities_is_counted_alike_whatever_the_blocks() -> None:
    rng = np.random.default_rng(1)
    predictions = softmax(rng.normal(0, 2, (30_000, 10)), -1)
    predictions[20_000:] = rng.normal(0, 3, (10_000, 10))
    targets = softmax(rng.normal(0, 2, (30_000, 10)), -1)
    for segments, block in [(32, 1 << 20), (32, 70_000), (1, 16 * SEGMENT), (1, 1000)]:
        with pieces_of(segments, block):
            result = evaluate(predictions, targets, log_softmax=-1, memory=1 << 40)
        assert finding(result, "softmax-of-probs").count == 20_000


def test_one_row_of_nan_does_not_hide_a_softmax_of_probabilities() -> None:
    pair = Pair()
    predictions = pair("predictions", "probs")
    predictions[20] = math.nan
    result = evaluate(predictions, pair("targets", "probs"), log_softmax=-1)
    assert finding(result, "softmax-of-probs").count == 39


# Several at once, and how it is told


def test_several_mistakes_at_once_are_all_told() -> None:
    rng = np.random.default_rng(4)
    predictions = rng.normal(0, 2, (50, 6))
    targets = rng.normal(0, 2, (50, 6))
    predictions[3], predictions[7, 2], predictions[9] = 0.0, math.nan, -math.inf
    targets[4], targets[8, 1] = -100.0, math.inf
    result = evaluate(predictions, targets)
    assert {"predictions-padding", "predictions-logits", "targets-padding", "targets-logits"} <= set(
        ids(result)
    )
    assert "nan-terms" in ids(result)


@pytest.mark.parametrize("predictions_are", ["log-probs", "probs", "logits"])
@pytest.mark.parametrize("targets_are", ["probs", "log-probs", "logits"])
@pytest.mark.parametrize("zero_policy", ["limit", "torch"])
def test_no_wild_data_make_the_findings_fail(
    predictions_are: str, targets_are: str, zero_policy: str
) -> None:
    rng = np.random.default_rng(6)
    odd = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, -100.0, 1e300, -1e300, 5e-324]
    for shape in [(), (1,), (5,), (4, 3), (2, 3, 2), (3, 1), (3, SEGMENT + 1)]:
        for share in (0.1, 0.9):
            predictions, targets = (
                np.where(rng.random(shape) < share, rng.choice(odd, shape), rng.normal(0, 2, shape))
                for _ in range(2)
            )
            result = evaluate(
                predictions,
                targets,
                predictions_are=predictions_are,
                targets_are=targets_are,
                zero_policy=zero_policy,
            )
            for found in result.findings:
                assert found.severity in ("note", "warning")
                assert "{" not in found.message
                assert "\n" not in found.message


def test_a_lone_target_below_zero_is_told() -> None:
    assert "targets-logits" in ids(evaluate(np.float64(-0.3), np.float64(-0.2)))


@pytest.mark.parametrize(
    ("spaces", "options", "severities"),
    [
        (("log-probs", "probs"), {}, []),
        (("log-probs", "probs"), {"reduction": "mean"}, ["note"]),
        (("logits", "probs"), {}, ["warning"]),
        (("logits", "probs"), {"reduction": "mean"}, ["note", "warning"]),
        (("logits", "logits"), {}, ["warning", "warning"]),
    ],
)
def test_strict_fails_exactly_where_there_is_a_warning(
    spaces: tuple[str, str], options: Options, severities: list[str], compute: Compute
) -> None:
    pair = Pair()
    arrays = (pair("predictions", spaces[0]), pair("targets", spaces[1]))
    for strict in (False, True):
        run = compute(*arrays, "--json", *["--strict"] * strict, **options)
        told = [f["severity"] for f in run.findings if f["id"] not in ("nan-terms", "negative-kl")]
        assert told == severities
        assert run.code == int(strict and "warning" in severities)


def test_a_finding_in_json_has_these_keys_and_its_message_is_on_stderr(compute: Compute) -> None:
    pair = Pair()
    arrays = (pair("predictions", "logits"), pair("targets", "probs"))
    run = compute(*arrays, "--json")
    found, negative = run.findings
    assert list(found) == ["id", "severity", "message", "count", "place", "value", "option"]
    place = np.unravel_index(arrays[0].argmax(), (40, 7))
    assert found["place"] == list(place)
    assert (found["value"], found["count"]) == (arrays[0].max(), np.count_nonzero(arrays[0] > 1e-3))
    assert run.err == f"warning: {found['message']}\nwarning: {negative['message']}\n"
