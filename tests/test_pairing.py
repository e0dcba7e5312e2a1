"""Which arrays belong together: every line that is suggested runs and gives the right number."""

from __future__ import annotations

import csv
import itertools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from scipy import special

from kldiv_cli.__main__ import main
from kldiv_cli.inspection import Inspection, inspect_array
from kldiv_cli.pairing import Suggestion, suggest
from kldiv_cli.sources.listing import list_arrays

Floats = npt.NDArray[np.float64]

SHAPES = {"vector": ((7,), 0), "last": ((6, 5), 1), "first": ((5, 6), 0), "middle": ((3, 5, 4), 1)}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def inspected(*files: str) -> list[Inspection]:
    return [inspect_array(stored) for file in files for stored in list_arrays(file)]


def suggested(*files: str, most: int = 8) -> list[Suggestion]:
    return suggest(inspected(*files), most=most)[0]


def run(suggestion: Suggestion, capsys: pytest.CaptureFixture[str]) -> float:
    """Run the line as a shell would split it, and read its sum."""
    name, *arguments = shlex.split(suggestion.command)
    assert (name, arguments[0]) == ("kldiv", suggestion.verb)
    compute = suggestion.verb == "compute"
    code = main([*arguments, "--format", "csv", *(["--reduction", "sum"] if compute else [])])
    out, err = capsys.readouterr()
    assert code == 0, err
    header, row = csv.reader(out.splitlines())
    found = dict(zip(header, row, strict=True))
    return float(found["sum"]) if compute else float(found["kl.mean"] or "nan") * int(found["kl.count"])


def logits(random: np.random.Generator, shape: tuple[int, ...], axis: int) -> Floats:
    return np.asarray(random.normal(0, 2, shape))


def log_probs(random: np.random.Generator, shape: tuple[int, ...], axis: int) -> Floats:
    return np.asarray(special.log_softmax(logits(random, shape, axis), axis))


def probs(random: np.random.Generator, shape: tuple[int, ...], axis: int) -> Floats:
    return np.exp(log_probs(random, shape, axis))


def labels(random: np.random.Generator, shape: tuple[int, ...], axis: int) -> npt.NDArray[np.int64]:
    without = shape[:axis] + shape[axis + 1 :]
    found = np.asarray(random.integers(0, shape[axis], without))
    found.flat[:3] = (0, 2, 1)[: found.size]
    return found


PREDICTIONS: dict[str, tuple[Callable[..., Any], Callable[[Floats, int], Floats]]] = {
    "logits": (logits, lambda z, axis: np.asarray(special.log_softmax(z, axis))),
    "log-probs": (log_probs, lambda x, axis: x),
    "probs": (probs, lambda p, axis: np.log(p)),
}
TARGETS: dict[str, tuple[Callable[..., Any], Callable[[Floats, int], Floats]]] = {
    "logits": (logits, lambda z, axis: np.asarray(special.softmax(z, axis))),
    "log-probs": (log_probs, lambda x, axis: np.exp(x)),
    "probs": (probs, lambda p, axis: p),
}


PAIRS = list(itertools.combinations_with_replacement(PREDICTIONS, 2))
"""Predictions and targets, in the order in which one of them is taken for the predictions."""


def kl_div(log_q: Floats, p: Floats) -> float:
    return float(np.sum(special.xlogy(p, p) - p * log_q))


# Every kind of pair


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("predictions", "targets"), PAIRS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_line_for_a_pair_of_one_shape_gives_its_divergence(
    shape: str,
    predictions: str,
    targets: str,
    dtype: str,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lengths, axis = SHAPES[shape]
    if predictions == targets == "logits":
        axis = len(lengths) - 1  # nothing shows it, so the last is taken
    q = PREDICTIONS[predictions][0](rng, lengths, axis).astype(dtype)
    p = TARGETS[targets][0](rng, lengths, axis).astype(dtype)
    np.save("student.npy", q)
    np.save("teacher.npy", p)
    (suggestion,) = suggested("teacher.npy", "student.npy")
    assert (suggestion.predictions, suggestion.targets) == ("student.npy", "teacher.npy")
    assert suggestion.verb == ("compare" if predictions == targets else "compute")
    expected = kl_div(
        PREDICTIONS[predictions][1](q.astype("f8"), axis), TARGETS[targets][1](p.astype("f8"), axis)
    )
    assert run(suggestion, capsys) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shape", ["last", "first", "middle"])
@pytest.mark.parametrize("predictions", PREDICTIONS)
@pytest.mark.parametrize("dtype", ["u1", "i8"])
def test_the_line_for_labels_gives_the_cross_entropy(
    shape: str, predictions: str, dtype: str, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths, axis = SHAPES[shape]
    make, as_logs = PREDICTIONS[predictions]
    q, classes = make(rng, lengths, axis), labels(rng, lengths, axis).astype(dtype)
    np.save("q.npy", q)
    np.save("labels.npy", classes)
    (suggestion,) = suggested("labels.npy", "q.npy")
    chosen = np.take_along_axis(as_logs(q, axis), np.expand_dims(classes.astype(int), axis), axis)
    assert run(suggestion, capsys) == pytest.approx(-float(chosen.sum()), rel=1e-12)


@pytest.mark.parametrize("predictions", PREDICTIONS)
@pytest.mark.parametrize(("ignored", "dtype"), [(-100, "i8"), (-1, "i1"), (255, "u1"), (255, "i4")])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_line_for_labels_names_the_one_value_that_is_no_class(
    predictions: str,
    ignored: int,
    dtype: str,
    axis: int,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, as_logs = PREDICTIONS[predictions]
    q, classes = make(rng, (9, 6), axis), labels(rng, (9, 6), axis).astype(dtype)
    classes[3:5] = ignored
    np.save("q.npy", q)
    np.save("labels.npy", classes)
    (suggestion,) = suggested("labels.npy", "q.npy")
    assert suggestion.command.endswith(f" --targets-are labels --ignore-value {ignored}")
    counted = np.moveaxis(as_logs(q, axis), axis, 1)[classes != ignored]
    chosen = counted[np.arange(len(counted)), classes[classes != ignored].astype(int)]
    assert run(suggestion, capsys) == pytest.approx(-float(chosen.sum()), rel=1e-12)


@pytest.mark.parametrize(
    "values", [[0, 4, -1, -2], [0, 5, -1, 2], [1, 2, 5, 4], [0, 255, 5, 1], [0, 255, -1, 2]]
)
def test_no_line_for_labels_of_which_more_are_out_of_range_or_that_count_from_1(
    values: list[int], rng: np.random.Generator
) -> None:
    np.save("z.npy", logits(rng, (4, 5), 1))
    np.save("labels.npy", np.array(values))
    assert suggested("z.npy", "labels.npy") == []


@pytest.mark.parametrize("predictions", PREDICTIONS)
@pytest.mark.parametrize("dtype", ["u1", "i8", "?"])
def test_0_and_1_beside_more_than_two_classes_are_a_mask(
    predictions: str, dtype: str, rng: np.random.Generator
) -> None:
    np.save("q.npy", PREDICTIONS[predictions][0](rng, (6, 5), 1))
    np.save("mask.npy", np.array([1, 1, 0, 1, 0, 1], dtype))
    assert suggested("q.npy", "mask.npy") == []


@pytest.mark.parametrize("predictions", ["logits", "probs"])
@pytest.mark.parametrize("dtype", ["u1", "?", "f4"])
@pytest.mark.parametrize("shape", [(50,), (20, 6)], ids=str)
def test_the_line_for_binary_labels_gives_the_binary_cross_entropy(
    predictions: str,
    dtype: str,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    z = rng.normal(0, 2, shape)
    y = (rng.random(shape) < 0.5).astype(dtype)
    np.save("y.npy", y)
    np.save("x.npy", z if predictions == "logits" else special.expit(z))
    (suggestion,) = suggested("y.npy", "x.npy")
    signs = np.where(y.astype(bool), 1, -1)
    assert run(suggestion, capsys) == pytest.approx(-float(special.log_expit(signs * z).sum()), rel=1e-9)


def test_0_and_1_may_be_labels_of_two_classes(
    rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    z, classes = rng.normal(0, 2, (9, 2)), np.array([0, 1, 1, 0, 1, 1, 0, 0, 1], np.uint8)
    np.save("z.npy", z)
    np.save("c.npy", classes)
    (suggestion,) = suggested("c.npy", "z.npy")
    expected = -special.log_softmax(z, 1)[np.arange(9), classes].sum()
    assert run(suggestion, capsys) == pytest.approx(float(expected))


@pytest.mark.parametrize("seed", range(5))
def test_any_line_for_a_file_of_many_arrays_runs(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(seed)
    with h5py.File("a.h5", "w") as file:
        for shape, axis in SHAPES.values():
            for make in (logits, log_probs, probs, labels):
                dtype = "i4" if make is labels else random.choice(["f2", "f4", "f8"])
                file[f"{shape}/{make.__name__}"] = make(random, shape, axis).astype(dtype)
            masked = logits(random, shape, axis)
            masked[random.random(shape) < 0.1] = -np.inf
            file[f"{shape}/masked"] = masked
            some = labels(random, shape, axis)
            some[random.random(some.shape) < 0.2] = -100
            file[f"{shape}/padded"] = some
            file[f"{shape}/binary"] = (random.random(shape) < 0.5).astype(random.choice(["u1", "f4"]))
            file[f"{shape}/outcomes"] = random.random(shape)
            file[f"{shape}/nan"] = np.where(random.random(shape) < 0.2, np.nan, random.random(shape))
            file[f"{shape}/big"] = random.integers(0, 2**40, shape)
            file[f"{shape}/constant"] = np.full(shape, 7)
    suggestions = suggested("a.h5", most=1000)
    assert len(suggestions) > 20
    for suggestion in suggestions:
        run(suggestion, capsys)


# Which is which


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("student", "teacher"),
        ("output", "x"),
        ("x", "target"),
        ("b", "a"),
        ("quantised", "full"),
        ("q", "p"),
        ("model_fp16", "model_fp32"),
        ("model_int8", "model_fp16"),
        ("tuned_logits", "base_logits"),
    ],
)
@pytest.mark.parametrize("make", [logits, probs])
@pytest.mark.parametrize("in_one_file", [False, True])
def test_of_arrays_that_look_alike_the_names_decide_else_the_order(
    first: str, second: str, in_one_file: bool, make: Callable[..., Any], rng: np.random.Generator
) -> None:
    """The first is the candidate, the second the reference."""
    ordered = (second, first) if (first, second) == ("b", "a") else (first, second)
    arrays = {name: make(rng, (6, 5), 1) for name in ordered}
    if in_one_file:
        np.savez("a.npz", **arrays)
        (suggestion,) = suggested("a.npz")
        names = [address.removeprefix("a.npz::") for address in suggestion[:2]]
    else:
        for name, array in arrays.items():
            np.save(f"{name}.npy", array)
        (suggestion,) = suggested(*(f"{name}.npy" for name in ordered))
        names = [address.removesuffix(".npy") for address in suggestion[:2]]
    assert names == [first, second]
    assert shlex.split(suggestion.command)[1:4] == ["compare", suggestion.targets, suggestion.predictions]


@pytest.mark.parametrize(
    ("make", "axis", "options"),
    [
        (logits, 1, ""),
        (probs, 1, " --reference-are probs --candidate-are probs"),
        (log_probs, 0, " --reference-are log-probs --candidate-are log-probs --axis 0"),
    ],
)
def test_outputs_of_two_models_are_compared(
    make: Callable[..., Any], axis: int, options: str, rng: np.random.Generator
) -> None:
    np.save("a.npy", make(rng, (6, 5), axis))
    np.save("b.npy", make(rng, (6, 5), axis))
    (suggestion,) = suggested("a.npy", "b.npy")
    assert suggestion.command == f"kldiv compare a.npy b.npy{options}"


def test_one_hot_integers_are_targets_whatever_their_name(rng: np.random.Generator) -> None:
    np.save("student.npy", np.eye(5, dtype=np.uint8)[[0, 1, 2, 2]])
    np.save("teacher.npy", probs(rng, (4, 5), 1))
    (suggestion,) = suggested("student.npy", "teacher.npy")
    assert suggestion == Suggestion("teacher.npy", "student.npy", ("--predictions-are", "probs"))


def test_what_does_not_belong_together_is_not_suggested(rng: np.random.Generator) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        "logits": logits(rng, (6, 5), 1),
        "other": logits(rng, (6, 4), 1),
        "across": probs(rng, (7, 3), 0),
        "along": probs(rng, (7, 3), 1),
        "too_high": np.array([0, 1, 2, 3, 4, 5]),
        "more": np.array([0, 3, 2, 1, 0, 0, 1]),
    }
    np.savez("a.npz", **arrays)
    assert suggested("a.npz") == []


def test_an_array_that_is_named_twice_is_not_compared_with_itself(rng: np.random.Generator) -> None:
    np.save("p.npy", probs(rng, (6, 5), 1))
    assert suggested("p.npy", "p.npy") == []


# How many, and how they are typed


def test_unlike_arrays_come_first_and_no_more_than_asked_for(rng: np.random.Generator) -> None:
    arrays = {f"z{k:02d}": logits(rng, (6, 5), 1) for k in range(20)}
    np.savez("a.npz", **arrays, target=probs(rng, (6, 5), 1))
    suggestions = suggested("a.npz", most=22)
    assert len(suggestions) == 22
    assert [s.targets for s in suggestions[:20]] == ["a.npz::target"] * 20
    assert suggestions[20].command == "kldiv compare a.npz::z00 a.npz::z01"


def test_every_array_has_one_line_as_predictions_before_any_has_two(rng: np.random.Generator) -> None:
    arrays = {f"z{k}": logits(rng, (6, 5), 1) for k in range(3)}
    targets = {f"p{k}": probs(rng, (6, 5), 1) for k in range(4)}
    np.savez("a.npz", **arrays, **targets)
    pairs = [(s.predictions[-2:], s.targets[-2:]) for s in suggested("a.npz", most=6)]
    assert pairs == [("z0", "p0"), ("z1", "p0"), ("z2", "p0"), ("p1", "p0"), ("p2", "p0"), ("p3", "p0")]
    pairs = [(s.predictions[-2:], s.targets[-2:]) for s in suggested("a.npz", most=7)]
    assert pairs[:3] == [("z0", "p0"), ("z0", "p1"), ("z1", "p0")], "in the order in which they come"


@pytest.mark.parametrize("name", ["a b.npy", "it's.npy", "$HOME;.npy", "-x.npy", "--json.npy", "é.npy"])
def test_a_line_can_be_pasted_into_a_shell_whatever_the_name(
    name: str, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(name, logits(rng, (6, 5), 1))
    np.save("p.npy", probs(rng, (6, 5), 1))
    (suggestion,) = suggested(name, "p.npy")
    run(suggestion, capsys)


def test_a_name_that_would_not_be_shown_as_it_is_is_left_out(rng: np.random.Generator) -> None:
    np.save("a\nb.npy", logits(rng, (6, 5), 1))
    np.save("p.npy", probs(rng, (6, 5), 1))
    assert suggested("a\nb.npy", "p.npy") == []


def test_options_for_all_of_them_stand_at_the_end(rng: np.random.Generator) -> None:
    np.save("z.npy", logits(rng, (6, 5), 1))
    np.save("p.npy", probs(rng, (6, 5), 1))
    (suggestion,), more = suggest(inspected("z.npy", "p.npy"), most=3, extra=("--allow-external",))
    assert suggestion.command == "kldiv compute z.npy p.npy --log-softmax 1 --allow-external"
    assert not more
