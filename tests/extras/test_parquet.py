"""Results as Parquet: the rows of CSV, typed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from batches import SPEC, broken, computed, impossible, renamed, summed

from kldiv_cli.cli.results import open_results
from kldiv_cli.errors import OutputError
from kldiv_cli.pair_result import PairResult
from kldiv_cli.report.batch_rows import columns_of, pair_rows
from kldiv_cli.spec import Spec, resolve_spec

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

BOTH = resolve_spec(losses=("kl", "bce"), predictions_are="probs", top1=True, by_target=True, worst=1)


def written(place: Path, results: list[PairResult], spec: Spec = SPEC) -> Any:
    with open_results(str(place), spec) as file:
        for result in results:
            file.add(result)
        file.finish(summed(results, spec))
    return pq.read_table(place)


@pytest.mark.parametrize("spec", [SPEC, BOTH], ids=["kl", "both"])
def test_rows_and_columns_are_those_of_csv_with_their_types(tmp_path: Path, spec: Spec) -> None:
    results = [computed("a", spec), broken(), computed("b", spec, seed=2)]
    table = written(tmp_path / "r.parquet", results, spec)
    columns = columns_of(spec)
    types = {str: "string", int: "int64", float: "double", bool: "bool"}
    assert {field.name: str(field.type) for field in table.schema} == {c.name: types[c.kind] for c in columns}
    expected = [row for result in results for row in pair_rows(result, columns)]
    assert table.to_pylist() == [{c.name: row.get(c.name) for c in columns} for row in expected]
    assert [path.name for path in tmp_path.iterdir()] == ["r.parquet"]


def test_inf_and_nan_stay_what_they_are_and_are_not_null(tmp_path: Path) -> None:
    row, ugly = written(tmp_path / "r.parquet", [impossible(), broken()]).to_pylist()
    assert row["sum"] == math.inf
    assert math.isnan(row["statistics.standard_error"])
    assert (ugly["sum"], ugly["error"]) == (None, "ugly/q.npy: no such file")


def test_the_summary_is_in_the_metadata(tmp_path: Path) -> None:
    results = [computed("a"), computed("b", seed=2)]
    written(tmp_path / "r.parquet", results)
    summary = json.loads(pq.read_metadata(tmp_path / "r.parquet").metadata[b"kldiv"])
    (loss,) = summed(results).losses
    assert summary["schema"] == "kldiv/1"
    assert summary["summary"]["losses"][0]["micro"]["sum"] == loss.scalars.sum


def test_rows_are_written_in_groups_as_they_come(tmp_path: Path) -> None:
    result = computed("a")
    with open_results(str(tmp_path / "r.parquet"), SPEC) as file:
        for k in range(10_000):
            file.add(renamed(result, f"p{k}"))
        (growing,) = tmp_path.iterdir()
        assert growing.name != "r.parquet"
        assert growing.stat().st_size > 1000
        file.finish(summed([result]))
    metadata = pq.read_metadata(tmp_path / "r.parquet")
    assert [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)] == [4096, 4096, 1808]


def test_a_batch_of_no_pairs_is_a_table_of_no_rows(tmp_path: Path) -> None:
    table = written(tmp_path / "r.parquet", [])
    assert (table.num_rows, table.column_names[0]) == (0, "pair")


def test_a_name_that_is_no_unicode_is_escaped(tmp_path: Path) -> None:
    (row,) = written(tmp_path / "r.parquet", [renamed(computed("a"), "q\udcff\n")]).to_pylist()
    assert row["pair"] == "q\\udcff\\n"


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with open_results(str(tmp_path / "r.parquet"), SPEC) as file:
            file.add(computed("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    results = [computed("a")] * 5000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"r.parquet: .*, nothing was written there; ") as caught:
            written(tmp_path / "r.parquet", results)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
