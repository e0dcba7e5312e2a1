"""`kldiv inspect` as a user types it: what stands on stdout, what on stderr, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from kldiv_cli.__main__ import main


class Run(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def inspect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Run]:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(3)
    np.save("p.npy", random.dirichlet(np.ones(5), 6))
    np.save("z.npy", random.normal(0, 2, (6, 5)))
    with h5py.File("a.h5", "w") as file:
        file["run/labels"] = np.array([0, 4, 2, 1, 1, 0])
        file["run/text"] = ["a", "b"]
        file["other"] = h5py.ExternalLink("b.h5", "/x")

    def run(*arguments: str) -> Run:
        code = main(["inspect", *arguments])
        return Run(code, *capsys.readouterr())

    return run


Inspect = Callable[..., Run]


def test_all_files_are_listed_in_the_order_given(inspect: Inspect) -> None:
    run = inspect("z.npy", "a.h5", "p.npy", "--json")
    assert (run.code, run.err) == (0, "")
    addresses = [array["address"] for array in json.loads(run.out)["arrays"]]
    assert addresses == ["z.npy", "a.h5::/run/labels", "a.h5::/run/text", "a.h5::/other", "p.npy"]


def test_the_lines_that_fit_stand_below(inspect: Inspect) -> None:
    run = inspect("z.npy", "a.h5::/run", "p.npy")
    lines = run.out.split("what fits:\n")[1].splitlines()
    assert lines[:2] == [
        "  kldiv compute z.npy a.h5::/run/labels --log-softmax 1 --targets-are labels",
        "  kldiv compute z.npy p.npy --log-softmax 1",
    ]


def test_what_can_not_be_read_is_listed_with_the_reason_and_no_error(inspect: Inspect) -> None:
    run = inspect("a.h5")
    assert (run.code, run.err) == (0, "")
    problems = run.out.split("not read as numbers:\n")[1]
    assert "a.h5::/run/text: dtype object" in problems
    assert "a.h5::/other: a link into 'b.h5'; name that file, or allow it with --allow-external" in problems


def test_lines_say_allow_external_where_it_was_said(inspect: Inspect) -> None:
    with h5py.File("b.h5", "w") as file:
        file["x"] = np.random.default_rng(1).normal(0, 1, (6, 5))
    run = inspect("a.h5", "--allow-external")
    line = (
        "kldiv compute a.h5::/other a.h5::/run/labels --log-softmax 1 --targets-are labels --allow-external"
    )
    assert line in run.out
    assert main(line.split()[1:]) == 0


def test_a_sample_says_so_and_exact_reads_all(inspect: Inspect) -> None:
    np.save("big.npy", np.zeros((5 << 20) + 1, np.int8))
    run = inspect("big.npy", "--json")
    (array,) = json.loads(run.out)["arrays"]
    assert array["sampled"]
    assert array["examined"] == array["zeros"] <= 4 << 20
    assert run.err == "note: 1 array read in part, evenly spread; --exact reads all of it\n"
    run = inspect("big.npy", "--json", "--exact")
    (array,) = json.loads(run.out)["arrays"]
    assert (array["sampled"], array["zeros"], run.err) == (False, (5 << 20) + 1, "")


def test_more_pairs_than_are_shown_are_said(inspect: Inspect) -> None:
    random = np.random.default_rng(1)
    np.savez("many.npz", **{f"x{k}": random.normal(0, 1, (3, 4)) for k in range(9)})
    run = inspect("many.npz")
    lines = run.out.split("what fits:\n")[1].splitlines()
    assert lines == [f"  kldiv compare many.npz::x0 many.npz::x{k}" for k in range(1, 9)]
    assert run.err.startswith("note: more than 8 pairs fit")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("missing.npy", "missing.npy: no such file"),
        (".", ".: a directory, expected a regular file"),
        ("text", "text: neither .npy, .npz nor HDF5"),
        ("empty", "empty: empty file (0 bytes)"),
        ("fifo", "fifo: a pipe (FIFO)"),
        ("a.h5::/nothing", "a.h5: no dataset '/nothing'; it has"),
        ("p.npy::x", "p.npy::x: an .npy file is one array"),
        ("p.npy::[9]", "p.npy::[9]: index 9 is out of range"),
    ],
)
def test_a_file_that_can_not_be_listed_is_one_line_and_exit_code_2(
    inspect: Inspect, file: str, reason: str
) -> None:
    Path("text").write_text("neither")
    Path("empty").touch()
    if file == "fifo":
        os.mkfifo("fifo")
    run = inspect(file)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith(f"kldiv: error: {reason}")
    assert run.err.count("\n") == 1
    beside_others = inspect("p.npy", file, "z.npy")
    assert beside_others == (2, inspect("p.npy", "z.npy").out, run.err)


def test_all_that_can_be_read_is_printed_and_every_bad_file_is_said_in_its_order(inspect: Inspect) -> None:
    Path("junk.h5").write_text("neither")
    run = inspect("junk.h5", "p.npy", "missing.npy", "--json")
    assert run.code == 2
    assert [array["address"] for array in json.loads(run.out)["arrays"]] == ["p.npy"]
    assert [line.split(": ")[:3] for line in run.err.splitlines()] == [
        ["kldiv", "error", "junk.h5"],
        ["kldiv", "error", "missing.npy"],
    ]
    run = inspect("junk.h5", "missing.npy", "missing.npy", "--json")
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 2)


@pytest.mark.parametrize(
    "files", [("p.npy", "a.h5", "p.npy"), ("a.h5::/run/labels", "p.npy", "a.h5", "a.h5::/run")]
)
def test_an_array_that_is_named_more_than_once_is_listed_once(
    inspect: Inspect, files: tuple[str, ...]
) -> None:
    arrays = json.loads(inspect(*files, "--json").out)["arrays"]
    addresses = [array["address"] for array in arrays]
    assert sorted(addresses) == ["a.h5::/other", "a.h5::/run/labels", "a.h5::/run/text", "p.npy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("p.npy", "--json", "--format", "csv"), "--json: contradicts --format csv; give only one of them"),
        (("p.npy", "--json", "--precision", "3"), "--precision: json has all digits"),
        (
            ("p.npy", "--exakt"),
            "No such option: --exakt (Possible options: --exact); see kldiv inspect --help",
        ),
    ],
)
def test_options_that_can_not_be_are_named_as_typed(
    inspect: Inspect, arguments: tuple[str, ...], message: str
) -> None:
    run = inspect(*arguments)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith(f"kldiv: error: {message}")


def test_without_a_file_the_help_is_shown(inspect: Inspect) -> None:
    run = inspect()
    assert run.code == 2
    assert "kldiv inspect outputs.h5" in run.out + run.err


@pytest.mark.parametrize(("called", "other"), [("compute", "inspect"), ("inspect", "compute")])
def test_a_command_does_not_load_another(inspect: Inspect, called: str, other: str) -> None:
    files = ["p.npy", "p.npy"]
    code = (
        f"import sys; from kldiv_cli.__main__ import main; assert main([{called!r}, *{files!r}]) == 0\n"
        f"assert 'kldiv_cli.cli.{called}' in sys.modules\n"
        f"assert 'kldiv_cli.cli.{other}' not in sys.modules\n"
        "assert 'h5py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
