"""The lines of a journal: what a pair came to, or which files are written for it, with a checksum.

A line is ``{"crc32": …, "entry": {…}, "records": […], "totals": {…}}``: JSON, whose checksum is of
what follows it. So a line is known to be whole without being parsed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

from kldiv_cli.pair_result import PairResult
from kldiv_cli.spec import LOSSES
from kldiv_cli.totals_record import totals_from, totals_record

__all__ = ["BEGUN", "canonical", "entry_of", "line_of", "parts_of", "result_from"]

BEGUN: Final = "begun"
"""The status of a pair whose files may be there, but not its result; or, without a name, of the run."""
_BEFORE: Final = b'{"crc32":"'
_BEHIND: Final = b'",'
_START: Final = len(_BEFORE) + 8 + len(_BEHIND)
"""Where in a line that begins whose checksum stands before it."""
_ENTRY: Final = '"entry":'
_decoder: Final = json.JSONDecoder()


def parts_of(result: PairResult, stamp: Mapping[str, Any]) -> tuple[dict[str, Any], Any, Any]:
    """The entry, the records and the totals of a line."""
    entry = {
        "pair": result.name,
        "status": "ok" if result.error is None else "error",
        "stamp": stamp,
        "predictions": result.predictions,
        "targets": result.targets,
        "bytes": result.bytes,
        "seconds": result.seconds,
        "error": result.error,
    }
    return entry, result.records, {loss: totals_record(of_loss) for loss, of_loss in result.totals.items()}


def line_of(entry: Mapping[str, Any], records: Any, totals: Any) -> bytes:
    """A line, with its newline."""
    body = f'{_ENTRY}{_text(entry)},"records":{_text(records)},"totals":{_text(totals)}}}'.encode()
    return b"".join((_BEFORE, _checksum(body), _BEHIND, body, b"\n"))


def _text(value: Any) -> str:
    """Escaped to ASCII, for names of files need not be Unicode."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def canonical(stamp: object) -> str:
    """A stamp as text that is the same in whatever order its parts stand."""
    return json.dumps(stamp, sort_keys=True, allow_nan=False)


def _checksum(body: bytes | memoryview) -> bytes:
    return b"%08x" % zlib.crc32(body)


def entry_of(line: bytes) -> dict[str, Any] | None:
    """What a line is of; None if it is not what was written."""
    end = len(line) - line.endswith(b"\n")
    if not line.startswith(_BEFORE) or line[_START - len(_BEHIND) : _START] != _BEHIND:
        return None
    if _checksum(memoryview(line)[_START:end]) != line[len(_BEFORE) : len(_BEFORE) + 8]:
        return None
    try:
        entry, _ = _decoder.raw_decode(line.decode("ascii"), _START + len(_ENTRY))
        return entry if _is_entry(entry) else None
    except (ValueError, RecursionError):
        return None


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or "stamp" not in entry:
        return False
    if entry.get("status") == BEGUN:
        return isinstance(entry.get("pair", 0), str | None) and _has_outputs(entry)
    return entry.get("status") in ("ok", "error") and isinstance(entry.get("pair"), str)


def _has_outputs(entry: Mapping[str, Any]) -> bool:
    outputs = entry.get("outputs")
    return isinstance(outputs, list) and {*map(type, outputs)} <= {str}


def result_from(line: bytes) -> PairResult:
    """The result of a pair that was computed.

    Raises
    ------
    ValueError
        What is written there is no such result.
    """
    try:
        table = json.loads(line)
        entry, records, totals = table["entry"], table["records"], table["totals"]
        return PairResult(
            name=entry["pair"],
            predictions=entry["predictions"],
            targets=entry["targets"],
            records=tuple(records),
            totals={loss: totals_from(totals[loss]) for loss in LOSSES if loss in totals},
            bytes=entry["bytes"],
            seconds=entry["seconds"],
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no result of a pair: {error}") from None
