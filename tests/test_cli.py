"""`kldiv compute` as a user types it: what stands on stdout, what on stderr, and the exit code."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import typer

from kldiv_cli.__main__ import main
from kldiv_cli.cli.options import parse_size

Floats = npt.NDArray[np.float64]
FORMATS = ("plain", "table", "json", "jsonl", "csv", "md")
SHAPE = (6, 5)


class Run(NamedTuple):
    code: int
    out: str
    err: str


Compute = Callable[..., Run]


def log_softmax(z: Floats, axis: int = -1) -> Floats:
    shifted = z - z.max(axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis, keepdims=True)))


def strict_json(text: str) -> Any:
    """Refuse NaN and Infinity, which Python's reader takes and others do not."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def values_of(run: Run, format: str) -> dict[str, float]:
    """The scalars by name, read back from any text format."""
    assert (run.code, run.err) == (0, "")
    names = ("sum", "mean", "batchmean", "distmean")
    if format in ("json", "jsonl"):
        record = strict_json(run.out)
        return {name: record[name] for name in names}
    if format == "csv":
        (row,) = csv.DictReader(io.StringIO(run.out))
        return {name: float(row[name]) for name in names}
    scalars = re.split(r"^[ |]*statistic\b", run.out, flags=re.MULTILINE)[0]
    lines = (line.replace("|", " ").split() for line in scalars.splitlines())
    return {line[0]: float(line[1]) for line in lines if line and line[0] in names}


def plain_map(run: Run, index_columns: int = 1) -> list[list[str]]:
    """The cells of a map in plain text, without header and indices."""
    table = run.out.rstrip("\n").split("\n\n")[1]
    return [line.split()[index_columns:] for line in table.splitlines()[1:]]


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Floats]:
    """Arrays of every kind, each saved under its name in the current directory."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(7)
    p = random.dirichlet(np.ones(SHAPE[1]), SHAPE[0])
    z = random.normal(0, 2, SHAPE)
    kinds = {
        "p": p,
        "z": z,
        "log_q": log_softmax(z),
        "q": np.exp(log_softmax(z)),
        "t": random.normal(0, 2, SHAPE),
        "log_p": np.log(p),
        "labels": random.integers(0, SHAPE[1], SHAPE[0]),
        "bits": random.integers(0, 2, SHAPE),
        "mixed": np.where(random.random(SHAPE) < 0.5, random.integers(0, 2, SHAPE), random.random(SHAPE)),
        "row": p[:1],
        "weight": random.random((1, SHAPE[1])),
        "cube_q": log_softmax(random.normal(0, 1, (2, 3, 4))),
        "cube_p": random.dirichlet(np.ones(4), (2, 3)),
        "large_q": log_softmax(random.normal(0, 1, (40, 50))),
        "large_p": random.dirichlet(np.ones(50), 40),
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


def failure(run: Run) -> str:
    """The one line that says what was wrong."""
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("kldiv: error: ")
    assert run.err.count("\n") == 1
    return run.err.removeprefix("kldiv: error: ").rstrip("\n")


def kl(log_q: Floats, p: Floats) -> Floats:
    return np.asarray(p * (np.log(p) - log_q))


def bce(p: Floats, y: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(-(y * np.maximum(np.log(p), -100) + (1 - y) * np.maximum(np.log1p(-p), -100)))


# Formats


def test_the_result_is_on_stdout_and_stderr_is_empty_for_data_as_it_should_be(compute: Compute) -> None:
    run = compute("log_q.npy", "p.npy")
    assert (run.code, run.err) == (0, "")
    assert run.out.splitlines()[:3] == [
        "KL(p.npy ‖ log_q.npy), in nats",
        "predictions  log_q.npy  (6, 5)  float64  log-probs",
        "targets      p.npy      (6, 5)  float64  probs over axis 1 (5)",
    ]


@pytest.mark.parametrize("format", ["plain", "json", "jsonl", "csv", "md"])
def test_every_text_format_reads_back_to_exactly_the_same_numbers(compute: Compute, format: str) -> None:
    expected = values_of(compute("log_q.npy", "p.npy", "--json"), "json")
    found = values_of(compute("log_q.npy", "p.npy", "--format", format), format)
    assert {k: v.hex() for k, v in found.items()} == {k: v.hex() for k, v in expected.items()}


def test_a_table_shows_six_digits_of_the_same_numbers(compute: Compute) -> None:
    expected = values_of(compute("log_q.npy", "p.npy", "--json"), "json")
    found = values_of(compute("log_q.npy", "p.npy", "--format", "table"), "table")
    assert found == {name: float(f"{value:.6g}") for name, value in expected.items()}


def test_the_numbers_are_those_of_numpy(compute: Compute, arrays: dict[str, Floats]) -> None:
    total = math.fsum(kl(arrays["log_q"], arrays["p"]).ravel())
    assert values_of(compute("log_q.npy", "p.npy", "--json"), "json") == pytest.approx(
        {"sum": total, "mean": total / 30, "batchmean": total / 6, "distmean": total / 6}, rel=1e-14
    )


def test_json_is_strict_even_where_the_result_is_nan_or_infinite(
    compute: Compute, arrays: dict[str, Floats]
) -> None:
    log_q = arrays["log_q"].copy()
    log_q[0, 0] = -np.inf
    np.save("inf.npy", log_q)
    record = strict_json(compute("inf.npy", "p.npy", "--json").out)
    assert record["sum"] is None
    assert float(record["nonfinite"]["sum"]) == math.inf
    log_q[1, 1] = np.nan
    np.save("nan.npy", log_q)
    run = compute("nan.npy", "p.npy", "--json", "--reduction", "none")
    assert math.isnan(float(strict_json(run.out)["nonfinite"]["distmean"]))
    assert "warning: 1 term infinite, first inf at [0, 0]" in run.err
    assert "warning: 1 term nan, first at [1, 1]" in run.err


def test_jsonl_is_one_line_a_loss(compute: Compute) -> None:
    run = compute("q.npy", "bits.npy", "--loss", "kl", "--loss", "bce", "--format", "jsonl",
                  "--predictions-are", "probs")  # fmt: skip
    assert [strict_json(line)["loss"] for line in run.out.splitlines()] == ["kl", "bce"]


def test_json_and_another_format_contradict_each_other(compute: Compute) -> None:
    assert "contradicts --format csv" in failure(compute("log_q.npy", "p.npy", "--json", "--format", "csv"))
    assert compute("log_q.npy", "p.npy", "--json", "--format", "json").code == 0


@pytest.mark.parametrize("format", ["plain", "table", "csv", "md"])
def test_a_precision_is_kept_to_in_what_is_for_reading(compute: Compute, format: str) -> None:
    exact = values_of(compute("log_q.npy", "p.npy", "--json"), "json")
    found = values_of(compute("log_q.npy", "p.npy", "--format", format, "--precision", "3"), format)
    assert found == {name: float(f"{value:.3g}") for name, value in exact.items()}


@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_json_has_every_digit_and_takes_no_precision(compute: Compute, format: str) -> None:
    assert "precision" in failure(compute("log_q.npy", "p.npy", "--format", format, "--precision", "2"))


@pytest.mark.parametrize("digits", ["0", "18", "x"])
def test_a_precision_no_number_has_is_refused(compute: Compute, digits: str) -> None:
    assert "--precision" in failure(compute("log_q.npy", "p.npy", "--precision", digits))


# Reductions


@pytest.mark.parametrize(("name", "divisor"), [("sum", 1), ("mean", 24), ("batchmean", 2), ("distmean", 6)])
def test_each_reduction_is_the_sum_by_its_divisor_and_the_only_one_shown(
    compute: Compute, name: str, divisor: int
) -> None:
    total = strict_json(compute("cube_q.npy", "cube_p.npy", "--json").out)["sum"]
    run = compute("cube_q.npy", "cube_p.npy", "--reduction", name)
    assert run.code == 0
    header, row = run.out.rstrip("\n").split("\n\n")[1].splitlines()
    assert header.split() == ["reduction", "kl", "divisor", "of"]
    assert row.split()[:3] == [name, repr(total / divisor), str(divisor)]
    record = strict_json(compute("cube_q.npy", "cube_p.npy", "--reduction", name, "--json").out)
    assert record.keys() & {"sum", "mean", "batchmean", "distmean"} == {name}


@pytest.mark.parametrize("name", ["sum", "distmean", "none"])
def test_nothing_is_remarked_on_a_reduction_that_is_as_it_should_be(compute: Compute, name: str) -> None:
    assert compute("cube_q.npy", "cube_p.npy", "--reduction", name).err == ""


@pytest.mark.parametrize("name", ["mean", "batchmean"])
def test_a_mean_that_is_not_the_divergence_has_a_note_that_says_which_is(compute: Compute, name: str) -> None:
    run = compute("cube_q.npy", "cube_p.npy", "--reduction", name)
    assert run.err.startswith("note: ")
    assert "--reduction distmean" in run.err
    assert run.err.count("\n") == 1


def test_bce_has_no_batchmean(compute: Compute) -> None:
    assert "batchmean" in failure(compute("q.npy", "bits.npy", "--loss", "bce", "--reduction", "batchmean"))
    run = compute("q.npy", "bits.npy", "--loss", "bce")
    assert (run.code, run.err) == (0, "")
    assert "batchmean" not in run.out
    assert strict_json(compute("q.npy", "bits.npy", "--loss", "bce", "--json").out)["batchmean"] is None


@pytest.mark.parametrize(
    ("flags", "reduction"),
    [
        (["--size-average"], "mean"),
        (["--reduce"], "mean"),
        (["--size-average", "--reduce"], "mean"),
        (["--no-size-average"], "sum"),
        (["--no-size-average", "--reduce"], "sum"),
        (["--no-reduce"], "none"),
        (["--no-reduce", "--size-average"], "none"),
        (["--no-reduce", "--no-size-average"], "none"),
    ],
)
def test_flags_of_old_mean_what_they_meant_and_a_note_says_what_says_it_today(
    compute: Compute, flags: list[str], reduction: str
) -> None:
    old = compute("log_q.npy", "p.npy", *flags)
    new = compute("log_q.npy", "p.npy", "--reduction", reduction)
    assert (old.code, old.out) == (0, new.out)
    note, rest = old.err.split("\n", 1)
    assert note.startswith("note: ")
    assert f"--reduction {reduction} says the same" in note
    assert rest == new.err


def test_flags_of_old_win_over_reduction_but_not_over_batchmean(compute: Compute) -> None:
    won = compute("log_q.npy", "p.npy", "--no-size-average", "--reduction", "distmean")
    assert won.out == compute("log_q.npy", "p.npy", "--reduction", "sum").out
    run = compute("log_q.npy", "p.npy", "--size-average", "--reduction", "batchmean")
    assert "batchmean" in failure(run)


# Losses


def test_both_losses_stand_side_by_side_from_one_pass(compute: Compute, arrays: dict[str, Floats]) -> None:
    both = ["--loss", "kl", "--loss", "bce", "--predictions-are", "probs"]
    run = compute("q.npy", "mixed.npy", *both)
    assert run.code == 0
    assert run.out.startswith("KL(mixed.npy ‖ q.npy) and BCE(q.npy, mixed.npy), in nats\n")
    assert "reduction" in run.out
    rows = [line.split() for line in run.out.splitlines() if line.startswith(("reduction", "sum", "batch"))]
    assert rows[0] == ["reduction", "kl", "bce", "divisor", "of"]
    singly = [
        strict_json(compute("q.npy", "mixed.npy", "--predictions-are", "probs", "--loss", loss, "--json").out)
        for loss in ("kl", "bce")
    ]
    assert rows[1][1:3] == [repr(record["sum"]) for record in singly]
    assert rows[2][1:3] == [repr(singly[0]["batchmean"]), "–"]
    records = strict_json(compute("q.npy", "mixed.npy", *both, "--json").out)
    assert [record["sum"] for record in records] == [record["sum"] for record in singly]


def test_the_order_of_the_losses_is_the_order_they_were_given_in(compute: Compute) -> None:
    run = compute("q.npy", "p.npy", "--loss", "bce", "--loss", "kl", "--predictions-are", "probs", "--json")
    assert [record["loss"] for record in strict_json(run.out)] == ["bce", "kl"]


def test_both_losses_need_to_know_what_the_predictions_are(compute: Compute) -> None:
    assert "--predictions-are" in failure(compute("q.npy", "p.npy", "--loss", "kl", "--loss", "bce"))


def test_a_map_is_of_one_loss(compute: Compute) -> None:
    both = ["--loss", "kl", "--loss", "bce", "--predictions-are", "probs"]
    assert "one --loss" in failure(compute("q.npy", "p.npy", *both, "--reduction", "none"))
    assert "one --loss" in failure(compute("q.npy", "p.npy", *both, "--output", "map.npy"))
    assert not [path for path in Path.cwd().iterdir() if "map" in path.name]


def test_the_split_by_target_has_the_counts_and_means_of_numpy(
    compute: Compute, arrays: dict[str, Floats]
) -> None:
    q, y = arrays["q"], arrays["mixed"]
    run = compute("q.npy", "mixed.npy", "--loss", "bce", "--by-target", "--json")
    split = strict_json(run.out)["by_target"]
    groups = {"one": y == 1, "zero": y == 0, "between": (y > 0) & (y < 1)}
    assert split.keys() == groups.keys()
    for name, members in groups.items():
        assert split[name]["count"] == members.sum() > 0
        assert split[name]["mean"] == pytest.approx(bce(q, y)[members].mean(), rel=1e-13)


def test_where_the_target_is_1_both_losses_are_the_same_number_and_where_0_kl_is_0(compute: Compute) -> None:
    both = ["--loss", "kl", "--loss", "bce", "--predictions-are", "probs", "--by-target", "--json"]
    of_kl, of_bce = (record["by_target"] for record in strict_json(compute("q.npy", "bits.npy", *both).out))
    assert of_kl["one"]["mean"] == pytest.approx(of_bce["one"]["mean"], rel=1e-14)
    assert of_kl["zero"]["mean"] == 0 < of_bce["zero"]["mean"]
    assert of_kl["between"] == {"count": 0, "mean": None}


@pytest.mark.parametrize("format", FORMATS)
def test_the_split_by_target_is_in_every_format(compute: Compute, format: str) -> None:
    arguments = ["q.npy", "mixed.npy", "--loss", "bce", "--by-target"]
    split = strict_json(compute(*arguments, "--json").out)["by_target"]
    digits = 6 if format == "table" else 17
    precision = [] if format in ("json", "jsonl") else ["--precision", str(digits)]
    shown = compute(*arguments, "--format", format, *precision).out
    for group in split.values():
        text = repr(group["mean"]) if format in ("json", "jsonl") else f"{group['mean']:.{digits}g}"
        assert text in shown


def test_a_vector_is_one_distribution_whose_odd_terms_are_counted(compute: Compute) -> None:
    np.save("q1.npy", np.array([0.5, 0.0, 0.5]))
    np.save("p1.npy", np.array([0.25, 0.0, 0.75]))
    run = compute("q1.npy", "p1.npy", "--predictions-are", "probs", "--json")
    assert run.code == 0
    record = strict_json(run.out)
    assert record["distributions"] == 1
    assert record["sum"] == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert [(f["id"], f["count"], f["place"]) for f in record["findings"]] == [("zero-terms", 1, [1])]


def test_a_vector_with_a_term_that_bce_clamps_is_counted_too(compute: Compute) -> None:
    np.save("q1.npy", np.array([0.5, 0.0, 0.5]))
    np.save("y1.npy", np.array([0, 1, 0]))
    run = compute("q1.npy", "y1.npy", "--loss", "bce", "--json")
    assert run.code == 0
    (finding,) = strict_json(run.out)["findings"]
    assert (finding["id"], finding["count"], finding["place"]) == ("clamped-terms", 1, [1])


# What the arrays are


def test_targets_may_be_labels(compute: Compute, arrays: dict[str, Floats]) -> None:
    run = compute("log_q.npy", "labels.npy", "--targets-are", "labels", "--json")
    chosen = -arrays["log_q"][np.arange(6), arrays["labels"].astype(int)]
    assert values_of(run, "json")["sum"] == pytest.approx(chosen.sum(), rel=1e-14)


def test_targets_may_be_log_probabilities_by_either_name(compute: Compute) -> None:
    by_space = compute("log_q.npy", "log_p.npy", "--targets-are", "log-probs", "--json")
    assert by_space == compute("log_q.npy", "log_p.npy", "--log-target", "--json")
    in_probs = values_of(compute("log_q.npy", "p.npy", "--json"), "json")
    assert values_of(by_space, "json") == pytest.approx(in_probs, rel=1e-13)


def test_targets_may_be_logits(compute: Compute, arrays: dict[str, Floats]) -> None:
    run = compute("log_q.npy", "t.npy", "--targets-are", "logits", "--json")
    expected = kl(arrays["log_q"], np.exp(log_softmax(arrays["t"]))).sum()
    assert values_of(run, "json")["sum"] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_log_softmax_is_taken_over_the_axis_that_is_named(
    compute: Compute, arrays: dict[str, Floats], axis: int
) -> None:
    run = compute("z.npy", "p.npy", "--log-softmax", str(axis), "--json")
    record = strict_json(run.out)
    assert record["sum"] == pytest.approx(kl(log_softmax(arrays["z"], axis), arrays["p"]).sum(), rel=1e-12)
    assert record["axis"] == record["settings"]["log_softmax"] == axis % 2


@pytest.mark.parametrize("space", ["probs", "log-probs", "logits"])
def test_predictions_of_every_space_give_the_same_divergence(compute: Compute, space: str) -> None:
    name = {"probs": "q.npy", "log-probs": "log_q.npy", "logits": "z.npy"}[space]
    found = values_of(compute(name, "p.npy", "--predictions-are", space, "--json"), "json")
    assert found == pytest.approx(values_of(compute("log_q.npy", "p.npy", "--json"), "json"), rel=1e-12)


def test_a_temperature_divides_the_logits_and_is_told(compute: Compute, arrays: dict[str, Floats]) -> None:
    np.save("halved.npy", arrays["z"] / 2)
    run = compute("z.npy", "p.npy", "--log-softmax", "1", "--temperature", "2")
    assert "logits / 2, log-softmax over axis 1 (5)" in run.out
    warm = strict_json(compute("z.npy", "p.npy", "--log-softmax", "1", "--temperature", "2", "--json").out)
    assert (
        warm["sum"] == strict_json(compute("halved.npy", "p.npy", "--log-softmax", "1", "--json").out)["sum"]
    )
    assert warm["settings"]["temperature"] == 2


@pytest.mark.parametrize("temperature", ["0", "-1", "nan", "inf"])
def test_a_temperature_no_logits_have_is_refused(compute: Compute, temperature: str) -> None:
    run = compute("z.npy", "p.npy", "--log-softmax", "1", "--temperature", temperature)
    assert "temperature" in failure(run)


def test_a_temperature_without_logits_is_refused(compute: Compute) -> None:
    assert "--log-softmax" in failure(compute("log_q.npy", "p.npy", "--temperature", "2"))


def test_broadcast_stretches_and_without_it_the_error_names_it(
    compute: Compute, arrays: dict[str, Floats]
) -> None:
    assert "--broadcast" in failure(compute("log_q.npy", "row.npy"))
    run = compute("log_q.npy", "row.npy", "--broadcast", "--json")
    expected = kl(arrays["log_q"], np.broadcast_to(arrays["row"], SHAPE)).sum()
    assert values_of(run, "json")["sum"] == pytest.approx(expected, rel=1e-13)
    assert strict_json(run.out)["settings"]["broadcast"] is True


def test_weight_multiplies_bce(compute: Compute, arrays: dict[str, Floats]) -> None:
    run = compute("q.npy", "bits.npy", "--loss", "bce", "--weight", "weight.npy", "--json")
    weighted = (bce(arrays["q"], arrays["bits"]) * arrays["weight"]).sum()
    record = strict_json(run.out)
    assert record["sum"] == pytest.approx(weighted, rel=1e-13)
    assert record["mean"] == record["sum"] / 30


def test_pos_weight_multiplies_the_positive_part_of_bce_with_logits(
    compute: Compute, arrays: dict[str, Floats]
) -> None:
    run = compute("z.npy", "bits.npy", "--loss", "bce", "--predictions-are", "logits", "--json",
                  "--pos-weight", "weight.npy")  # fmt: skip
    z, y, w = arrays["z"], arrays["bits"], arrays["weight"]
    expected = (w * y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)).sum()
    assert strict_json(run.out)["sum"] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("format", ["plain", "json", "md"])
def test_a_weighted_result_can_be_told_from_one_that_is_not(compute: Compute, format: str) -> None:
    """By more than its value: the file of the weights is among the inputs."""
    run = compute("q.npy", "bits.npy", "--loss", "bce", "--weight", "weight.npy", "--format", format)
    assert "weight.npy" in run.out


def test_weights_go_with_bce_only(compute: Compute) -> None:
    assert "bce" in failure(compute("log_q.npy", "p.npy", "--weight", "weight.npy"))
    run = compute("q.npy", "bits.npy", "--loss", "bce", "--pos-weight", "weight.npy")
    assert "--predictions-are logits" in failure(run)


def test_the_zero_policy_is_the_limit_or_that_of_torch(compute: Compute) -> None:
    np.save("q0.npy", np.array([[1.0, 0.0], [0.5, 0.5]]))
    np.save("p0.npy", np.array([[1.0, 0.0], [1.0, 0.0]]))
    arguments = ["q0.npy", "p0.npy", "--predictions-are", "probs", "--reduction", "sum"]
    limit = compute(*arguments)
    assert repr(math.log(2)) in limit.out.split()
    assert limit.err.startswith("note: 1 term 0 by the limit, first at [0, 1]")
    torch = compute(*arguments, "--zero-policy", "torch")
    assert "nan" in torch.out.split()
    assert torch.err.startswith("warning: 1 term nan as in PyTorch though 0 in the limit, first at [0, 1]")


def test_an_address_names_a_dataset_and_a_part_of_it(compute: Compute, arrays: dict[str, Floats]) -> None:
    with h5py.File("dump.h5", "w") as file:
        file["run/log_q"] = arrays["log_q"]
        file["p"] = arrays["p"]
    run = compute("dump.h5::/run/log_q[1:4]", "dump.h5::p[1:4]", "--json")
    expected = kl(arrays["log_q"], arrays["p"])[1:4].sum()
    assert values_of(run, "json")["sum"] == pytest.approx(expected, rel=1e-13)
    assert strict_json(run.out)["predictions"]["address"] == "dump.h5::/run/log_q[1:4]"


def test_bce_out_of_its_domain_names_the_count_the_place_and_the_way_out(compute: Compute) -> None:
    message = failure(compute("z.npy", "bits.npy", "--loss", "bce"))
    assert message.startswith("z.npy: ")
    assert "at index (0, 0)" in message or "first" in message
    assert "--predictions-are logits" in message


@pytest.mark.parametrize("options", [["--workers", "1"], ["--workers", "3"], ["--memory", "1GiB"]])
def test_neither_workers_nor_memory_change_a_bit(compute: Compute, options: list[str]) -> None:
    arguments = ["large_q.npy", "large_p.npy", "--json"]
    assert compute(*arguments, *options) == compute(*arguments)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("64M", 64 << 20), ("64mb", 64 << 20), ("1.5 k", 1536), ("7", 7), ("2t", 2 << 40)],
)
def test_a_size_is_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1M", "1e9", "5 apples", "1.M"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a size like 64MiB"):
        parse_size(text)


def test_too_little_memory_names_how_much_it_takes(compute: Compute) -> None:
    assert "expected at least" in failure(compute("log_q.npy", "p.npy", "--memory", "1k"))
    assert "expected a size like 64MiB" in failure(compute("log_q.npy", "p.npy", "--memory", "lots"))


# Maps


def test_reduction_none_shows_a_small_map_whole_and_to_the_last_digit(
    compute: Compute, arrays: dict[str, Floats]
) -> None:
    run = compute("log_q.npy", "p.npy", "--reduction", "none", "--output", "map.npy")
    assert (run.code, run.err) == (0, "")
    shown = np.array([[float(cell) for cell in row] for row in plain_map(run)])
    np.testing.assert_array_equal(shown, np.load("map.npy"))
    np.testing.assert_allclose(shown, kl(arrays["log_q"], arrays["p"]), rtol=1e-12, atol=1e-15)


def test_a_large_map_is_cut_at_its_edges_and_a_note_says_so(compute: Compute) -> None:
    run = compute("large_q.npy", "large_p.npy", "--reduction", "none", "--output", "map.npy")
    assert run.err == "note: 36 of 2000 elements shown; --full shows all\n"
    rows = plain_map(run)
    assert len(rows) == 7
    assert rows[3] == ["…"] * 7
    losses = np.load("map.npy")
    assert float(rows[0][0]) == losses[0, 0]
    assert float(rows[-1][-1]) == losses[-1, -1]
    assert rows[0][3] == "…"


def test_full_shows_all_of_a_large_map(compute: Compute) -> None:
    run = compute("large_q.npy", "large_p.npy", "--reduction", "none", "--full", "--output", "map.npy")
    assert run.err == ""
    shown = np.array([[float(cell) for cell in row] for row in plain_map(run)])
    np.testing.assert_array_equal(shown, np.load("map.npy"))


@pytest.mark.parametrize("format", ["csv", "json", "jsonl"])
def test_a_map_in_a_format_for_programs_reads_back_exactly(compute: Compute, format: str) -> None:
    run = compute("cube_q.npy", "cube_p.npy", "--reduction", "none", "--output", "map.npy",
                  "--format", format)  # fmt: skip
    losses = np.load("map.npy")
    if format == "csv":
        rows = list(csv.DictReader(io.StringIO(run.out)))
        assert len(rows) == losses.size
        for row in rows:
            assert float(row["value"]) == losses[int(row["dim 0"]), int(row["dim 1"]), int(row["dim 2"])]
    else:
        record = strict_json(run.out)
        assert record["map"]["shape"] == [2, 3, 4]
        assert not record["map"]["cut"]
        np.testing.assert_array_equal(np.array(record["map"]["values"]), losses)
        assert record["sum"] == pytest.approx(math.fsum(losses.ravel()), rel=1e-14)


def test_a_slice_of_the_map_is_shown_under_its_true_indices(compute: Compute) -> None:
    arguments = ["cube_q.npy", "cube_p.npy", "--reduction", "none", "--output", "map.npy"]
    run = compute(*arguments, "--map-slice", "1,:,1:3")
    losses = np.load("map.npy")
    assert run.out.rstrip("\n").split("\n\n")[1].splitlines()[0].split() == [
        "dim",
        "0",
        "dim",
        "1",
        "1",
        "2",
    ]
    shown = np.array([[float(cell) for cell in row] for row in plain_map(run, 2)])
    np.testing.assert_array_equal(shown, losses[1, :, 1:3])
    assert losses.shape == (2, 3, 4)


@pytest.mark.parametrize("selection", ["0", "-1", "...,0", "0:2", ":,1", ":, 1:3"])
def test_a_slice_selects_as_numpy_does(compute: Compute, selection: str) -> None:
    run = compute("log_q.npy", "p.npy", "--reduction", "none", "--map-slice", selection, "--json",
                  "--output", "map.npy")  # fmt: skip
    expected = eval(f"array[{selection}]", {"array": np.load("map.npy")})
    np.testing.assert_array_equal(np.array(strict_json(run.out)["map"]["values"]).ravel(), expected.ravel())


@pytest.mark.parametrize("selection", ["9", "0,0,0", "x", "::2", "0:2:2", "...,..."])
def test_a_slice_the_map_does_not_have_is_refused(compute: Compute, selection: str) -> None:
    run = compute("log_q.npy", "p.npy", "--reduction", "none", "--map-slice", selection)
    assert "map_slice" in failure(run) or "--map-slice" in run.err


@pytest.mark.parametrize("options", [["--full"], ["--map-slice", "0"]])
def test_what_is_shown_of_a_map_needs_a_map(compute: Compute, options: list[str]) -> None:
    assert "--reduction none" in failure(compute("log_q.npy", "p.npy", *options))


# Output


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", None])
@pytest.mark.parametrize("output", ["map.npy", "map.h5", "map.h5::/run/kl"])
def test_the_map_is_written_in_the_format_and_dtype_asked_for(
    compute: Compute, arrays: dict[str, Floats], output: str, dtype: str | None
) -> None:
    chosen = [] if dtype is None else ["--output-dtype", dtype]
    run = compute("log_q.npy", "p.npy", "--output", output, *chosen)
    assert run == compute("log_q.npy", "p.npy")
    name, _, dataset = output.partition("::")
    if name.endswith(".npy"):
        written = np.load(name)
    else:
        with h5py.File(name) as file:
            written = file[dataset or "map"][()]
    assert written.dtype == (dtype or "float64")
    expected = kl(arrays["log_q"], arrays["p"])
    np.testing.assert_allclose(written, expected, rtol=1e-3 if dtype == "float16" else 1e-6, atol=1e-6)


def test_an_existing_output_is_kept_unless_forced(compute: Compute) -> None:
    Path("map.npy").write_bytes(b"old")
    assert "--force" in failure(compute("log_q.npy", "p.npy", "--output", "map.npy"))
    assert Path("map.npy").read_bytes() == b"old"
    assert compute("log_q.npy", "p.npy", "--output", "map.npy", "--force").code == 0
    assert np.load("map.npy").shape == SHAPE


def test_an_output_that_is_an_input_is_refused_even_by_force(compute: Compute) -> None:
    before = Path("p.npy").read_bytes()
    assert "is the input" in failure(compute("log_q.npy", "p.npy", "--output", "./p.npy", "--force"))
    assert Path("p.npy").read_bytes() == before


@pytest.mark.parametrize("output", ["map.txt", "map", "missing/map.npy", "map.npy::x"])
def test_an_output_that_cannot_be_is_refused_before_the_work(compute: Compute, output: str) -> None:
    assert output.split("::")[0] in failure(compute("log_q.npy", "p.npy", "--output", output))


def test_a_failure_leaves_no_output_behind(compute: Compute) -> None:
    before = set(Path.cwd().iterdir())
    failure(compute("z.npy", "bits.npy", "--loss", "bce", "--output", "map.npy"))
    assert set(Path.cwd().iterdir()) == before


def test_an_output_dtype_needs_an_output(compute: Compute) -> None:
    assert "--output" in failure(compute("log_q.npy", "p.npy", "--output-dtype", "float32"))


# Names


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["[red]x[bold].npy", "a\nb\x1b[31m\x07.npy", "tab\there.npy", "-dash.npy"])
def test_a_name_is_shown_as_text_with_its_control_characters_escaped(
    compute: Compute, arrays: dict[str, Floats], name: str, format: str
) -> None:
    np.save(name, arrays["log_q"])
    run = compute("--format", format, "--", name, "p.npy")
    assert (run.code, run.err) == (0, "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", run.out)
    if format in ("json", "jsonl"):
        assert strict_json(run.out)["predictions"]["address"] == name
    else:
        shown = name.replace("\n", r"\n").replace("\x1b", r"\x1b").replace("\x07", r"\x07")
        shown = shown.replace("\t", r"\t")
        if format == "md":
            shown = re.sub(r"([\\\[\]])", r"\\\1", shown)
        assert shown in run.out


@pytest.mark.parametrize(("name", "shown"), [("a\nb.npy", r"a\nb.npy"), ("[red]\x1b[31m", r"[red]\x1b[31m")])
def test_an_error_shows_a_name_as_text_with_its_control_characters_escaped(
    compute: Compute, name: str, shown: str
) -> None:
    assert failure(compute(name, "p.npy")) == f"{shown}: no such file"


# Help and errors


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_opens_with_examples_a_line_each(compute: Compute, flag: str) -> None:
    run = compute(flag)
    assert (run.code, run.err) == (0, "")
    lines = [line.strip() for line in run.out.splitlines()]
    assert "kldiv compute student.npy teacher.npy --log-softmax -1" in lines
    assert "kldiv compute probs.npy labels.npy --loss bce" in lines
    assert run.out.index("kldiv compute student.npy") < run.out.index("Options:")


def test_the_help_of_the_program_has_an_example_a_line_too(
    compute: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    lines = [line.strip() for line in out.splitlines()]
    assert "kldiv compute predictions.npy targets.npy --json" in lines
    assert err == ""


@pytest.mark.parametrize("command", [["--help"], ["compute", "--help"]])
def test_help_shows_no_markup(
    compute: Compute, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "\\b" not in out
    assert "\b" not in out


def test_help_names_every_option(compute: Compute) -> None:
    shown = compute("--help").out
    named = set(re.findall(r"--[a-z][a-z-]+", shown))
    assert named >= {
        "--loss", "--log-softmax", "--predictions-are", "--targets-are", "--log-target", "--axis",
        "--weight", "--pos-weight", "--temperature", "--zero-policy", "--broadcast", "--by-target",
        "--reduction", "--size-average", "--reduce", "--map-slice", "--full", "--format", "--json",
        "--precision", "--output", "--output-dtype", "--force", "--workers", "--memory", "--progress",
        "--allow-external", "--debug",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["log_q.npy"], "TARGETS"),
        (["log_q.npy", "p.npy", "--lossy"], "--loss"),
        (["log_q.npy", "p.npy", "--loss", "mse"], "'kl', 'bce'"),
        (["log_q.npy", "p.npy", "--axis", "2"], "axis 2"),
        (["log_q.npy", "p.npy", "--axis", "x"], "--axis"),
        (["log_q.npy", "p.npy", "--axis", "0", "--log-softmax", "1"], "log-softmax"),
        (["log_q.npy", "large_p.npy"], "(40, 50)"),
        (["log_q.npy", "labels.npy"], "--targets-are labels"),
        (["log_q.npy", "missing.npy"], "missing.npy: no such file"),
        (["log_q.npy", "p.npy", "extra.npy"], "extra.npy"),
        (["log_q.npy", "p.npy", "--workers", "0"], "--workers"),
    ],
)
def test_an_error_is_one_line_on_stderr_that_names_what_is_wrong(
    compute: Compute, arguments: list[str], says: str
) -> None:
    assert says in failure(compute(*arguments))


def test_debug_shows_the_traceback_before_the_line(compute: Compute) -> None:
    run = compute("missing.npy", "p.npy", "--debug")
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("Traceback (most recent call last):\n")
    assert "InputNotFound" in run.err
    assert run.err.endswith("kldiv: error: missing.npy: no such file\n")
    assert "Traceback" not in compute("missing.npy", "p.npy").err


def test_empty_arrays_have_a_result_and_a_warning(compute: Compute) -> None:
    np.save("none.npy", np.zeros((0, 5)))
    run = compute("none.npy", "none.npy", "--json")
    assert (run.code, run.err) == (0, "warning: the arrays are empty: there is nothing to measure\n")
    record = strict_json(run.out)
    assert (record["sum"], record["mean"], record["nonfinite"]["mean"]) == (0.0, None, "nan")
