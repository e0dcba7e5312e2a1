"""Rows to a Parquet file, in groups as they come; the file takes its name when it is finished."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kldiv_cli.atomic import explained, new_temporary, publish, remove_temporary
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


class ParquetFile:
    """A table whose columns are given by name, with the kind of value that each has."""

    def __init__(self, path: Path, kinds: Mapping[str, type]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        self.path = path
        self._pa = pa
        self._schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
        self._rows: list[Mapping[str, object]] = []
        with explained(path):
            self.temporary = new_temporary(path)
        try:
            with explained(path):
                self._file: Any = open(self.temporary, "wb")  # noqa: SIM115 - closed by commit or discard
                self._writer = pq.ParquetWriter(self._file, self._schema)
        except BaseException:
            self.discard()
            raise

    def write(self, row: Mapping[str, object]) -> None:
        """Add a row; a column that it lacks is null there.

        Raises
        ------
        OutputError
            The file can't take it.
        """
        self._rows.append(row)
        if len(self._rows) == _GROUP:
            self._flush()

    def commit(self, metadata: Mapping[str, str], *, force: bool = True) -> None:
        """Write what is left, and give the file its name; without `force` only if none has it by now.

        Raises
        ------
        OutputError
            It can't be written; what was there before still is.
        """
        self._flush()
        with explained(self.path):
            self._writer.add_key_value_metadata(metadata)
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            publish(self.temporary, self.path, force=force)

    def discard(self) -> None:
        """Remove what was written, unless it has its name already."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._writer.close()
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._file.close()
        remove_temporary(self.temporary)

    def _flush(self) -> None:
        if not self._rows:
            return
        with explained(self.path):
            self._writer.write_table(self._pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []
