"""`kldiv compute` and what counts, what is told of its spread, what is worst, as a user types it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats  # type: ignore[import-untyped]

from kldiv_cli.__main__ import main
from kldiv_cli.spec import QUANTILES
from kldiv_cli.statistics import percentile_name

Floats = npt.NDArray[np.float64]
FORMATS = ("plain", "table", "json", "jsonl", "csv", "md")
NAMES = ("mean", "standard_error", "minimum", *map(percentile_name, QUANTILES), "maximum")
SHAPE = (3, 6, 5)
LENGTHS = np.array([6, 2, 3])


class Run(NamedTuple):
    code: int
    out: str
    err: str


Compute = Callable[..., Run]


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Floats]:
    """A batch of three sequences of six positions, padded; each array saved under its name."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(7)
    mask = np.arange(SHAPE[1]) < LENGTHS[:, None]
    p, q = (random.dirichlet(np.ones(SHAPE[2]), SHAPE[:2]) for _ in range(2))
    labels = random.integers(0, SHAPE[2], SHAPE[:2])
    kinds = {
        "p": p,
        "q": q,
        "log_q": np.log(q),
        "mask": mask.astype(np.uint8),
        "padded_q": np.where(mask[..., None], q, 99.0),
        "padded_p": np.where(mask[..., None], p, np.nan),
        "labels": np.where(mask, labels, -100),
        "wide_q": np.concatenate([q, np.zeros((3, 6, 3))], axis=-1),
        "odd_mask": mask + 1,
        "flat_q": np.array([[0.5, 0.5], [1.0, 0.0]]),
        "flat_p": np.array([[0.5, 0.5], [0.5, 0.5]]),
    }
    for name, array in kinds.items():
        np.save(f"{name}.npy", array)
    return kinds


