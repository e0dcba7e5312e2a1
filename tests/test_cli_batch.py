"""`kldiv batch` as a user types it: stdout, stderr and files, exit codes, signals, and runs that go on."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from dumps import children_of, is_running, names_of, write_dump, write_pair

from kldiv_cli.__main__ import main
from kldiv_cli.api import open_inputs
from kldiv_cli.batch import run_batch
from kldiv_cli.journal import open_journal
from kldiv_cli.pair_result import PairResult
from kldiv_cli.processes import Processes

SECONDS = 60
posix = pytest.mark.skipif(not Path("/proc/self").exists(), reason="signals, and processes in /proc")
LOGITS = ("--log-softmax", "-1")
DUMP = ("q", "p", *LOGITS)


class Run(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of JSON lines, all but the summary, in the order of their pairs."""
        lines = [json.loads(line) for line in self.out.splitlines()]
        return sorted((line for line in lines if "pair" in line), key=lambda line: str(line["pair"]))

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])["summary"]
        return found


Batch = Callable[..., Run]


class _Lent:
    """Processes that outlive a run, so that not every test waits for new ones."""

    def __init__(self) -> None:
        self._pools: dict[int, Processes] = {}
        self.asked: list[int] = []

    @contextlib.contextmanager
    def __call__(self, workers: int) -> Iterator[Processes]:
        self.asked.append(workers)
        if workers not in self._pools:
            self._pools[workers] = Processes(workers)
        pool = self._pools[workers]
        yield pool
        if pool._closed:
            self._pools.pop(workers).close()

    def end(self) -> None:
        for pool in self._pools.values():
            pool.close()


@pytest.fixture(scope="module")
def lent() -> Iterator[_Lent]:
    lent = _Lent()
    yield lent
    lent.end()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where processes that are lent to several tests stay."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def dump(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with nothing in it but a dump of five pairs in q/ and p/."""
    monkeypatch.chdir(place)
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_dump(place, ["a", "b", "c", "d", "e"])
    return place


