"""The reports that `kldiv check` writes beside its tables: begun before the work, written whole after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kldiv_cli.errors import OutputError

if TYPE_CHECKING:
    from kldiv_cli.gate import Checked

__all__ = ["Reports"]


class _Report(NamedTuple):
    option: str
    address: str
    mark: str
    """What it begins with."""
    render: Callable[[Sequence[Checked]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Where reports go; an earlier report is replaced, any other file only with `force`."""

    junit: str | None = None
    markdown: str | None = None
    github: bool = False
    force: bool = False

    def check_places(self, inputs: Sequence[str] = ()) -> None:
        """Refuse places that can't be written to, or that are inputs or one another's.

        Raises
        ------
        OutputError
            Of those.
        """
        from kldiv_cli.text_sinks import check_output_text

        taken: dict[Path, str] = {}
        for option, address, mark, _ in self._reports():
            place = check_output_text(option, address, inputs, mark=mark, force=self.force)
            if place in taken:
                raise OutputError(f"{option} {address}: is where --{taken[place]} goes; choose another name")
            taken[place] = option

    def begin(self, names: Sequence[str]) -> None:
        """Say of these pairs that nothing is known, lest a run cut short leave the report of an earlier one.

        Raises
        ------
        OutputError
            A report can't be written.
        """
        from kldiv_cli.gate import Checked

        error = "not computed: the run was cut short, or is not over yet"
        for report in self._reports():
            _write(report, [Checked(name=name, error=error) for name in names])

    def write(self, results: Sequence[Checked]) -> OutputError | None:
        """Write them all, as far as they can be; return the first reason why one can't be written."""
        problems: list[OutputError] = []
        for report in self._reports():
            with _kept(problems):
                _write(report, results)
        with _kept(problems):
            self._tell_github(results)
        return problems[0] if problems else None

    def write_problem(self, name: str, problem: str) -> None:
        """Report why nothing was checked.

        What the inputs are may not be known then, so that even with `force` only earlier reports give way.
        """
        from kldiv_cli.gate import Checked
        from kldiv_cli.text_sinks import check_output_text

        results = [Checked(name=name, error=problem)]
        for report in self._reports():
            with contextlib.suppress(OutputError):
                check_output_text(report.option, report.address, (), mark=report.mark)
                _write(report, results)
        with contextlib.suppress(OutputError):
            self._tell_github(results)

    def _reports(self) -> Iterator[_Report]:
        if self.junit is not None:
            from kldiv_cli.report.junit import JUNIT_MARK, junit_xml

            yield _Report("junit", self.junit, JUNIT_MARK, junit_xml)
        if self.markdown is not None:
            from kldiv_cli.report.gate import MARKDOWN_MARK, markdown_file

            yield _Report("markdown", self.markdown, MARKDOWN_MARK, markdown_file)

    def _tell_github(self, results: Sequence[Checked]) -> None:
        if not self.github:
            return
        from kldiv_cli.report.github import annotate, step_summary
        from kldiv_cli.streams import say
        from kldiv_cli.text_sinks import append_text

        for line in annotate(results):
            say(line, command=True)
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            append_text(Path(summary), step_summary(results, _size(summary)))


def _write(report: _Report, results: Sequence[Checked]) -> None:
    from kldiv_cli.text_sinks import write_text

    write_text(Path(os.path.realpath(report.address)), report.render(results), force=True)


def _size(path: str) -> int:
    """In bytes; 0 where there is nothing, since appending tells what is wrong."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


@contextlib.contextmanager
def _kept(problems: list[OutputError]) -> Iterator[None]:
    try:
        yield
    except OutputError as problem:
        problems.append(problem)