@pytest.fixture
def compute(
    arrays: dict[str, Floats], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Compute:
    """Run `kldiv compute` in this process; what `main` sets for its process is put back."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr("gc.set_threshold", lambda *numbers: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)

    def run(*arguments: str) -> Run:
        code = main(["compute", *arguments])
        return Run(code, *capsys.readouterr())

    return run


def record_of(run: Run) -> dict[str, Any]:
    assert (run.code, run.err) == (0, "")
    return dict(json.loads(run.out))


def failure(run: Run) -> str:
    """The one line that says what was wrong."""
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("kldiv: error: ")
    assert run.err.count("\n") == 1
    return run.err.removeprefix("kldiv: error: ").rstrip("\n")


def cells(text: str, first: str) -> list[list[str]]:
    """The rows of the table that is headed by the word, in plain text, in Markdown or in a table."""
    lines = [line.replace("|", " ").replace("\\", "").split() for line in text.splitlines()]
    start = next(k for k, line in enumerate(lines) if line and line[0] == first)
    rows: list[list[str]] = []
    for line in lines[start + 1 :]:
        if not line:
            break
        if not set(line[0]) <= {"-", "─", ":"}:
            rows.append(line)
    return rows


def statistics_of(run: Run, format: str) -> dict[str, float]:
    """The statistics by name, read back from any format."""
    if format in ("json", "jsonl"):
        record = json.loads(run.out)["statistics"]
        return {name: record[name] for name in NAMES}
    if format == "csv":
        (row,) = csv.DictReader(io.StringIO(run.out))
        return {name: float(row[f"statistics.{name}"]) for name in NAMES}
    return {row[0]: float(row[1]) for row in cells(run.out, "statistic")}


def kl(q: Floats, p: Floats) -> Floats:
    return np.asarray((p * (np.log(p) - np.log(q))).sum(axis=-1))


PAIR = ("log_q.npy", "p.npy")
PADDED = ("padded_q.npy", "padded_p.npy", "--predictions-are", "probs", "--mask", "mask.npy")


# Statistics


def test_json_has_all_statistics_by_name_and_in_order(compute: Compute, arrays: dict[str, Floats]) -> None:
    found = record_of(compute(*PAIR, "--json"))["statistics"]
    losses = kl(arrays["q"], arrays["p"]).ravel()
    assert list(found) == ["of", "count", *NAMES, "exact"]
    assert (found["of"], found["count"], found["exact"]) == ("distributions", 18, True)
    expected = [
        losses.mean(),
        scipy.stats.sem(losses),
        losses.min(),
        *np.quantile(losses, QUANTILES),
        losses.max(),
    ]
    assert [found[name] for name in NAMES] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_the_same_statistics(compute: Compute, format: str) -> None:
    expected = record_of(compute(*PAIR, "--json"))["statistics"]
    found = statistics_of(compute(*PAIR, "--format", format), format)
    digits = 6 if format == "table" else 17
    assert found == {name: float(f"{expected[name]:.{digits}g}") for name in NAMES}


def test_statistics_of_bce_are_of_elements(compute: Compute, arrays: dict[str, Floats]) -> None:
    run = compute("q.npy", "p.npy", "--loss", "bce", "--json")
    found = record_of(run)["statistics"]
    q, p = arrays["q"], arrays["p"]
    losses = -(p * np.log(q) + (1 - p) * np.log1p(-q))
    assert (found["of"], found["count"]) == ("elements", 90)
    assert found["p50"] == pytest.approx(np.median(losses), rel=1e-12)
    assert "90 elements" in compute("q.npy", "p.npy", "--loss", "bce").out


def test_two_losses_have_their_statistics_side_by_side(compute: Compute) -> None:
    both = ["q.npy", "p.npy", "--loss", "kl", "--loss", "bce", "--predictions-are", "probs"]
    rows = cells(compute(*both).out, "statistic")
    records = json.loads(compute(*both, "--json").out)
    assert [row[0] for row in rows] == list(NAMES)
    for row in rows:
        assert [float(cell) for cell in row[1:3]] == [record["statistics"][row[0]] for record in records]
    assert rows[0][3:] == ["18", "distributions,", "90", "elements"]


@pytest.mark.parametrize("format", ["plain", "md", "table"])
def test_a_reduction_or_a_map_that_was_asked_for_stands_alone(compute: Compute, format: str) -> None:
    for reduction in ("sum", "none"):
        assert "standard" not in compute(*PAIR, "--reduction", reduction, "--format", format).out


@pytest.mark.parametrize("format", FORMATS)
def test_more_quantiles_are_told_in_their_place(
    compute: Compute, arrays: dict[str, Floats], format: str
) -> None:
    run = compute(*PAIR, "--quantiles", "0.75, 0.25,0.9", "--format", format, "--reduction", "sum")
    losses = kl(arrays["q"], arrays["p"])
    if format in ("json", "jsonl"):
        record = json.loads(run.out)["statistics"]
    elif format == "csv":
        (row,) = csv.DictReader(io.StringIO(run.out))
        record = {name.removeprefix("statistics."): value for name, value in row.items()}
    else:
        record = {row[0]: row[1] for row in cells(run.out, "statistic")}
    names = [name for name in record if name.startswith("p") and name[1:2].isdigit()]
    assert names == [percentile_name(q) for q in sorted({*QUANTILES, 0.25, 0.75})]
    for name, quantile in (("p25", 0.25), ("p75", 0.75)):
        assert float(record[name]) == pytest.approx(np.quantile(losses, quantile), rel=1e-5)


@pytest.mark.parametrize("given", ["x", "0.5,x", "1.5", "-0.1", "nan", "0.5,,0.7", ""])
def test_quantiles_that_are_none_are_refused(compute: Compute, given: str) -> None:
    assert failure(compute(*PAIR, "--quantiles", given)).startswith("--quantiles")


def test_a_sketch_says_that_its_percentiles_are_approximate(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = record_of(compute(*PAIR, "--json"))
    monkeypatch.setattr("kldiv_cli.evaluation.LIMIT", 3)
    sketched = record_of(compute(*PAIR, "--json"))
    assert (exact["statistics"].pop("exact"), sketched["statistics"].pop("exact")) == (True, False)
    ours, theirs = sketched.pop("statistics"), exact.pop("statistics")
    assert sketched == exact
    assert (ours.pop("of"), ours.pop("count")) == (theirs.pop("of"), theirs.pop("count"))
    assert ours == pytest.approx(theirs, rel=2.0**-10)
    assert "18 (percentiles within 0.05 %) distributions" in compute(*PAIR).out


# The worst


@pytest.mark.parametrize("format", FORMATS)
def test_the_worst_are_listed_with_their_indices_in_every_format(
    compute: Compute, arrays: dict[str, Floats], format: str
) -> None:
    losses = kl(arrays["q"], arrays["p"])
    order = np.argsort(-losses, axis=None)[:4]
    expected = [[*map(int, np.unravel_index(k, losses.shape)), losses.flat[k]] for k in order]
    run = compute(*PAIR, "--worst", "4", "--format", format)
    if format in ("json", "jsonl"):
        found = [[*worst["index"], worst["value"]] for worst in json.loads(run.out)["worst"]]
    elif format == "csv":
        (row,) = csv.DictReader(io.StringIO(run.out))
        found = [
            [*map(int, row[f"worst.{k}.index"].split()), float(row[f"worst.{k}.value"])] for k in range(1, 5)
        ]
    else:
        rows = cells(run.out, "worst")
        assert [row[0] for row in rows] == ["1", "2", "3", "4"]
        found = [[int(row[1]), int(row[2]), float(row[3])] for row in rows]
    assert [worst[:2] for worst in found] == [worst[:2] for worst in expected]
    assert [worst[2] for worst in found] == pytest.approx([worst[2] for worst in expected], rel=1e-5)


def test_the_worst_are_headed_by_the_dimensions_that_are_left(compute: Compute) -> None:
    run = compute(*PAIR, "--worst", "1", "--axis", "1")
    assert "worst  dim 0  dim 2  " in run.out
    assert "worst  dim 0  dim 1  dim 2  " in compute("q.npy", "p.npy", "--loss", "bce", "--worst", "1").out


def test_a_record_has_no_worst_unless_asked_for(compute: Compute) -> None:
    assert "worst" not in record_of(compute(*PAIR, "--json"))
    assert len(record_of(compute(*PAIR, "--json", "--worst", "999"))["worst"]) == 18


@pytest.mark.parametrize("given", ["-1", "x", "1.5"])
def test_a_number_of_the_worst_that_is_none_is_refused(compute: Compute, given: str) -> None:
    assert "--worst" in failure(compute(*PAIR, "--worst", given))


# Dependent losses


@pytest.mark.parametrize("format", FORMATS)
def test_blocks_have_a_standard_error_of_their_own_in_every_format(
    compute: Compute, arrays: dict[str, Floats], format: str
) -> None:
    means = kl(arrays["q"], arrays["p"]).mean(axis=1)
    expected = means.std(ddof=1) / math.sqrt(3)
    run = compute(*PAIR, "--blocks-of", "6", "--format", format)
    if format in ("json", "jsonl"):
        blocks = json.loads(run.out)["statistics"]["blocks"]
        found = (blocks["of"], blocks["blocks"], blocks["standard_error"])
    elif format == "csv":
        (row,) = csv.DictReader(io.StringIO(run.out))
        cell = {name: float(row[f"statistics.blocks.{name}"]) for name in ("of", "blocks", "standard_error")}
        found = (int(cell["of"]), int(cell["blocks"]), cell["standard_error"])
    else:
        first, second = (row for row in cells(run.out, "statistic") if row[0].endswith("standard_error"))
        assert len(first) == 2
        assert second[2:] == ["3", "blocks", "of", "6"]
        found = (6, 3, float(second[1]))
    assert found == (6, 3, pytest.approx(expected, rel=1e-5))


@pytest.mark.parametrize("given", ["1", "0", "-2", "x", "2.5"])
def test_a_block_of_less_than_two_is_refused(compute: Compute, given: str) -> None:
    assert "--blocks-of" in failure(compute(*PAIR, "--blocks-of", given))


# What counts


@pytest.mark.parametrize("format", FORMATS)
def test_a_mask_is_told_and_the_divisors_follow(
    compute: Compute, arrays: dict[str, Floats], format: str
) -> None:
    losses = kl(arrays["q"], arrays["p"])[arrays["mask"] == 1]
    run = compute(*PADDED, "--format", format)
    assert (run.code, run.err) == (0, "")
    assert "mask.npy" in run.out or format == "csv"
    assert statistics_of(run, format)["p50"] == pytest.approx(np.median(losses), rel=1e-5)
    if format in ("json", "jsonl"):
        record = json.loads(run.out)
        assert (record["elements"], record["distributions"], record["batch"]) == (55, 11, 3)
        assert record["mask"] == {"address": "mask.npy", "shape": [3, 6], "dtype": "uint8", "space": "mask"}
        assert record["distmean"] == pytest.approx(losses.mean(), rel=1e-14)
    elif format == "csv":
        (row,) = csv.DictReader(io.StringIO(run.out))
        assert (row["elements"], row["distributions"], row["batch"]) == ("55", "11", "3")
    else:
        assert [row[2] for row in cells(run.out, "reduction")] == ["1", "55", "3", "11"]


@pytest.mark.parametrize("stored", ["m.npy", "m.npz", "m.h5", "m.h5::/mask", "all.h5::/both[0]"])
@pytest.mark.parametrize("dtype", ["?", "i8", "f4"])
def test_a_mask_may_lie_in_any_file(
    compute: Compute, arrays: dict[str, Floats], stored: str, dtype: str
) -> None:
    mask = arrays["mask"].astype(dtype)
    np.save("m.npy", mask)
    np.savez("m.npz", mask=mask)
    for name, key, array in (("m.h5", "mask", mask), ("all.h5", "both", np.stack([mask, mask]))):
        with h5py.File(name, "w") as file:
            file[key] = array
    found = record_of(compute(*PADDED[:-1], stored, "--json"))
    expected = record_of(compute(*PADDED, "--json"))
    assert (found["sum"], found["statistics"]) == (expected["sum"], expected["statistics"])


def test_a_mask_of_other_values_is_refused_by_its_name(compute: Compute) -> None:
    said = failure(compute(*PAIR, "--mask", "odd_mask.npy"))
    assert said == "--mask odd_mask.npy: holds 2, expected 1 (or true) where something counts, else 0"


def test_a_mask_of_another_shape_is_refused(compute: Compute) -> None:
    np.save("short.npy", np.ones(4))
    said = failure(compute(*PAIR, "--mask", "short.npy"))
    assert "short.npy (4,): expected a shape that broadcasts to (3, 6, 5)" in said


def test_a_mask_that_is_not_there_is_named(compute: Compute) -> None:
    assert "none.npy" in failure(compute(*PAIR, "--mask", "none.npy"))


def test_the_padding_is_found_without_its_mask(compute: Compute) -> None:
    assert compute(*PADDED[:-2]).code == 0
    assert "nan" in compute(*PADDED[:-2]).err


@pytest.mark.parametrize("given", ["-100", "-100.0", "-1e2"])
def test_ignored_labels_do_not_count(compute: Compute, arrays: dict[str, Floats], given: str) -> None:
    arguments = ("log_q.npy", "labels.npy", "--targets-are", "labels")
    record = record_of(compute(*arguments, "--ignore-value", given, "--json"))
    counted, labels = arrays["mask"] == 1, arrays["labels"].astype(int)
    expected = -np.log(arrays["q"][counted, labels[counted]])
    assert record["distmean"] == pytest.approx(expected.mean(), rel=1e-14)
    assert record["settings"]["ignore_value"] == -100.0
    assert "-100" in failure(compute(*arguments))


def test_ignored_targets_do_not_count(compute: Compute, arrays: dict[str, Floats]) -> None:
    targets = np.where(arrays["p"] > 0.1, arrays["p"], -1.0)
    np.save("holes.npy", targets)
    record = record_of(compute("q.npy", "holes.npy", "--loss", "bce", "--ignore-value", "-1", "--json"))
    assert record["elements"] == (targets >= 0).sum()


def test_an_ignored_value_that_is_no_number_is_refused(compute: Compute) -> None:
    assert "--ignore-value" in failure(compute(*PAIR, "--ignore-value", "x"))


def test_a_padded_axis_is_trimmed_and_the_error_names_the_option(compute: Compute) -> None:
    arguments = ("wide_q.npy", "p.npy", "--predictions-are", "probs")
    said = failure(compute(*arguments))
    assert "axis 2 has 8 and 5 entries, is one padded? --trim-axis cuts it to 5" in said
    trimmed = record_of(compute(*arguments, "--trim-axis", "--json"))
    by_hand = record_of(compute("wide_q.npy::[:, :, 0:5]", *arguments[1:], "--json"))
    assert trimmed["settings"]["trim_axis"] is True
    assert (trimmed["sum"], trimmed["statistics"]) == (by_hand["sum"], by_hand["statistics"])
    assert trimmed["predictions"]["shape"] == [3, 6, 8]


def test_trimming_does_not_go_with_broadcasting(compute: Compute) -> None:
    assert "--trim-axis" in failure(compute(*PAIR, "--trim-axis", "--broadcast"))


# The losses of distributions


@pytest.mark.parametrize("name", ["losses.npy", "losses.h5::/kl"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_losses_of_distributions_are_written(
    compute: Compute, arrays: dict[str, Floats], name: str, dtype: str
) -> None:
    run = compute(*PADDED, "--distributions", name, "--output-dtype", dtype)
    assert (run.code, run.err) == (0, "")
    if name.endswith(".npy"):
        written = np.load(name)
    else:
        with h5py.File("losses.h5") as file:
            written = file["kl"][()]
    counted = arrays["mask"] == 1
    assert (written.shape, written.dtype) == ((3, 6), np.dtype(dtype))
    assert np.isnan(written[~counted]).all()
    expected = kl(arrays["q"], arrays["p"])[counted]
    np.testing.assert_allclose(written[counted], expected, rtol=1e-12 if dtype == "float64" else 1e-6)
    assert run.out == compute(*PADDED).out


def test_the_losses_of_distributions_go_beside_the_map(compute: Compute, arrays: dict[str, Floats]) -> None:
    assert compute(*PADDED, "--distributions", "kl.npy", "--output", "map.npy").code == 0
    by_element, by_distribution = np.load("map.npy"), np.load("kl.npy")
    assert (by_element.shape, by_distribution.shape) == (SHAPE, SHAPE[:2])
    np.testing.assert_allclose(by_element.sum(axis=-1), by_distribution, rtol=1e-12)
    assert (np.isnan(by_element) == (arrays["mask"] == 0)[..., None]).all()


@pytest.mark.parametrize("name", ["map.npy", "./map.npy", "map.h5"])
def test_both_outputs_in_one_file_are_refused(compute: Compute, name: str) -> None:
    other = "map.npy" if name.endswith("npy") else "map.h5::/other"
    said = failure(compute(*PAIR, "--output", other, "--distributions", name))
    assert "--output" in said
    assert not [path for path in Path.cwd().iterdir() if path.name.startswith("map")]


def test_an_existing_file_of_distributions_is_kept_unless_forced(compute: Compute) -> None:
    Path("kl.npy").write_bytes(b"precious")
    assert "kl.npy" in failure(compute(*PAIR, "--distributions", "kl.npy"))
    assert Path("kl.npy").read_bytes() == b"precious"
    assert compute(*PAIR, "--distributions", "kl.npy", "--force").code == 0
    assert np.load("kl.npy").shape == SHAPE[:2]


def test_an_input_is_never_overwritten_by_distributions(compute: Compute) -> None:
    for name in ("p.npy", "mask.npy"):
        failure(compute(*PAIR, "--mask", "mask.npy", "--distributions", name, "--force"))
        assert np.load(name).size in (90, 18)


def test_bce_has_no_losses_of_distributions(compute: Compute) -> None:
    said = failure(compute("q.npy", "p.npy", "--loss", "bce", "--distributions", "kl.npy"))
    assert "--distributions" in said
    both = ["--loss", "kl", "--loss", "bce", "--predictions-are", "probs"]
    assert "--distributions" in failure(compute("q.npy", "p.npy", *both, "--distributions", "kl.npy"))
    assert not Path("kl.npy").exists()


def test_a_failure_leaves_no_distributions_behind(compute: Compute) -> None:
    failure(compute(*PAIR, "--mask", "odd_mask.npy", "--distributions", "kl.npy"))
    assert not [path for path in Path.cwd().iterdir() if "kl" in path.name]


# Strictness


def test_strict_turns_a_warning_into_exit_code_1_and_changes_nothing_else(compute: Compute) -> None:
    arguments = ("flat_q.npy", "flat_p.npy", "--predictions-are", "probs")
    lenient, strict = compute(*arguments), compute(*arguments, "--strict")
    assert "warning: 1 term infinite" in lenient.err
    assert (lenient.code, strict.code) == (0, 1)
    assert (lenient.out, lenient.err) == (strict.out, strict.err)


def test_strict_does_not_mind_notes_and_data_as_it_should_be(compute: Compute) -> None:
    assert compute(*PAIR, "--strict") == Run(0, compute(*PAIR).out, "")
    noted = compute(*PAIR, "--strict", "--reduction", "mean")
    assert noted.err.startswith("note: ")
    assert noted.code == 0


def test_strict_warnings_of_what_does_not_count_are_none(compute: Compute) -> None:
    np.save("mask2.npy", np.array([True, False]))
    np.save("flat_p.npy", np.load("flat_p.npy") + np.array([[0.1, -0.1], [0.0, 0.0]]))
    arguments = ("flat_q.npy", "flat_p.npy", "--predictions-are", "probs", "--mask", "mask2.npy")
    assert compute(*arguments, "--strict").code == 0


def test_a_mask_of_nothing_is_a_warning_and_strict_exits_with_1(compute: Compute) -> None:
    np.save("nothing.npy", np.zeros(SHAPE[:2]))
    run = compute(*PAIR, "--mask", "nothing.npy", "--json", "--strict")
    record = json.loads(run.out)
    assert run.code == 1
    assert (record["sum"], record["mean"], record["statistics"]["count"]) == (0.0, None, 0)
    assert record["nonfinite"]["statistics.p50"] == "nan"
    assert compute(*PAIR, "--mask", "nothing.npy").code == 0


# The top class


@pytest.mark.parametrize("format", FORMATS)
def test_how_often_the_top_class_is_that_of_the_target_is_in_every_format(
    compute: Compute, arrays: dict[str, Floats], format: str
) -> None:
    same = int((arrays["p"].argmax(-1) == arrays["q"].argmax(-1)).sum())
    out = compute("q.npy", "p.npy", "--predictions-are", "probs", "--top1", "--format", format).out
    record = json.loads(compute("q.npy", "p.npy", "--predictions-are", "probs", "--top1", "--json").out)
    assert record["top1"]["count"] == same
    assert record["top1"]["share"] == same / 18
    if "json" in format:
        assert json.loads(out)["top1"] == record["top1"]
    elif format == "csv":
        (row,) = csv.DictReader(io.StringIO(out))
        assert {name: float(row[f"top1.{name}"]) for name in record["top1"]} == record["top1"]
    else:
        (line,) = (line.strip("| ") for line in out.splitlines() if line.strip("| ").startswith("top1 "))
        cells = [cell for cell in line.replace("|", " ").split() if cell]
        digits = 1e-5 if format == "table" else 0
        assert [float(cell) for cell in cells[1:]] == pytest.approx(list(record["top1"].values()), rel=digits)


def test_against_labels_it_is_the_accuracy_of_what_counts(
    compute: Compute, arrays: dict[str, Floats]
) -> None:
    arguments = ("--predictions-are", "probs", "--targets-are", "labels", "--ignore-value", "-100", "--top1")
    record = json.loads(compute("q.npy", "labels.npy", *arguments, "--json").out)
    counts = arrays["labels"] >= 0
    right = int((arrays["q"].argmax(-1) == arrays["labels"])[counts].sum())
    assert (record["top1"]["count"], record["top1"]["share"]) == (right, right / LENGTHS.sum())


def test_nothing_is_told_of_top_classes_unless_it_is_asked_for(compute: Compute) -> None:
    for format in FORMATS:
        assert "top1" not in compute("q.npy", "p.npy", "--predictions-are", "probs", "--format", format).out


def test_bce_alone_has_no_top_class_and_says_what_to_do(compute: Compute) -> None:
    assert compute("q.npy", "p.npy", "--loss", "bce", "--top1") == (
        2,
        "",
        "kldiv: error: --top1: bce has elements, not distributions with a top class; "
        "add --loss kl or drop it\n",
    )
