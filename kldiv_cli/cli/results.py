"""``--results FILE``: the rows of a batch in a file, as JSON lines, CSV or Parquet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from kldiv_cli.errors import UsageError

if TYPE_CHECKING:
    from kldiv_cli.batch_summary import BatchSummary
    from kldiv_cli.pair_result import PairResult
    from kldiv_cli.report.console import Format
    from kldiv_cli.spec import Spec

__all__ = ["Results", "open_results"]

_TEXT: Final[dict[str, Format]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_PARQUET: Final = ".parquet"


class Results(ABC):
    """A file of results that takes its name when it is finished, else leaves nothing behind."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    @abstractmethod
    def add(self, result: PairResult) -> None:
        """Write the next pair."""

    @abstractmethod
    def finish(self, summary: BatchSummary) -> None:
        """Write what all pairs come to, and give the file its name."""

    @abstractmethod
    def discard(self) -> None:
        """Remove the file, unless it is finished."""


def open_results(address: str, spec: Spec, inputs: Iterable[str] = (), *, force: bool = False) -> Results:
    """Begin a file of results, in the format that its name ends with.

    Raises
    ------
    UsageError
        The ending is none of those, or its library is not installed.
    OutputError
        Something is there and `force` is not given, it is one of `inputs`, or can't be written there.
    """
    from kldiv_cli.text_sinks import check_output_text

    ending = Path(address).suffix.lower()
    if ending not in (*_TEXT, _PARQUET):
        raise UsageError(
            f"results {address}: its ending is that of no format, expected {', '.join(_TEXT)} or {_PARQUET}; "
            "choose a name like results.csv"
        )
    if ending == _PARQUET:
        from kldiv_cli.parquet_sinks import require_parquet

        require_parquet(f"results {address}")
    place = check_output_text("results", address, inputs, force=force)
    if ending == _PARQUET:
        return _Parquet(place, spec, force=force)
    return _Text(place, spec, _TEXT[ending], force=force)


class _Text(Results):
    """What stdout has in that format, with all digits and every reduction."""

    def __init__(self, place: Path, spec: Spec, format: Format, *, force: bool) -> None:
        from kldiv_cli.report.batch import batch_lines
        from kldiv_cli.text_sinks import TextFile

        self._force = force
        self._lines = batch_lines(format, spec)
        self._file = TextFile(place)
        self._file.write(self._lines.begin())

    def add(self, result: PairResult) -> None:
        self._file.write(self._lines.pair(result))

    def finish(self, summary: BatchSummary) -> None:
        self._file.write(self._lines.end(summary))
        self._file.commit(force=self._force)

    def discard(self) -> None:
        self._file.discard()


class _Parquet(Results):
    """The rows and columns of CSV, but for the summary, which is in the file's metadata as JSON has it."""

    def __init__(self, place: Path, spec: Spec, *, force: bool) -> None:
        from kldiv_cli.parquet_sinks import ParquetFile
        from kldiv_cli.report.batch_rows import columns_of

        self._force = force
        self._columns = columns_of(spec)
        self._file = ParquetFile(place, {column.name: column.kind for column in self._columns})

    def add(self, result: PairResult) -> None:
        from kldiv_cli.report.batch_rows import pair_rows

        for row in pair_rows(result, self._columns):
            self._file.write(row)

    def finish(self, summary: BatchSummary) -> None:
        from kldiv_cli.report.batch import summary_text

        self._file.describe({"kldiv": summary_text(summary)})
        self._file.commit(force=self._force)

    def discard(self) -> None:
        self._file.discard()
