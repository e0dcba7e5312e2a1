"""The reports that `kldiv check` writes beside its tables: begun before the work, written whole after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kldiv_cli.gate import Checked

__all__ = ["Reports"]


@dataclass(slots=True, kw_only=True)
class Reports:
    """Where reports go; an earlier report is replaced, any other file only with `force`."""

    junit: str | None = None
    markdown: str | None = None
    github: bool = False
    force: bool = False
    _places: dict[str, Path] = field(default_factory=dict)

    def open(self, inputs: Sequence[str] = ()) -> None:
        """Refuse places that can't be written to, or that are inputs.

        Raises
        ------
        OutputError
            Of those.
        """
        from kldiv_cli.report.gate import MARKDOWN_MARK
        from kldiv_cli.report.junit import JUNIT_MARK
        from kldiv_cli.text_sinks import check_output_text

        for option, address, mark in (
            ("junit", self.junit, JUNIT_MARK),
            ("markdown", self.markdown, MARKDOWN_MARK),
        ):
            if address is not None:
                self._places[option] = check_output_text(option, address, inputs, mark=mark, force=self.force)

    def write(self, results: Sequence[Checked]) -> None:
        """Write them all."""
        from kldiv_cli.text_sinks import append_text, write_text

        if "junit" in self._places:
            from kldiv_cli.report.junit import junit_xml

            write_text(self._places["junit"], junit_xml(results))
        if "markdown" in self._places:
            from kldiv_cli.report.gate import MARKDOWN_MARK, markdown

            write_text(self._places["markdown"], MARKDOWN_MARK + markdown(results))
        if self.github:
            from kldiv_cli.report.github import annotate, step_summary
            from kldiv_cli.streams import say

            for line in annotate(results):
                say(line)
            summary = os.environ.get("GITHUB_STEP_SUMMARY")
            if summary:
                append_text(Path(summary), step_summary(results))
