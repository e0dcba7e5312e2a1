"""`kldiv compare` as a user types it: what stands on stdout, what on stderr, and the exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from comparisons import bits, expected, numbers
from scipy.special import log_softmax, softmax

import kldiv_cli
from kldiv_cli.__main__ import main

Floats = npt.NDArray[np.float64]
Cells = dict[tuple[str, str, str], float]

ALL = ("--labels", "labels.npy", "--mask", "mask.npy", "--ignore-value", "-100", "--worst", "2")
"""Options that show all there is but a second error, whose row has no mean."""


class Run(NamedTuple):
    code: int
    out: str
    err: str


Compare = Callable[..., Run]


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, npt.NDArray[Any]]:
    """Arrays of every kind, each saved under its name in the current directory."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(12)
    z = random.normal(0, 3, (9, 4, 7))
    w = z + random.normal(0, 0.5, z.shape)
    labels = random.integers(0, 7, (9, 4))
    labels[2, 1:3] = -100
    kinds = {
        "z": z,
        "w": w,
        "p": softmax(z, -1),
        "q": softmax(w, -1),
        "log_p": log_softmax(z, -1),
        "labels": labels,
        "mask": random.random((9, 4)) < 0.8,
        "element_mask": random.random(z.shape) < 0.8,
        "wide": np.concatenate([w, np.full((9, 4, 1), -9.0)], -1),
        "short": w[:5],
        "half": z.astype("f2"),
        "half_w": (z + random.normal(0, 1e-3, z.shape)).astype("f2"),
        "none": np.zeros((0, 7)),
        "scalar": np.array(1.0),
    }
    for name, array in kinds.items():
        np.save(f"{name}.npy", array)
    return kinds


