"""Rows to a Parquet file, in groups as they come; the file takes its name when it is finished."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kldiv_cli.atomic import NewFile, explained
from kldiv_cli.errors import UsageError

__all__ = ["ParquetFile", "require_parquet"]

_GROUP: Final = 4096
"""Rows are kept until there are as many, then written."""


def require_parquet(address: str) -> None:
    """Refuse to begin what can't be written.

    Raises
    ------
    UsageError
        PyArrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError(
            f"{address}: needs pyarrow; install it with pip install 'kldiv-cli[parquet]', "
            "or choose a name like results.csv or results.jsonl"
        ) from None


class ParquetFile(NewFile):
    """A table whose columns are given by name, with the kind of value that each has."""

    def __init__(self, path: Path, kinds: Mapping[str, type]) -> None:
        import pyarrow as pa

        types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        self._pa = pa
        self._schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
        self._rows: list[Mapping[str, object]] = []
        super().__init__(path)

    def _begin(self) -> None:
        import pyarrow.parquet as pq

        self._file: Any = open(self.temporary, "wb")  # noqa: SIM115 - closed by commit or discard
        self._writer = pq.ParquetWriter(self._file, self._schema)

    def write(self, row: Mapping[str, object]) -> None:
        """Add a row; a column that it lacks is null there.

        Raises
        ------
        OutputError
            The file can't take it.
        """
        self._rows.append(row)
        if len(self._rows) == _GROUP:
            with explained(self.path):
                self._flush()

    def describe(self, metadata: Mapping[str, str]) -> None:
        """Add what is true of the whole table."""
        with explained(self.path):
            self._writer.add_key_value_metadata(metadata)

    def _close(self, *, durable: bool) -> None:
        try:
            if durable:
                self._flush()
            self._writer.close()
            if durable:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []
