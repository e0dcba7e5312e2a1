"""Files of results: in the formats of stdout, whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from batches import SPEC, broken, computed, summed

from kldiv_cli.cli.results import open_results
from kldiv_cli.errors import OutputError, UsageError
from kldiv_cli.report.batch import batch_lines
from kldiv_cli.report.console import Format

RESULTS = (computed("a"), broken(), computed("b", seed=2))


@pytest.mark.parametrize(
    ("name", "format"), [("r.jsonl", "jsonl"), ("r.ndjson", "jsonl"), ("r.csv", "csv"), ("R.CSV", "csv")]
)
def test_the_file_holds_what_stdout_would(tmp_path: Path, name: str, format: Format) -> None:
    lines = batch_lines(format, SPEC)
    expected = lines.begin() + "".join(map(lines.pair, RESULTS)) + lines.end(summed(RESULTS))
    with open_results(str(tmp_path / name), SPEC) as results:
        for result in RESULTS:
            results.add(result)
        results.finish(summed(RESULTS))
    assert (tmp_path / name).read_bytes() == expected.encode()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_until_it_is_finished_no_file_has_the_name(tmp_path: Path) -> None:
    place = tmp_path / "r.csv"

    def interrupted() -> None:
        with open_results(str(place), SPEC) as results:
            results.add(RESULTS[0])
            assert not place.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_finished(tmp_path: Path) -> None:
    place = tmp_path / "r.csv"
    place.write_text("old")
    with pytest.raises(OutputError, match=r"^results .*r.csv: exists; overwrite it with --force$"):
        open_results(str(place), SPEC)
    with open_results(str(place), SPEC, force=True) as results:
        results.add(RESULTS[0])
        assert place.read_text() == "old"
        results.finish(summed(RESULTS[:1]))
    assert place.read_text().startswith("pair,status,loss,")


def test_a_file_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    place = tmp_path / "r.jsonl"
    with open_results(str(place), SPEC) as results:
        place.write_text("theirs")
        with pytest.raises(OutputError, match="exists by now"):
            results.finish(summed(RESULTS))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_an_input_and_a_place_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").touch()
    with pytest.raises(OutputError, match="is the input"):
        open_results(str(tmp_path / "pairs.csv"), SPEC, [str(tmp_path / "pairs.csv")], force=True)
    with pytest.raises(OutputError, match="no directory"):
        open_results(str(tmp_path / "missing" / "r.csv"), SPEC)


@pytest.mark.parametrize("name", ["r.json", "r", "r.csv.gz", "csv"])
def test_an_ending_of_no_format_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"expected .jsonl, .ndjson, .csv or .parquet; choose a name"):
        open_results(str(tmp_path / name), SPEC)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with open_results(str(tmp_path / "r.jsonl"), SPEC) as results:
            for _ in range(100):
                results.add(RESULTS[0])

    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"File too large, nothing was written there; make room, "):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_one_line_says_what_to_install(tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules["pyarrow"] = None
from kldiv_cli.cli.results import open_results
from kldiv_cli.errors import UsageError
from kldiv_cli.spec import Spec
try:
    open_results({str(tmp_path / "r.parquet")!r}, Spec())
except UsageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        f"results {tmp_path}/r.parquet: needs pyarrow; install it with pip install "
    )
    assert len(done.stdout.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