@pytest.fixture
def batch(
    dump: Path, lent: _Lent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Batch:
    """Run a command in this process; what `main` sets for its process is put back."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr("gc.set_threshold", lambda *numbers: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setattr("kldiv_cli.processes.Processes", lent)

    def run(*arguments: str, command: str = "batch") -> Run:
        code = main([command, *arguments])
        return Run(code, *capsys.readouterr())

    return run


def refused(run: Run) -> str:
    """The one line that says why nothing was done."""
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("kldiv: error: ")
    assert run.err.count("\n") == 1
    return run.err.removeprefix("kldiv: error: ").rstrip("\n")


def spoil(dump: Path, name: str = "c") -> None:
    (dump / "p" / f"{name}.npy").unlink()
    np.save(dump / "p" / f"{name}.npy", np.ones((7, 5)))


# Which pairs


def write_lists(dump: Path) -> None:
    rows = [("a", "q/a.npy", "p/a.npy"), ("b", "q/b.npy", "p/b.npy")]
    (dump / "pairs.csv").write_text(
        "name,predictions,targets\n" + "".join(f"{','.join(row)}\n" for row in rows)
    )
    keys = ("name", "predictions", "targets")
    (dump / "pairs.jsonl").write_text(
        "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)
    )
    (dump / "suite.toml").write_text(
        "".join(f'[pairs.{name}]\npredictions = "{q}"\ntargets = "{p}"\n' for name, q, p in rows)
    )
    with h5py.File(dump / "dump.h5", "w") as file:
        for name in ("a", "b"):
            for part in ("q", "p"):
                file[f"layer_{name}/{part}"] = np.load(dump / part / f"{name}.npy")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["pairs.csv"], ["a", "b"]),
        (["pairs.jsonl"], ["a", "b"]),
        (["suite.toml"], ["a", "b"]),
        (["q", "p"], ["a", "b", "c", "d", "e"]),
        (["q/[ab].npy", "p/{stem}.npy"], ["a", "b"]),
        (["--predictions", "q/[ab].npy", "--targets", "p/{stem}.npy"], ["a", "b"]),
        (
            ["dump.h5", "--group-by", "/layer*", "--predictions", "q", "--targets", "p"],
            ["layer_a", "layer_b"],
        ),
        (["q/a.npy", "p/a.npy"], ["q/a"]),
    ],
    ids=["csv", "jsonl", "suite", "directories", "glob", "options", "groups", "files"],
)
def test_every_way_to_name_pairs_computes_what_a_dry_run_lists(
    batch: Batch, dump: Path, arguments: list[str], names: list[str]
) -> None:
    write_lists(dump)
    listed = batch(*arguments, *LOGITS, "--dry-run", "--format", "jsonl")
    done = batch(*arguments, *LOGITS, "--format", "jsonl")
    assert (listed.code, listed.err, done.code, done.err) == (0, "", 0, "")
    assert [record["pair"] for record in listed.records] == names
    assert [record["pair"] for record in done.records] == names
    assert all(record["status"] == "to be computed" for record in listed.records)
    assert all(record["status"] == "ok" for record in done.records)
    for one, other in zip(listed.records, done.records, strict=True):
        assert one["predictions"] == other["predictions"]["address"]
        assert one["targets"] == other["targets"]["address"]
    values = {record["distmean"] for record in done.records}
    assert values <= {record["distmean"] for record in batch(*DUMP, "--format", "jsonl").records}
    assert (done.summary["pairs"], done.summary["computed"]) == (len(names), len(names))


@pytest.mark.parametrize("format", ["table", "plain", "json", "jsonl", "csv", "md"])
def test_a_dry_run_in_every_format_says_what_the_journal_has(batch: Batch, dump: Path, format: str) -> None:
    assert (
        batch("--predictions", "q/[ab].npy", "--targets", "p/{stem}.npy", *LOGITS, "--journal", "j").code == 0
    )
    before = (dump / "j").read_bytes()
    run = batch(*DUMP, "--dry-run", "--journal", "j", "--format", format)
    assert (run.code, run.err) == (0, "")
    if format == "json":
        found = [record["status"] for record in json.loads(run.out)["pairs"]]
    elif format == "jsonl":
        found = [record["status"] for record in run.records]
    elif format == "csv":
        found = [row["status"] for row in csv.DictReader(io.StringIO(run.out))]
    else:
        assert run.out.startswith(("5 pairs, 2 of them finished", "## 5 pairs", "**5 pairs", "# 5 pairs"))
        words = run.out.replace("to be computed", "to_be_computed").split()
        found = [word for word in words if word in ("finished", "to_be_computed")][-5:]
        found = [word.replace("_", " ") for word in found]
    assert found == ["finished", "finished", *["to be computed"] * 3]
    assert (dump / "j").read_bytes() == before


def test_a_dry_run_begins_no_journal_and_no_file(batch: Batch, dump: Path) -> None:
    before = sorted(dump.rglob("*"))
    run = batch(*DUMP, "--dry-run", "--journal", "j", "--results", "r.csv", "--output", "maps/{pair}.npy")
    assert run.code == 0
    assert sorted(dump.rglob("*")) == before


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_dry_run_changes_nothing_of_a_journal_whose_writer_died(batch: Batch, dump: Path, cut: int) -> None:
    assert batch(*DUMP, "--journal", "j").code == 0
    left = (dump / "j").read_bytes()[: -cut or None]
    (dump / "j").write_bytes(left)
    run = batch(*DUMP, "--dry-run", "--journal", "j", "--format", "jsonl")
    assert (run.code, run.err) == (0, "")
    finished = [record["status"] for record in run.records].count("finished")
    assert finished == (4 if cut > 1 else 5)
    assert (dump / "j").read_bytes() == left


def test_a_dry_run_refuses_a_journal_that_the_run_would_refuse(batch: Batch, dump: Path) -> None:
    for journal in ("missing/j", "q/a.npy", "q"):
        told = [refused(batch(*DUMP, "--journal", journal, *options)) for options in ((), ("--dry-run",))]
        assert told[0] == told[1]


def test_a_table_may_come_through_a_pipe(dump: Path) -> None:
    write_lists(dump)
    with open("pairs.csv") as table:
        done = subprocess.run(
            [sys.executable, "-m", "kldiv_cli", "batch", "-", *LOGITS, "--format", "csv"],
            stdin=table,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(row["pair"] for row in csv.DictReader(io.StringIO(done.stdout)))[-2:] == ["a", "b"]


def test_what_has_no_partner_is_refused_or_noted(batch: Batch, dump: Path) -> None:
    (dump / "p" / "b.npy").unlink()
    for number in range(13):
        write_pair(dump, f"x{number:02}")
        (dump / "q" / f"x{number:02}.npy").unlink()
    assert "no targets for q/b.npy" in refused(batch(*DUMP))
    run = batch(*DUMP, "--allow-unmatched", "--format", "jsonl")
    assert run.code == 0
    notes = run.err.splitlines()
    assert notes[0] == "note: q/b.npy: predictions without a partner, left out"
    assert notes[-1] == "note: 4 more without a partner, left out"
    assert len(notes) == 11
    assert len(run.summary["unmatched"]) == 14
    assert [record["pair"] for record in run.records] == ["a", "c", "d", "e"]


def test_of_no_pairs_one_line_says_so(batch: Batch, dump: Path) -> None:
    for name in ("empty_q", "empty_p"):
        (dump / name).mkdir()
    assert refused(batch("empty_q", "empty_p")).startswith("empty_q: no files, expected some ")
    Path("pairs.csv").write_text("predictions,targets\n")
    assert "pairs.csv" in refused(batch("pairs.csv"))
    for arguments in ((), ("--allow-unmatched",)):
        assert refused(batch(*arguments)).startswith("no pairs, expected a suite, a table, ")


def test_each_pair_of_two_directories_may_have_its_own_mask(batch: Batch, dump: Path) -> None:
    (dump / "m").mkdir()
    for k, name in enumerate("abcde"):
        np.save(dump / "m" / f"{name}.npy", np.arange(6) > k)
    run = batch(*DUMP, "--mask", "m/{path}.npy", "--format", "jsonl")
    assert (run.code, run.err) == (0, "")
    assert [record["distributions"] for record in run.records] == [5, 4, 3, 2, 1]
    assert batch(*DUMP, "--mask", "m", "--format", "jsonl").records == run.records
    (dump / "m" / "b.npy").unlink()
    lacking = batch(*DUMP, "--mask", "m/{path}.npy", "--format", "jsonl")
    assert (lacking.code, lacking.summary["computed"]) == (2, 4)
    assert lacking.err == "error: b: m/b.npy: no such file\n"


@pytest.mark.parametrize("flag", [[], ["--top1"]])
def test_top_classes_are_counted_of_the_rows_that_ask_for_them(
    batch: Batch, dump: Path, flag: list[str]
) -> None:
    (dump / "pairs.csv").write_text(
        "name,predictions,targets,loss,predictions_are,top1\n"
        "a,q/a.npy,p/a.npy,kl,logits,true\n"
        "b,q/b.npy,p/b.npy,bce,logits,false\n"
        "c,q/c.npy,p/c.npy,kl,logits,\n"
    )
    run = batch("pairs.csv", *flag, "--format", "jsonl")
    assert (run.code, run.err) == (0, "")
    assert ["top1" in record for record in run.records] == [True, False, bool(flag)]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("pairs.csv", "predictions,targets,axis,loss\na,b,,kl\n\nc,d,1,kk\n", "pairs.csv: line 4: loss 'kk'"),
        (
            "pairs.jsonl",
            '{"predictions": "a", "targets": "b", "blocks_of": 1}',
            "pairs.jsonl: line 1: blocks",
        ),
        (
            "suite.toml",
            '[pairs.x]\npredictions = "a"\ntargets = "b"\nzero_policy = "one"\n',
            "suite.toml: [pairs.x]: zero_policy 'one'",
        ),
    ],
)
def test_an_option_that_is_wrong_in_a_list_is_told_with_its_place(
    batch: Batch, dump: Path, file: str, text: str, said: str
) -> None:
    (dump / file).write_text(text)
    assert refused(batch(file)).startswith(said)


def test_an_option_that_is_wrong_for_all_is_not_laid_to_a_row(batch: Batch, dump: Path) -> None:
    (dump / "pairs.csv").write_text("predictions,targets\na,b\n")
    assert refused(batch("pairs.csv", "--temperature", "-1")).startswith("--temperature -1.0: ")


def test_a_mask_of_all_rows_that_is_not_there_is_told_once(batch: Batch, dump: Path) -> None:
    (dump / "pairs.csv").write_text("predictions,targets\nq/a.npy,p/a.npy\nq/b.npy,p/b.npy\n")
    message = refused(batch("pairs.csv", "--log-softmax", "-1", "--mask", "none.npy"))
    assert message.startswith("--mask none.npy: no such file, expected the mask of all pairs; ")


@posix
def test_pairs_of_files_with_odd_names_are_computed_and_fail_alone(batch: Batch, dump: Path) -> None:
    for part in ("q", "p"):
        os.rename(f"{part}/b.npy", f"{part}/b\udcff.npy")
        os.rename(f"{part}/d.npy", f"{part}/d\n1.npy")
        os.rename(f"{part}/e.npy", f"{part}/::e.npy")
    spoil(dump, "d\n1")
    written = ("--output", "maps/{pair}.npy", "--journal", "j", "--results", "r.csv", "--force")
    run = batch(*DUMP, *written, "--format", "jsonl")
    assert run.code == 2
    computed = {record["pair"]: record["status"] for record in run.records}
    assert computed.pop(r"d\n1") == "error"
    assert computed == dict.fromkeys(["a", r"b\udcff", "c", r"\u003a:e"], "ok")
    assert {f"{name}.npy" for name in computed} == set(os.listdir("maps"))
    assert "\nb\\udcff,ok," in (dump / "r.csv").read_text()
    assert run.err.startswith(r"error: d\n1: ")
    again = batch(*DUMP, *written, "--format", "jsonl")
    assert (again.code, again.summary["from_journal"]) == (2, 4)


# What is computed


@pytest.mark.parametrize(
    "options",
    [
        ["--log-softmax", "-1"],
        ["--log-softmax", "0", "--zero-policy", "torch"],
        ["--log-softmax", "-1", "--loss", "kl", "--loss", "bce"],
        ["--loss", "bce", "--predictions-are", "logits", "--by-target"],
        ["--loss", "bce", "--predictions-are", "logits", "--weight", "w.npy", "--pos-weight", "w.npy"],
        ["--predictions-are", "logits", "--axis", "0", "--temperature", "2"],
        ["--targets-are", "logits", "--predictions-are", "logits"],
        ["--log-target", "--log-softmax", "-1"],
        ["--log-softmax", "-1", "--mask", "mask.npy", "--quantiles", "0.25,0.75", "--worst", "2"],
        ["--log-softmax", "-1", "--blocks-of", "2", "--top1"],
        ["--log-softmax", "-1", "--ignore-value", "0.5"],
        ["--log-softmax", "-1", "--reduction", "batchmean"],
        ["--log-softmax", "-1", "--no-size-average"],
    ],
    ids=" ".join,
)
def test_a_batch_of_one_pair_has_the_record_that_compute_has(
    batch: Batch, dump: Path, options: list[str]
) -> None:
    np.save("mask.npy", np.array([1, 1, 0, 1, 0, 1], np.uint8))
    np.save("w.npy", np.linspace(0.5, 2, 5))
    alone = batch("q/a.npy", "p/a.npy", *options, "--format", "jsonl", command="compute")
    assert alone.code == 0, alone.err
    run = batch("q/a.npy", "p/a.npy", *options, "--format", "jsonl")
    assert run.code == 0, run.err
    records = [
        {key: value for key, value in record.items() if key not in ("pair", "status")}
        for record in run.records
    ]
    expected = [json.loads(line) for line in alone.out.splitlines()]
    for record in expected:
        # What is said of a reduction is said of the numbers that are shown, here of all of them.
        record["findings"] = [f for f in record["findings"] if f["id"] != "reduction"]
    assert records == expected


@pytest.mark.parametrize(
    "options",
    [["--broadcast"], ["--trim-axis"], ["--allow-external"]],
    ids=" ".join,
)
def test_what_only_some_pairs_need_is_passed_on_too(batch: Batch, dump: Path, options: list[str]) -> None:
    np.save("p/a.npy", np.full({"--broadcast": (1, 5), "--trim-axis": (6, 7)}.get(options[0], (6, 5)), 0.2))
    if options == ["--allow-external"]:
        with h5py.File("other.h5", "w") as file:
            file["q"] = np.load("q/a.npy")
        with h5py.File("q/a.h5", "w") as file:
            file["q"] = h5py.ExternalLink("../other.h5", "q")
        pair = ["q/a.h5::/q", "p/a.npy"]
    else:
        pair = ["q/a.npy", "p/a.npy"]
    assert batch(*pair, *LOGITS).code == 2
    run = batch(*pair, *LOGITS, *options, "--format", "jsonl")
    assert run.code == 0, run.err


def test_workers_and_memory_are_what_was_asked_for(batch: Batch, lent: _Lent, dump: Path) -> None:
    for options, workers in ((["--workers", "1"], 1), (["--workers", "3"], 3), (["--memory", "15MiB"], 1)):
        assert batch(*DUMP, *options).code == 0
        assert lent.asked[-1] == workers
    message = refused(batch(*DUMP, "--memory", "1MiB", "--workers", "2", "--journal", "j"))
    assert message.startswith("--memory 1048576 bytes: expected at least ")
    assert not (dump / "j").exists()


def test_maps_of_all_pairs_are_those_of_compute(batch: Batch, dump: Path) -> None:
    batch(
        "q/a.npy", "p/a.npy", *LOGITS, "--output", "one.npy", "--output-dtype", "float32", command="compute"
    )
    writing = ("--output", "maps/{pair}.npy", "--output-dtype", "float32")
    assert batch(*DUMP, *writing).code == 0
    assert sorted(path.name for path in Path("maps").iterdir()) == [f"{name}.npy" for name in "abcde"]
    assert Path("maps/a.npy").read_bytes() == Path("one.npy").read_bytes()
    again = batch(*DUMP, *writing, "--format", "jsonl")
    assert again.code == 2
    assert {record["error"] for record in again.records} == {
        f"maps/{name}.npy: exists; overwrite it with --force" for name in "abcde"
    }
    assert batch(*DUMP, *writing, "--force").code == 0
    assert batch(*DUMP, "--distributions", "rows/{pair}.h5::/kl").code == 0
    with h5py.File("rows/e.h5") as file:
        assert file["kl"].shape == (6,)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--output", "map.npy"], "--output map.npy: one file for 5 pairs, expected {pair} in its name"),
        (["--output", "{pair}.txt"], "--output {pair}.txt: expected a name like map.npy"),
        (["--output", "m.h5::/{pair}"], "--output m.h5::/{pair}: {pair} in the name of a dataset"),
        (["--output", "p/{pair}.npy", "--force"], "p/a.npy: is the input "),
        (
            ["--output", "m/{pair}.npy", "--distributions", "m/{pair}.npy"],
            "--distributions m/{pair}.npy: is the file of --output too",
        ),
        (
            ["--distributions", "{pair}.npy", "--journal", "b.npy", "--force"],
            "pair 'b': b.npy is written to twice, also as the journal;",
        ),
        (["--output", "{stem}-{pair}.npy"], "--output {stem}-{pair}.npy: has {stem}, expected {pair} there"),
        (["--output-dtype", "float32"], "--output-dtype: needs an output; "),
        (["--force"], "--force: needs an output; "),
        (["--reduction", "none"], "--reduction none: shows the map of one pair"),
        (["--results", "r.txt"], "--results r.txt: its ending is that of no format, expected .jsonl, "),
        (["--results", "missing/r.csv"], "--results missing/r.csv: no directory "),
        (["--journal", "missing/j"], "--journal missing/j: no directory "),
        (["--journal", "q/a.npy"], "--journal q/a.npy: is the input q/a.npy"),
        (["--journal", "/dev/full"], "--journal /dev/full: is not a regular file"),
        (["--journal", "text"], "text: no journal: begins with "),
        (["--journal", "r.csv", "--results", "r.csv"], "--results r.csv: the journal too"),
        (["--journal", "r.csv", "--results", "./r.csv", "--force"], "--results ./r.csv: the journal too"),
        (["--axis", "0"], "--axis 0: contradicts "),
        (["--mask", "mask.npy"], "--mask mask.npy: no such file, expected the mask of all pairs; "),
        (["--journal", "s3://bucket/j"], "--journal s3://bucket/j: a URL, expected a file; "),
    ],
)
def test_what_can_not_be_done_for_any_pair_is_refused_before_any_is_computed(
    batch: Batch, dump: Path, options: list[str], expected: str
) -> None:
    (dump / "text").write_text("a text\n")
    before = {path: path.read_bytes() for path in dump.rglob("*") if path.is_file()}
    message = refused(batch(*DUMP, *options))
    assert expected in message
    assert message.startswith(expected.partition(":")[0]) or "text: no journal" in message
    assert {path: path.read_bytes() for path in dump.rglob("*") if path.is_file()} == before


def test_the_list_of_pairs_is_not_written_over(batch: Batch, dump: Path) -> None:
    write_lists(dump)
    before = (dump / "pairs.csv").read_bytes()
    assert "is the input pairs.csv" in refused(
        batch("pairs.csv", *LOGITS, "--results", "pairs.csv", "--force")
    )
    assert "is the input pairs.csv" in refused(batch("pairs.csv", *LOGITS, "--journal", "pairs.csv"))
    assert (dump / "pairs.csv").read_bytes() == before


def test_a_name_does_not_lead_out_of_where_maps_go(batch: Batch, dump: Path) -> None:
    (dump / "pairs.csv").write_text("name,predictions,targets\n../x,q/a.npy,p/a.npy\nb,q/b.npy,p/b.npy\n")
    assert batch("pairs.csv", *LOGITS).code == 0
    message = refused(batch("pairs.csv", *LOGITS, "--output", "maps/{pair}.npy"))
    assert message.startswith("pair '../x': its output would lie outside of its directory")


# Exit codes, and what is told


def test_one_bad_pair_is_told_and_stops_no_other(batch: Batch, dump: Path) -> None:
    spoil(dump)
    run = batch(*DUMP, "--format", "jsonl", "--results", "r.jsonl")
    assert run.code == 2
    assert run.err.startswith("error: c: ")
    assert run.err.count("\n") == 1
    assert [record["status"] for record in run.records] == ["ok", "ok", "error", "ok", "ok"]
    assert run.summary["failed"] == [{"pair": "c", "error": run.records[2]["error"]}]
    written = Run(0, (dump / "r.jsonl").read_text(), "")
    assert written.records == run.records
    assert written.summary == run.summary


def test_many_bad_pairs_are_told_as_far_as_anybody_reads_on(batch: Batch, dump: Path) -> None:
    names = names_of(30)
    write_dump(dump, names)
    for name in names:
        spoil(dump, name)
    run = batch(*DUMP, "--format", "csv")
    assert run.code == 2
    assert run.err.splitlines()[-1] == "error: 10 more pairs could not be computed"
    assert run.err.count("\n") == 21


def test_a_warning_is_told_and_exits_1_only_if_strict(batch: Batch, dump: Path) -> None:
    np.save("p/b.npy", np.full((6, 5), 0.3))
    for options, code in (([], 0), (["--strict"], 1)):
        run = batch(*DUMP, "--format", "jsonl", *options)
        assert run.code == code
        assert run.err.startswith("warning: b: ")
    assert batch(*DUMP, "--journal", "j", "--strict").code == 1
    assert batch(*DUMP, "--journal", "j", "--strict").code == 1
    spoil(dump)
    assert batch(*DUMP, "--strict").code == 2


def test_an_internal_error_is_told_with_its_trace_when_all_other_pairs_are_done(
    batch: Batch, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(predictions: str, *more: Any, **options: Any) -> Any:
        if predictions == "q/b.npy":
            raise RuntimeError("what nobody foresaw")
        return open_inputs(predictions, *more, **options)

    # So they are opened in this process.
    monkeypatch.setattr("kldiv_cli.batch._LARGE", 0)
    monkeypatch.setattr("kldiv_cli.batch_worker.open_inputs", opened)
    run = batch(*DUMP, "--format", "jsonl", "--results", "results.jsonl")
    assert run.code == 3
    assert [r["pair"] for r in run.records if r["status"] == "error"] == ["b"]
    assert len(run.summary["failed"]) == 1
    assert run.summary["computed"] == run.summary["pairs"] - 1
    assert Path("results.jsonl").read_text("utf-8").count("\n") == run.out.count("\n")
    assert "error: b: internal error: RuntimeError: what nobody foresaw; please report it" in run.err
    assert "in opened" in run.err
    assert run.err.endswith("kldiv: internal error: please report it with the lines above\n")


@pytest.mark.parametrize("more", [(), ("--fail-fast",)], ids=["", "fail-fast"])
def test_a_pair_that_never_came_back_is_an_internal_error(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    def lossy(*arguments: Any, **options: Any) -> Iterator[PairResult]:
        yield from itertools.islice(run_batch(*arguments, **options), 1, None)

    monkeypatch.setattr("kldiv_cli.resume.run_batch", lossy)
    run = batch(*DUMP, "--format", "jsonl", *more)
    assert run.code == 3
    assert (run.summary["computed"], run.summary["not_reached"]) == (4, 1)
    assert "RuntimeError: 1 of 5 pairs not reached, though nothing stopped the run\n" in run.err
    assert "--fail-fast" not in run.err
    assert run.err.endswith("kldiv: internal error: please report it with the lines above\n")


def test_fail_fast_stops_at_the_first_that_fails_and_keeps_what_was_done(batch: Batch, dump: Path) -> None:
    write_dump(dump, names_of(60))
    spoil(dump, "003")
    options = ("--fail-fast", "--workers", "1", "--journal", "j", "--format", "jsonl")
    run = batch(*DUMP, *options, "--results", "r.jsonl")
    assert run.code == 2
    assert [record["pair"] for record in run.records] == ["000", "001", "002", "003"]
    stopped = "note: 61 of 65 pairs not reached: stopped at the first that failed, as --fail-fast says\n"
    assert run.err.endswith(stopped)
    assert run.summary["not_reached"] == 61
    assert (run.summary["pairs"], run.summary["computed"], len(run.summary["failed"])) == (65, 3, 1)
    assert Run(0, (dump / "r.jsonl").read_text(), "").records == run.records
    write_pair(dump, "003")
    rest = batch(*DUMP, *options)
    assert rest.code == 0
    assert (rest.summary["from_journal"], rest.summary["computed"]) == (3, 62)


@pytest.mark.parametrize("format", ["plain", "table", "md"])
def test_what_fail_fast_did_not_reach_stands_in_the_heading_too(
    batch: Batch, dump: Path, format: str
) -> None:
    spoil(dump)
    run = batch(*DUMP, "--fail-fast", "--workers", "1", "--format", format)
    assert run.code == 2
    assert "5 pairs: 2 computed, 1 could not be computed, 2 not reached; " in run.out


@pytest.mark.parametrize("format", ["plain", "table", "md", "csv"])
def test_an_error_is_told_once_on_each_stream(batch: Batch, dump: Path, format: str) -> None:
    spoil(dump)
    run = batch(*DUMP, "--format", format)
    assert (run.code, run.err.count("equal shapes"), run.out.count("equal shapes")) == (2, 1, 1)


def test_a_pair_is_not_named_twice_where_its_file_is_called_as_it_is(batch: Batch, dump: Path) -> None:
    rows = ["q/gone.npy,p/a.npy,", "p/a.npy,q/gone.npy,q/gone.npy", "q/gone.npy,p/a.npy,other"]
    (dump / "pairs.csv").write_text("\n".join(["predictions,targets,name", *rows, ""]))
    run = batch("pairs.csv", *LOGITS)
    gone = "q/gone.npy: no such file"
    assert sorted(run.err.splitlines()) == [f"error: other: {gone}", f"error: {gone}", f"error: {gone}"]
    (dump / "b.npy").write_text("no array")
    assert batch(".", "p", *LOGITS, "--allow-unmatched").err.splitlines()[-1].startswith("error: ./b.npy: ")


@pytest.mark.parametrize("name", ["[red]x", "a b", "ü-数", "-x", "a,b", 'a"b'])
def test_names_are_shown_as_they_are(batch: Batch, dump: Path, name: str) -> None:
    write_pair(dump, name)
    for format in ("plain", "table", "md", "json"):
        run = batch(*DUMP, "--format", format)
        assert run.code == 0
        shown = {"json": json.dumps(name), "md": re.sub(r"[][]", r"\\\g<0>", name)}.get(format, name)
        assert shown in run.out
    (row,) = (
        row for row in csv.DictReader(io.StringIO(batch(*DUMP, "--format", "csv").out)) if row["pair"] == name
    )
    assert row["status"] == "ok"


# Files of results, and the journal


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_file_of_results_holds_all_pairs_of_a_resumed_run_too(
    batch: Batch, dump: Path, ending: str
) -> None:
    spoil(dump)
    results = ("--results", f"r.{ending}", "--force", "--journal", "j")
    assert batch(*DUMP, *results).code == 2
    write_pair(dump, "c")
    assert batch(*DUMP, *results).code == 0
    whole = batch(*DUMP, "--format", ending)
    lines = [sorted(text.splitlines()) for text in (whole.out, (dump / f"r.{ending}").read_text())]
    assert [line for line in lines[0] if "summary" not in line] == [
        line for line in lines[1] if "summary" not in line
    ]
    assert not list(dump.glob(".*"))


def test_the_same_line_again_replaces_the_results_that_it_wrote_and_no_others(
    batch: Batch, dump: Path
) -> None:
    line = (*DUMP, "--journal", "j", "--results", "r.csv")
    spoil(dump)
    assert batch(*line).code == 2
    write_pair(dump, "c")
    assert batch(*line).code == 0
    assert ",error," not in (dump / "r.csv").read_text()
    assert batch(*line).code == 0
    (dump / "elsewhere.csv").write_text("a user's own")
    for other in (
        [*line[:-1], "elsewhere.csv"],
        [*DUMP, "--results", "r.csv"],
        [*line[:-3], "k", *line[-2:]],
    ):
        assert "exists; overwrite it with --force" in refused(batch(*other))
    assert batch(*line[:-1], "elsewhere.csv", "--force").code == 0
    assert batch(*line[:-1], "elsewhere.csv").code == 0, "it is the journal's by now"
    assert batch(*line).code == 0


def test_results_that_were_never_written_are_none_of_the_journals(
    batch: Batch, dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = (*DUMP, "--journal", "j", "--results", "r.csv")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr("kldiv_cli.atomic.publish", full)
        assert "No space left on device" in batch(*line).err
    (dump / "r.csv").write_text("a user's own")
    assert "--results r.csv: exists; overwrite it with --force" in refused(batch(*line))
    (dump / "r.csv").unlink()
    assert batch(*line).code == 0


def with_files_of(most: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A batch where no file may have more bytes."""
    resource = pytest.importorskip("resource")
    return subprocess.run(
        [sys.executable, "-m", "kldiv_cli", "batch", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )


def test_a_file_that_can_not_take_the_results_is_told_and_all_pairs_are_computed(dump: Path) -> None:
    write_dump(dump, names_of(40))
    done = with_files_of(10_000, *DUMP, "--results", "r.csv", "--format", "jsonl")
    assert done.returncode == 2
    place = dump.resolve() / "r.csv"
    problem = f"{place}: File too large, nothing was written there; make room, or choose another place"
    assert done.stderr.splitlines() == [
        f"note: {problem}; the pairs are computed all the same",
        f"kldiv: error: {problem}",
    ]
    *pairs, last = map(json.loads, done.stdout.splitlines())
    assert last["summary"]["computed"] == len(pairs) >= 40
    assert list(dump.glob("*r.csv*")) == []


def test_a_file_that_can_not_take_the_journal_ends_the_run_and_keeps_what_it_took(dump: Path) -> None:
    write_dump(dump, names_of(40))
    done = with_files_of(20_000, *DUMP, "--journal", "j", "--format", "jsonl")
    assert done.returncode == 2
    assert done.stderr.startswith("kldiv: error: ")
    assert done.stderr.count("\n") == 1
    assert "j: File too large, what was written there before is kept; make room, or " in done.stderr
    told = len(done.stdout.splitlines())
    assert told
    done = subprocess.run(done.args, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0
    run = Run(0, done.stdout, done.stderr)
    assert len(run.records) == 45
    assert run.summary["from_journal"] == told


# What may not be read or written


def as_anybody() -> None:
    """Before a program is run: take from root what it may do beyond others."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def shut(path: Path, mode: int) -> None:
    path.parent.mkdir(exist_ok=True)
    if mode & 0o111:
        path.mkdir()
    else:
        path.write_bytes(b"")
    path.chmod(mode)


def run_as_anybody(*arguments: str) -> Run:
    process = start(*arguments, preexec_fn=as_anybody)
    out, err = process.communicate(timeout=SECONDS)
    return Run(process.returncode, out.decode(), err.decode())


@posix
def test_an_input_or_a_directory_that_is_shut_costs_its_own_pair(dump: Path) -> None:
    (dump / "q" / "b.npy").chmod(0)
    for part in ("q", "p"):
        (dump / part / "sub").mkdir()
        shutil.copy(dump / part / "a.npy", dump / part / "sub" / "x.npy")
    shut(dump / "maps" / "sub", 0o555)
    run = run_as_anybody(*DUMP, "--output", "maps/{pair}.npy", "--format", "jsonl")
    assert run.code == 2
    first, second = sorted(run.err.splitlines())
    assert first == "error: b: q/b.npy: Permission denied"
    assert "maps/sub/x.npy: Permission denied, nothing was written there; mend its perm" in second
    assert [record["status"] for record in run.records] == ["ok", "error", "ok", "ok", "ok", "error"]
    assert sorted(path.name for path in (dump / "maps").glob("*.npy")) == [f"{k}.npy" for k in "acde"]


@posix
@pytest.mark.parametrize(
    ("arguments", "path", "mode"),
    [
        (["--journal", "shut/j"], "shut", 0o555),
        (["--journal", "j"], "j", 0o444),
        (["--journal", "j", "--dry-run"], "j", 0o222),
        (["--results", "shut/r.csv"], "shut", 0o555),
        (["--results", "shut/r.jsonl", "--force"], "shut", 0o555),
    ],
    ids=["journal in it", "journal", "dry run", "results", "force"],
)
def test_a_file_that_may_not_be_written_or_read_is_told_in_one_line_before_the_work(
    dump: Path, arguments: list[str], path: str, mode: int
) -> None:
    shut(dump / path, mode)
    message = refused(run_as_anybody(*DUMP, *arguments))
    assert f"{arguments[1]}: Permission denied, " in message
    assert message.endswith("; mend its permissions, or choose another place")


@posix
def test_a_dry_run_needs_a_journal_that_it_may_read_and_no_more(dump: Path) -> None:
    shut(dump / "j", 0o444)
    run = run_as_anybody(*DUMP, "--journal", "j", "--dry-run", "--format", "jsonl")
    assert (run.code, run.err, len(run.records)) == (0, "", 5)


# While it runs


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    defaults = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "kldiv_cli", "batch", *arguments]
    return subprocess.Popen(command, **{**defaults, **options})


def write_zeros(name: str, rows: int) -> None:
    """A pair that takes long, and no room on the disk."""
    for part in ("q", "p"):
        np.lib.format.open_memmap(f"{part}/{name}.npy", "w+", np.float32, (rows, 10)).flush()  # type: ignore[no-untyped-call]


@pytest.fixture
def slow(dump: Path) -> Path:
    """A dump with two pairs that take long."""
    write_zeros("y", 3_000_000)
    write_zeros("z", 3_000_000)
    return dump


@posix
@pytest.mark.parametrize("format", ["jsonl", "csv", "plain"])
def test_a_pair_is_seen_as_soon_as_it_is_done(dump: Path, format: str) -> None:
    """While another one is computed, which would take a minute."""
    write_zeros("z", 200_000_000)
    process = start(*DUMP, "--format", format)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2 + (format != "jsonl"))]
    running = process.poll() is None
    process.terminate()
    process.communicate(timeout=SECONDS)
    assert running
    assert lines[-1].endswith(b"\n")


@posix
def test_a_reader_that_has_seen_enough_ends_it_quietly(slow: Path) -> None:
    process = start(*DUMP, "--format", "jsonl")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (141, b"")


@posix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_it_quietly_and_the_journal_keeps_what_was_done(
    dump: Path, number: signal.Signals, code: int
) -> None:
    write_zeros("z", 200_000_000)
    writing = ("--journal", "j", "--results", "r.csv", "--format", "jsonl")
    writing += ("--distributions", "maps/{pair}.npy")
    process = start(*DUMP, *writing)
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(5)]
    wait_until(lambda: bool(list(dump.glob("maps/.z*.tmp"))), process)
    workers = children_of(process.pid)
    assert workers
    started = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (code, b"", b"")
    assert time.monotonic() - started < 20
    assert not any(map(is_running, workers))
    assert sorted(path.name for path in dump.iterdir()) == ["j", "maps", "p", "q"]
    assert sorted(path.name for path in (dump / "maps").iterdir()) == [f"{name}.npy" for name in "abcde"]
    write_pair(dump, "z")
    run = finished(*DUMP, *writing)
    assert (run.summary["from_journal"], run.summary["computed"]) == (5, 1)
    assert sorted(run.out.splitlines()[:5]) == sorted(line.decode().rstrip("\n") for line in seen)


@posix
def test_a_second_run_on_one_journal_is_refused(dump: Path) -> None:
    assert finished(*DUMP, "--journal", "j")
    before = (dump / "j").read_bytes()
    with open_journal("j"):
        second = start(*DUMP, "--journal", "j", "--results", "r.csv")
        out, err = second.communicate(timeout=SECONDS)
        assert (second.returncode, out) == (2, b"")
        assert b"j: another process is writing to it; wait until that has ended" in err
        dry = start(*DUMP, "--journal", "j", "--dry-run", "--format", "csv")
        out, err = dry.communicate(timeout=SECONDS)
        assert (dry.returncode, out.count(b",finished,"), err) == (0, 5, b"")
    assert (dump / "j").read_bytes() == before
    assert sorted(path.name for path in dump.iterdir()) == ["j", "p", "q"]


@pytest.mark.parametrize(
    ("columns", "variables", "animated"),
    [
        (100, {}, True),
        (40, {"NO_COLOR": "1"}, True),
        (80, {"TERM": "dumb"}, False),
    ],
    ids=["wide", "narrow without colour", "dumb"],
)
def test_on_a_terminal_it_is_seen_running_and_ends_in_a_table(
    dump: Path, columns: int, variables: dict[str, str], animated: bool
) -> None:
    spoil(dump)
    code, seen = on_terminal(*DUMP, columns=columns, variables=variables)
    assert code == 2
    assert ("\x1b[?25l" in seen) == animated
    assert ("\x1b[31m" in seen or "\x1b[1m" in seen) == (animated and "NO_COLOR" not in variables)
    assert "macro" in seen
    assert "error: c: " in seen.replace("\n", "")


@posix
def test_a_terminal_that_is_gone_ends_it_as_one_that_is_gone(dump: Path) -> None:
    pty = pytest.importorskip("pty")
    write_zeros("z", 200_000_000)
    child, terminal = pty.fork()
    if child == 0:
        command = [sys.executable, "-m", "kldiv_cli", "batch", *DUMP, "--journal", "j"]
        os.execve(sys.executable, command, {**os.environ, "TERM": "xterm"})
    while lines_in(Path("j")) < 6:
        assert os.read(terminal, 65536), "something is drawn all the time"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
    assert lines_in(Path("j")) == 6


def on_terminal(*arguments: str, columns: int, variables: dict[str, str]) -> tuple[int, str]:
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unwanted = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    clean = {name: value for name, value in os.environ.items() if name not in unwanted}
    process = start(
        *arguments, stdout=theirs, stderr=theirs, env={**clean, "TERM": "xterm-256color", **variables}
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    return process.wait(SECONDS), seen.decode().replace("\r\n", "\n")


def finished(*arguments: str) -> Run:
    """A run that nothing is wrong with."""
    process = start(*arguments)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, b"")
    return Run(process.returncode, out.decode(), "")


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, "it ended first"
        assert time.monotonic() < end
        time.sleep(0.005)


# Killed at any moment


def settled(lines: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The lines of the pairs in order, and of the summary what does not tell how it came about."""
    summary = json.loads(lines[-1])["summary"]
    for name in ("seconds", "computed", "from_journal"):
        del summary[name]
    return sorted(lines[:-1]), summary


@posix
def test_killed_at_any_moment_and_run_again_it_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty kills, on two journals at a time, one of them with maps; some at the start, most at work."""
    monkeypatch.chdir(tmp_path)
    names = [pair.name for pair in write_dump(tmp_path, 150, rows=40)]
    begun = time.monotonic()
    expected = finished(*WRITING, "--distributions", "rows/{pair}.npy").out.splitlines()
    duration = time.monotonic() - begun
    assert len(expected) == len(names) + 1
    mapped = ("--distributions", "again/{pair}.npy")
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(killed_ten_times, journal, arguments, duration)
            for journal, arguments in (("plain", ()), ("mapped", mapped))
        ]
        killed = [run.result() for run in runs]
    assert all(interrupted for interrupted, _ in killed)
    for journal, arguments in (("plain", ()), ("mapped", mapped)):
        done = finished(*WRITING, *arguments, "--journal", journal)
        assert settled(done.out.splitlines()) == settled(expected)
        entries = [json.loads(line)["entry"] for line in Path(journal).read_text().splitlines()[1:]]
        computed = [entry["pair"] for entry in entries if entry["status"] == "ok"]
        assert sorted(computed) == names, "a pair was computed twice, or not at all"
    for name in names:
        assert Path(f"again/{name}.npy").read_bytes() == Path(f"rows/{name}.npy").read_bytes()
    end = time.monotonic() + 20
    while any(is_running(pid) for _, orphans in killed for pid in orphans) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(is_running(pid) for _, orphans in killed for pid in orphans)
    assert not list(Path("again").glob(".*"))


WRITING = (*DUMP, "--format", "jsonl")


def killed_ten_times(journal: str, arguments: Sequence[str], duration: float) -> tuple[int, set[int]]:
    """How many runs with a journal did not end by themselves, and the processes that they had started."""
    moments, interrupted, orphans = random.Random(journal), 0, set[int]()
    for kill in range(10):
        running = (*WRITING, *arguments, "--journal", journal, "--workers", str(1 + kill // 2 % 2))
        process = start(*running, stdout=subprocess.DEVNULL)
        if kill % 2:
            time.sleep(moments.uniform(0, duration))
        else:
            wait_for_lines(Path(journal), moments.randrange(1, 12), process)
        orphans |= children_of(process.pid)
        process.kill()
        _, err = process.communicate(timeout=SECONDS)
        interrupted += process.returncode == -signal.SIGKILL
        assert err == b""
    return interrupted, orphans


def wait_for_lines(path: Path, more: int, process: subprocess.Popen[bytes]) -> None:
    """Until a file has so many more lines, or the process has ended."""
    wanted = lines_in(path) + more
    while process.poll() is None and lines_in(path) < wanted:
        time.sleep(0.002)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
