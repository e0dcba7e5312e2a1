"""Where the results of a batch go: stdout, a file, the live view; and what they come to at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kldiv_cli.errors import OutputError

if TYPE_CHECKING:
    from kldiv_cli.batch_pair import BatchPair
    from kldiv_cli.batch_summary import BatchSummary
    from kldiv_cli.cli.results import Results
    from kldiv_cli.pair_files import Unmatched
    from kldiv_cli.pair_result import PairResult
    from kldiv_cli.reductions import Reduction
    from kldiv_cli.report.batch_live import LiveBatch
    from kldiv_cli.report.console import Format
    from kldiv_cli.spec import Spec

__all__ = ["Outlets"]

_ERRORS_TOLD = 20


class Outlets:
    """Takes results as they come; of each no more is kept than will be shown."""

    def __init__(
        self,
        spec: Spec,
        format: Format,
        reduction: Reduction | None,
        precision: int | None,
        *,
        names: Sequence[str],
        full: bool,
        unmatched: Sequence[Unmatched] = (),
    ) -> None:
        from kldiv_cli.batch_totals import BatchTotals
        from kldiv_cli.report.batch import batch_lines
        from kldiv_cli.report.told import Told
        from kldiv_cli.spread import LIMIT

        self._spec, self._format, self._reduction = spec, format, reduction
        self._unmatched = tuple((one.address, one.role) for one in unmatched)
        self._begun = time.monotonic()
        self._totals = BatchTotals(
            worst_losses=spec.worst, quantiles=spec.quantiles, kept=LIMIT // len(spec.losses)
        )
        self._lines = batch_lines(format, spec, reduction, precision, names=names, full=full)
        self._told = Told(_ERRORS_TOLD)
        self._results: Results | None = None
        self._view: LiveBatch | None = None
        self._pairs = self._from_journal = 0
        self._failed: list[tuple[str, str]] = []
        self._warned = self._started = self._stopped = False
        self._defect: Exception | None = None
        self._unwritten: OutputError | None = None
        """Why there is no file of results."""

    def open_results(
        self, address: str | None, inputs: Sequence[str], stack: contextlib.ExitStack, *, force: bool
    ) -> None:
        """Begin the file of results, if there is to be one."""
        if address is not None:
            from kldiv_cli.cli.results import open_results

            self._results = stack.enter_context(open_results(address, self._spec, inputs, force=force))

    def open_view(
        self, pairs: Sequence[BatchPair], stack: contextlib.ExitStack, *, wanted: bool | None
    ) -> Callable[[float], None] | None:
        """Show what is going on, where somebody looks; return what is to be told of bytes that are done."""
        from kldiv_cli.report.progress import batch_progress

        sizes = {pair.name: pair.size for pair in pairs}
        self._pairs = len(pairs)
        view = batch_progress(self._spec, self._reduction, sizes, self._format, wanted=wanted)
        self._view = stack.enter_context(view)
        return None if self._view is None else self._view.advance

    def add(self, result: PairResult, *, from_journal: bool) -> None:
        """Take the next pair."""
        from kldiv_cli.report.batch import tell_pair

        self._totals.add(result)
        self._from_journal += from_journal
        if result.error is not None:
            self._failed.append((result.name, result.error))
        self._defect = self._defect or result.defect
        self._warned = self._warned or _has_warning(result)
        tell_pair(self._told, result)
        self._write(self._lines.pair(result))
        self._keep(lambda results: results.add(result))
        if self._view is not None:
            self._view.add(result, from_journal=from_journal)

    def stop(self) -> None:
        """Expect no more pairs, as one failed and others are not wanted then."""
        self._stopped = True

    def finish(self, *, strict: bool) -> int:
        """Show what all pairs come to, and return the exit code."""
        from kldiv_cli.findings import counted
        from kldiv_cli.report.console import tell

        summary = self._summary()
        self._keep(lambda results: results.finish(summary))
        self._write(self._lines.end(summary))
        for kind, text in self._told.lines():
            tell(kind, text)
        missing = f"{summary.not_reached} of {counted(summary.pairs, 'pair')} not reached"
        if summary.not_reached and self._stopped:
            tell("note", f"{missing}: stopped at the first that failed, as --fail-fast says")
        # An internal error is told as any other one, only that all other pairs are done first.
        if self._defect is not None:
            raise self._defect
        if summary.not_reached and not self._stopped:
            raise RuntimeError(f"{missing}, though nothing stopped the run")
        if self._unwritten is not None:
            raise self._unwritten
        if self._failed:
            return 2
        return int(strict and self._warned)

    def _keep(self, put: Callable[[Results], None]) -> None:
        """Put something into the file of results; that it can't take it is no reason to stop."""
        if self._results is None:
            return
        try:
            put(self._results)
        except OutputError as error:
            from kldiv_cli.report.console import tell

            tell("note", f"{error}; the pairs are computed all the same")
            self._results.discard()
            self._results, self._unwritten = None, error

    def _write(self, text: str) -> None:
        from kldiv_cli.report.console import write

        if not self._started:
            self._started, text = True, self._lines.begin() + text
        if text:
            write(text)

    def _summary(self) -> BatchSummary:
        from kldiv_cli.batch_summary import BatchSummary

        counts = self._totals.counts
        return BatchSummary(
            pairs=self._pairs,
            computed=counts.computed - self._from_journal,
            from_journal=self._from_journal,
            failed=tuple(sorted(self._failed)),
            unmatched=self._unmatched,
            bytes=counts.bytes,
            seconds=time.monotonic() - self._begun,
            losses=self._totals.losses,
        )


def _has_warning(result: PairResult) -> bool:
    return any(f["severity"] == "warning" for record in result.records for f in record["findings"])