@pytest.fixture
def compare(
    arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Compare:
    """Run `kldiv compare` in this process; what `main` sets for its process is put back."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr("gc.set_threshold", lambda *numbers: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)

    def run(*arguments: str) -> Run:
        code = main(["compare", *arguments])
        return Run(code, *capsys.readouterr())

    return run


def failure(run: Run) -> str:
    """The one line that says what was wrong."""
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("kldiv: error: ")
    assert run.err.count("\n") == 1
    return run.err.removeprefix("kldiv: error: ").rstrip("\n")


def result(run: Run) -> Any:
    """JSON of a run that had nothing to say."""
    assert (run.code, run.err) == (0, "")
    return json.loads(run.out)


# Formats


MEANS = ("kl", "kl_reverse", "js", "tv", "entropy_reference", "entropy_candidate", "delta_p")
RANKS = ("minimum", "p0.1", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9", "maximum")
ESTIMATES = (
    "perplexity_reference",
    "perplexity_candidate",
    "ratio",
    "log_ratio",
    "difference",
    "delta_p_rms",
)
TABLES = ("quantity", "percentile", "agreement", "confidence of reference", "with labels", "worst")


def cells_of(record: Any) -> Cells:
    """What tables show of a record, by table, row and column."""
    cells: Cells = {}
    labels = record["with_labels"]
    for name in MEANS:
        for column in ("mean", "standard_error", "minimum", "maximum"):
            cells["quantity", name, column] = record[name][column]
    cells["quantity", "delta_p_rms", "mean"] = record["delta_p_rms"]["value"]
    cells["quantity", "delta_p_rms", "standard_error"] = record["delta_p_rms"]["standard_error"]
    for name in RANKS:
        cells["percentile", name, "kl"] = record["kl"][name]
        cells["percentile", name, "delta_p"] = record["delta_p"][name]
        cells["percentile", name, "delta_p of the label"] = labels["delta_p"][name]
    for shown, name in (("same_top", "same_top"), ("in_top_5", "in_top_k")):
        cells |= {("agreement", shown, column): value for column, value in record[name].items()}
    for bucket in record["buckets"]:
        place = ("confidence of reference", f"{bucket['low']:g} to {bucket['high']:g}")
        if bucket["count"]:
            cells[*place, "count"] = bucket["count"]
            cells[*place, "kl"] = bucket["kl"]["value"]
            error = bucket["kl"]["standard_error"]
            cells[*place, "standard_error"] = float("nan") if error is None else error
            cells[*place, "same_top"] = bucket["same_top"]["share"]
    for name in ("cross_entropy_reference", "cross_entropy_candidate", "delta_p"):
        cells["with labels", name, "value"] = labels[name]["mean"]
        cells["with labels", name, "standard_error"] = labels[name]["standard_error"]
    for name in ESTIMATES:
        cells |= {("with labels", name, column): value for column, value in labels[name].items()}
    for name in ("accuracy_reference", "accuracy_candidate"):
        cells["with labels", name, "value"] = labels[name]["share"]
        cells["with labels", name, "standard_error"] = labels[name]["standard_error"]
    cells["with labels", "correlation", "value"] = labels["correlation"]
    for rank, worst in enumerate(record["worst"], 1):
        cells["worst", str(rank), "kl"] = worst["value"]
        cells |= {("worst", str(rank), f"dim {d}"): index for d, index in enumerate(worst["index"])}
    return cells


def cells_of_text(text: str, format: str) -> dict[tuple[str, str, str], str]:
    """All cells of all tables, by table, row and column."""
    cells: dict[tuple[str, str, str], str] = {}
    header: list[str] = []
    for line in text.splitlines():
        if format == "md":
            row = [cell.strip().replace("\\", "") for cell in line.strip("|").split("|")]
        else:
            row = re.split(r"\s{2,}", line.strip())
        if row[0] in TABLES:
            header = row
        elif header and len(row) > 1:
            place = zip(header[1:], row[1:], strict=False)
            cells |= {(header[0], row[0], column): cell for column, cell in place}
    return cells


@pytest.mark.parametrize("format", ["plain", "md", "table"])
def test_every_table_shows_the_numbers_of_the_json(compare: Compare, format: str) -> None:
    wanted = cells_of(result(compare("z.npy", "w.npy", *ALL, "--json")))
    run = compare("z.npy", "w.npy", *ALL, "--format", format)
    assert (run.code, run.err) == (0, "")
    found = cells_of_text(run.out, format)
    assert len(wanted) > 100
    for place, value in wanted.items():
        shown = value if format != "table" else float(f"{value:.6g}")
        assert float(found[place]) == pytest.approx(shown, rel=0, abs=0, nan_ok=True), place


def test_csv_is_one_row_with_every_number_of_the_json(compare: Compare) -> None:
    record = result(compare("z.npy", "w.npy", *ALL, "--blocks-of", "4", "--json"))
    run = compare("z.npy", "w.npy", *ALL, "--blocks-of", "4", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(run.out), strict=True)

    def check(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                check(item, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for place, item in enumerate(value, 1):
                check(item, f"{path}.{place}")
        elif isinstance(value, list):
            assert path == "findings" or re.findall(r"\d+", row[path]) == [str(item) for item in value]
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            assert float(row[path]) == value
        else:
            assert row[path] in (("", "nan") if value is None else (str(value), str(value).lower()))

    record.pop("nonfinite", None)
    check(record, "")


def test_json_lines_are_the_json_on_one_line(compare: Compare) -> None:
    run = compare("z.npy", "w.npy", "--format", "jsonl")
    assert run.out.count("\n") == 1
    assert result(run) == result(compare("z.npy", "w.npy", "--json"))


def test_the_numbers_are_those_of_the_api_and_of_scipy(compare: Compare, arrays: dict[str, Any]) -> None:
    record = result(compare("z.npy", "w.npy", *ALL, "--json"))
    options: dict[str, Any] = {"labels": "labels.npy", "mask": "mask.npy", "ignore_value": -100, "worst": 2}
    by_path = kldiv_cli.compare("z.npy", "w.npy", **options)
    told = numbers(by_path)
    for name in ("kl", "js", "delta_p"):
        assert record[name]["mean"] == told[f"{name}.mean"]
    assert (
        record["with_labels"]["difference"]["standard_error"] == told["with_labels.difference.standard_error"]
    )
    labels = arrays["labels"]
    counted = arrays["mask"] & (labels != -100)
    z, w = (log_softmax(arrays[name][counted], -1) for name in ("z", "w"))
    for name, value in expected(z, w, labels[counted]).items():
        assert told[name] == pytest.approx(value, rel=1e-10, abs=1e-13, nan_ok=True), name
    in_memory = kldiv_cli.compare(
        arrays["z"], arrays["w"], **options | {"labels": labels, "mask": arrays["mask"]}
    )
    assert bits(by_path) == bits(in_memory)


def test_plain_text_opens_with_what_was_compared(compare: Compare) -> None:
    run = compare("z.npy", "w.npy", "--labels", "labels.npy", "--ignore-value", "-100")
    assert run.out.splitlines()[:4] == [
        "w.npy compared with z.npy, 34 distributions, in nats",
        "reference  z.npy       (9, 4, 7)  float64  logits, log-softmax over axis 2 (7)",
        "candidate  w.npy       (9, 4, 7)  float64  logits, log-softmax over axis 2 (7)",
        "labels     labels.npy  (9, 4)     int64    labels",
    ]


def test_the_direction_is_that_of_the_reference_first(compare: Compare) -> None:
    there = result(compare("z.npy", "w.npy", "--json"))
    back = result(compare("w.npy", "z.npy", "--json"))
    assert there["direction"] == "KL(reference ‖ candidate)"
    assert (there["reference"]["address"], there["candidate"]["address"]) == ("z.npy", "w.npy")
    assert there["kl"]["mean"] == pytest.approx(back["kl_reverse"]["mean"], rel=1e-12)
    assert there["kl"]["mean"] != back["kl"]["mean"]


def test_options_reach_the_computation(compare: Compare, arrays: dict[str, Any]) -> None:
    arguments = (
        "z.npy", "w.npy", "--axis", "0", "--temperature", "1.5", "--top-k", "2", "--quantiles", "0.3,0.35",
        "--worst", "3", "--blocks-of", "5", "--workers", "1", "--memory", "20MiB", "--no-progress", "--json",
    )  # fmt: skip
    record = result(compare(*arguments))
    wanted = kldiv_cli.compare(
        arrays["z"],
        arrays["w"],
        axis=0,
        temperature=1.5,
        top_k=2,
        quantiles=[0.3, 0.35],
        worst=3,
        blocks_of=5,
    )
    assert record["axis"] == 0
    assert record["settings"] == {"temperature": 1.5, "top_k": 2, "ignore_value": None, "trim_axis": False}
    assert (record["kl"]["mean"], record["kl"]["p35"]) == (wanted.kl.mean, wanted.kl.percentiles["p35"])
    assert record["in_top_k"]["count"] == wanted.in_top_k.count
    assert [tuple(item["index"]) for item in record["worst"]] == [item.index for item in wanted.worst]
    assert wanted.kl.blocks is not None
    assert record["kl"]["blocks"] == wanted.kl.blocks._asdict()


@pytest.mark.parametrize(
    ("reference", "candidate", "options"),
    [
        ("p.npy", "q.npy", ("--reference-are", "probs", "--candidate-are", "probs")),
        ("log_p.npy", "w.npy", ("--reference-are", "log-probs")),
        ("z.npy", "q.npy", ("--candidate-are", "probs")),
    ],
)
def test_spaces_give_the_same_number(
    compare: Compare, reference: str, candidate: str, options: tuple[str, ...]
) -> None:
    wanted = result(compare("z.npy", "w.npy", "--json"))["kl"]["mean"]
    found = result(compare(reference, candidate, *options, "--json"))["kl"]["mean"]
    assert found == pytest.approx(wanted, rel=1e-12)


def test_arrays_in_files_are_named_as_datasets_and_parts(compare: Compare, arrays: dict[str, Any]) -> None:
    with h5py.File("a.h5", "w") as file:
        file["before"], file["after"] = arrays["z"], arrays["w"]
    whole = result(compare("z.npy::[2:5]", "w.npy::[2:5]", "--json"))
    part = result(compare("a.h5::/before[2:5]", "a.h5::/after[2:5]", "--json"))
    assert part["reference"]["address"] == "a.h5::/before[2:5]"
    assert part["kl"] == whole["kl"]


@pytest.mark.parametrize("digits", [1, 3, 17])
def test_precision_cuts_what_is_shown(compare: Compare, digits: int) -> None:
    value = result(compare("z.npy", "w.npy", "--json"))["kl"]["mean"]
    run = compare("z.npy", "w.npy", "--precision", str(digits))
    assert cells_of_text(run.out, "plain")["quantity", "kl", "mean"] == f"{value:.{digits}g}"


# Exit codes and what is said


def test_a_warning_is_said_on_stderr_and_fails_where_that_was_asked_for(compare: Compare) -> None:
    run = compare("z.npy", "z.npy")
    assert run.code == 0
    assert run.err.startswith("warning: candidate outputs and reference outputs are the same data")
    assert run.err.count("\n") == 1
    strict = compare("z.npy", "z.npy", "--strict")
    assert (strict.code, strict.out, strict.err) == (1, run.out, run.err)


def test_a_note_is_no_reason_to_fail(compare: Compare) -> None:
    run = compare("half.npy", "half_w.npy", "--strict", "--json")
    assert run.code == 0
    assert run.err.startswith("note: float16 has three digits")
    assert [finding["severity"] for finding in json.loads(run.out)["findings"]] == ["note"]


def test_strict_has_nothing_against_data_as_it_should_be(compare: Compare) -> None:
    run = compare("z.npy", "w.npy", "--strict")
    assert (run.code, run.err) == (0, "")


def test_empty_arrays_have_a_result_and_a_warning(compare: Compare) -> None:
    run = compare("none.npy", "none.npy", "--json")
    assert (run.code, run.err) == (
        0,
        "warning: the arrays are empty: there is nothing to measure\n",
    )
    assert json.loads(run.out)["nonfinite"]["kl.mean"] == "nan"


def test_what_is_wrong_with_the_input_is_said_with_the_option_that_mends_it(compare: Compare) -> None:
    run = compare("p.npy", "q.npy")
    assert [re.findall(r"say (--.*)$", line)[0] for line in run.err.splitlines()] == [
        "--candidate-are probs",
        "--reference-are probs",
    ]
    assert compare("p.npy", "q.npy", "--candidate-are", "probs", "--reference-are", "probs").err == ""


def test_labels_that_are_padding_name_the_option_that_leaves_them_out(compare: Compare) -> None:
    message = failure(compare("z.npy", "w.npy", "--labels", "labels.npy"))
    assert message == (
        "labels.npy: 2 of 36 labels outside 0 to 6, first -100 at index (2, 1); expected the classes along "
        "axis 2; if it is padding, say --ignore-value -100"
    )
    options = message.rpartition("say ")[2].split()
    assert compare("z.npy", "w.npy", "--labels", "labels.npy", *options).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("z.npy",), "Missing argument 'CANDIDATE'; see kldiv compare --help"),
        (("z.npy", "nothing.npy"), "nothing.npy: no such file"),
        (("nothing.npy", "z.npy"), "nothing.npy: no such file"),
        (("z.npy", "w.npy", "--labels", "nothing.npy"), "nothing.npy: no such file"),
        (("z.npy", "w.npy", "--mask", "nothing.npy"), "nothing.npy: no such file"),
        (
            ("z.npy", "wide.npy"),
            "candidate wide.npy (9, 4, 8) and reference z.npy (9, 4, 7): expected equal shapes; axis 2 has 8 "
            "and 7 entries, is one padded? --trim-axis cuts it to 7",
        ),
        (
            ("z.npy", "short.npy"),
            "candidate short.npy (5, 4, 7) and reference z.npy (9, 4, 7): expected equal shapes",
        ),
        (("scalar.npy", "scalar.npy"), "scalar.npy: 0 dimensions, expected an axis of classes"),
        (("z.npy", "w.npy", "--axis", "3"), "w.npy: axis 3 is out of range for 3 dimensions"),
        (("z.npy", "w.npy", "--labels", "p.npy"), "--labels p.npy (9, 4, 7): expected (9, 4)"),
        (("z.npy", "w.npy", "--labels", "mask.npy"), "mask.npy: bool, expected integer labels"),
        (
            ("z.npy", "w.npy", "--mask", "element_mask.npy"),
            "--mask element_mask.npy (9, 4, 7): is of single classes; expected shape (9, 4)",
        ),
        (("z.npy", "w.npy", "--mask", "labels.npy"), "--mask labels.npy: holds"),
        (("z.npy", "w.npy", "--ignore-value", "-100"), "--ignore-value: is one of labels; add --labels FILE"),
        (("z.npy", "w.npy", "--top-k", "0"), "Invalid value for '--top-k'"),
        (("z.npy", "w.npy", "--worst", "-1"), "Invalid value for '--worst'"),
        (("z.npy", "w.npy", "--blocks-of", "1"), "Invalid value for '--blocks-of'"),
        (("z.npy", "w.npy", "--temperature", "0"), "--temperature 0.0: expected a finite number above 0"),
        (
            ("p.npy", "q.npy", "--temperature", "2", "--reference-are", "probs", "--candidate-are", "probs"),
            "--temperature: divides logits, but neither reference nor candidate are logits",
        ),
        (("z.npy", "w.npy", "--reference-are", "labels"), "Invalid value for '--reference-are'"),
        (("z.npy", "w.npy", "--candidate-are", "logit"), "Invalid value for '--candidate-are'"),
        (("z.npy", "w.npy", "--quantiles", "2"), "--quantiles 2.0: expected numbers between 0 and 1"),
        (("z.npy", "w.npy", "--quantiles", "a"), "--quantiles 'a': expected numbers such as 0.25,0.75"),
        (("z.npy", "w.npy", "--memory", "1k"), "--memory 1024 bytes: expected at least"),
        (("z.npy", "w.npy", "--memory", "much"), "Invalid value for '--memory'"),
        (("z.npy", "w.npy", "--json", "--format", "csv"), "--json: contradicts --format csv"),
        (("z.npy", "w.npy", "--json", "--precision", "3"), "--precision: json has all digits"),
        (("z.npy", "w.npy", "--log-softmax", "1"), "No such option: --log-softmax"),
    ],
)
def test_what_can_not_be_is_one_line_with_options_as_typed(
    compare: Compare, arguments: tuple[str, ...], message: str
) -> None:
    assert failure(compare(*arguments)).startswith(message)


def test_errors_are_in_the_words_of_a_comparison(compare: Compare) -> None:
    assert "predictions" not in failure(compare("z.npy", "w.npy", "--labels", "p.npy"))


def test_a_perplexity_beyond_all_measure_is_no_internal_error(compare: Compare) -> None:
    random = np.random.default_rng(5)
    np.save("far.npy", random.normal(0, 300, (32, 20)))
    np.save("away.npy", random.normal(0, 300, (32, 20)))
    np.save("there.npy", random.integers(0, 20, 32))
    assert compare("far.npy", "away.npy", "--labels", "there.npy").code == 0


def test_the_traceback_of_an_error_is_shown_where_it_was_asked_for(compare: Compare) -> None:
    run = compare("z.npy", "short.npy", "--debug")
    assert run.code == 2
    assert "Traceback" in run.err
    assert run.err.splitlines()[-1].startswith("kldiv: error: candidate short.npy")


# Help


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_opens_with_examples_a_line_each(compare: Compare, flag: str) -> None:
    run = compare(flag)
    assert (run.code, run.err) == (0, "")
    lines = [line.strip() for line in run.out.splitlines()]
    assert "kldiv compare original.npy quantized.npy" in lines
    assert (
        run.out.index("kldiv compare original.npy") < run.out.index("Arguments:") < run.out.index("Options:")
    )
    assert "\b" not in run.out


def test_help_names_every_option(compare: Compare) -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", compare("--help").out))
    assert named >= {
        "--reference-are", "--candidate-are", "--axis", "--labels", "--temperature", "--mask",
        "--ignore-value", "--trim-axis", "--top-k", "--quantiles", "--worst", "--blocks-of", "--format",
        "--json", "--precision", "--workers", "--memory", "--progress", "--no-progress", "--allow-external",
        "--strict", "--debug", "--help",
    }  # fmt: skip


def test_the_examples_of_the_help_can_be_run_as_they_are(compare: Compare, arrays: dict[str, Any]) -> None:
    lines = re.findall(r"^ +kldiv (compare .*)$", compare("--help").out, re.MULTILINE)
    assert len(lines) == 3
    for name, array in (("original", "z"), ("quantized", "w"), ("tokens", "labels")):
        np.save(f"{name}.npy", arrays[array])
        with h5py.File(f"{name}.h5", "w") as file:
            file["logits"] = arrays[array]
    for line in lines:
        run = compare(*line.split()[1:])
        assert (run.code, run.err) == (0, "")


def test_help_is_in_the_words_of_a_comparison(compare: Compare) -> None:
    assert not re.findall(r"predictions|targets|bce", compare("--help").out, re.IGNORECASE)


def test_without_arguments_the_help_is_shown(compare: Compare) -> None:
    run = compare()
    assert run.code == 2
    assert "kldiv compare original.npy quantized.npy" in run.out + run.err


# Pipes and terminals

COMMAND = (sys.executable, "-m", "kldiv_cli")


def environment() -> dict[str, str]:
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    return {name: value for name, value in os.environ.items() if name not in unset}


def test_in_a_pipe_nothing_is_cut_and_nothing_coloured(compare: Compare) -> None:
    name = f"{'long' * 40}.npy"
    os.link("w.npy", name)
    arguments = (*COMMAND, "compare", "z.npy", name, *ALL)
    piped = subprocess.run(
        arguments, env={**environment(), "COLUMNS": "20"}, check=True, capture_output=True, encoding="utf-8"
    )
    assert piped.stderr == ""
    assert piped.stdout == compare("z.npy", name, *ALL).out
    assert name in piped.stdout.splitlines()[0]
    assert not {"…", "\x1b"} & set(piped.stdout)


@pytest.mark.parametrize("columns", [12, 80])
def test_on_a_terminal_of_any_width_there_are_tables_with_all_numbers(compare: Compare, columns: int) -> None:
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "compare", "z.npy", "w.npy", *ALL],
        env={**environment(), "TERM": "xterm", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode())
    assert "Traceback" not in text
    assert max(len(line) for line in text.replace("\r\n", "\n").splitlines()) <= columns
    joined = "".join(text.split())
    for value in cells_of(result(compare("z.npy", "w.npy", *ALL, "--json"))).values():
        assert f"{value:.6g}" in joined


def test_a_progress_bar_is_on_stderr_and_changes_nothing_on_stdout(compare: Compare) -> None:
    wanted = compare("z.npy", "w.npy").out
    assert compare("z.npy", "w.npy", "--progress").out == wanted
