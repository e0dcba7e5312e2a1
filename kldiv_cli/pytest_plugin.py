"""The pytest plugin: the fixture `kldiv_check` holds arrays to limits, as ``kldiv check`` holds files.

Every run of pytest loads it where kldiv is installed, so all else is imported when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from kldiv_cli.api import ArrayOrPath
    from kldiv_cli.baseline import Baseline, Change, Recorded
    from kldiv_cli.gate import Checked

__all__ = [
    "Gate",
    "kldiv_check",
    "pytest_addoption",
    "pytest_configure",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
]


class Gate:
    """What the checks of a session share: the baseline, and what is to be written to it."""

    def __init__(self, path: Path | None, *, update: bool) -> None:
        self.path, self.update = path, update
        self.recorded: dict[str, Recorded] = {}
        self._baseline: Baseline | None = None
        self._before: dict[str, Recorded] = {}

    def check(
        self,
        predictions: ArrayOrPath,
        targets: ArrayOrPath,
        *,
        limits: Iterable[str],
        name: str,
        allow: Iterable[str],
        options: dict[str, Any],
        used: set[str],
    ) -> Checked:
        """Hold a pair to its limits; when the baseline is updated, to what the pair comes to now.

        `used` are the names that the test has held to the baseline already.
        """
        from kldiv_cli.errors import UsageError
        from kldiv_cli.gate import check
        from kldiv_cli.limit_parser import parse_limit

        # Both are gone through more than once, which would find a generator empty.
        limits, allow = (each if isinstance(each, str) else tuple(each) for each in (limits, allow))
        baseline = None
        if not isinstance(limits, str) and any(parse_limit(limit).stored for limit in limits):
            if name in used:
                raise UsageError(f"{name}: is checked already in this test; give each check its own name=")
            used.add(name)
            baseline = self.baseline()
            if self.update:
                self._record(name, predictions, targets, limits, allow, options)
                baseline = self.baseline()
        return check(
            predictions, targets, limits=limits, baseline=baseline, name=name, allow=allow, **options
        )

    def baseline(self) -> Baseline | None:
        """The file's contents, as they will be after an update."""
        from kldiv_cli.baseline import Baseline
        from kldiv_cli.baseline_file import read_baseline

        if self.path is None:
            return None
        if self._baseline is None:
            new = self.update and not os.path.lexists(self.path)
            self._baseline = Baseline(path=str(self.path)) if new else read_baseline(str(self.path))
        return Baseline(path=str(self.path), pairs={**self._baseline.pairs, **self.recorded})

    def _record(
        self,
        name: str,
        predictions: ArrayOrPath,
        targets: ArrayOrPath,
        limits: Iterable[str],
        allow: Iterable[str],
        options: dict[str, Any],
    ) -> None:
        from kldiv_cli.budget import Resources
        from kldiv_cli.cases import case_of
        from kldiv_cli.errors import UsageError
        from kldiv_cli.gate import measure

        if name in self.recorded:
            raise UsageError(f"{name}: is recorded already in this run; give each check its own name=")
        computed = {key: value for key, value in options.items() if key not in ("workers", "memory")}
        resources = Resources(workers=options.get("workers"), memory=options.get("memory"))
        case = case_of(name, predictions, targets, computed, limits=limits, allow=allow, judged=False)
        measured = measure(case, resources=resources)
        if not measured.errors():
            self.recorded[name] = measured.recorded()

    def changes(self) -> list[Change]:
        """What was recorded, beside what the file had of it."""
        from kldiv_cli.baseline import Baseline, changes

        old = {name: pair for name, pair in self._before.items() if name in self.recorded}
        return list(changes(Baseline(path="", pairs=old), Baseline(path="", pairs=self.recorded)))

    def write(self) -> None:
        """Write what was recorded, beside what the file has of other checks by now."""
        from kldiv_cli.baseline_file import baseline_text
        from kldiv_cli.text_sinks import check_output_text, write_text

        self._baseline = None
        baseline = self.baseline()
        assert baseline is not None
        assert self._baseline is not None
        self._before = dict(self._baseline.pairs)
        place = check_output_text("kldiv-baseline", baseline.path, (), force=True)
        write_text(place, baseline_text(baseline), force=True)


_GATE: Final = pytest.StashKey[Gate]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kldiv")
    group.addoption(
        "--kldiv-baseline",
        metavar="FILE",
        help="Baseline of kldiv_check. Default: kldiv_baseline of the ini-file.",
    )
    group.addoption(
        "--kldiv-update",
        action="store_true",
        help="Accept what the checks with a baseline come to: write it to the file.",
    )
    parser.addini("kldiv_baseline", "Baseline of kldiv_check, relative to the ini-file.")


def pytest_configure(config: pytest.Config) -> None:
    update = config.getoption("--kldiv-update")
    path = _path_of(config)
    if update and path is None:
        raise pytest.UsageError("--kldiv-update: which file? say --kldiv-baseline FILE")
    if update and (hasattr(config, "workerinput") or config.getoption("numprocesses", None)):
        raise pytest.UsageError("--kldiv-update: several processes would each write the file; run without -n")
    config.stash[_GATE] = Gate(path, update=update)


def _path_of(config: pytest.Config) -> Path | None:
    given: str | None = config.getoption("--kldiv-baseline")
    configured: str | None = config.getini("kldiv_baseline")
    if given:
        return config.invocation_params.dir / given
    beside = config.rootpath if config.inipath is None else config.inipath.parent
    return beside / configured if configured else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    gate = session.config.stash.get(_GATE, None)
    if gate is None or not gate.recorded:
        return
    from kldiv_cli.errors import KldivError

    try:
        gate.write()
    except KldivError as error:
        pytest.exit(f"kldiv_check: {error}", returncode=pytest.ExitCode.USAGE_ERROR)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what an update accepted, each number before and after."""
    gate = config.stash[_GATE]
    if not gate.recorded:
        return
    from kldiv_cli.report.baseline import render_changes

    terminalreporter.section(f"kldiv_check: updated {gate.path}")
    terminalreporter.write(render_changes(gate.changes(), "plain", 6))


_WORDS: Final = {
    "--baseline FILE": "--kldiv-baseline FILE",
    "kldiv baseline record": "pytest --kldiv-update",
    "kldiv baseline update": "pytest --kldiv-update",
    "--name": "name=",
}


def _in_pytest(message: str) -> str:
    """What is said of the command's options, said of ours."""
    for words, ours in _WORDS.items():
        message = message.replace(words, ours)
    return message


@pytest.fixture
def kldiv_check(request: pytest.FixtureRequest) -> Callable[..., Checked]:
    """Fail the test where a pair, in memory or stored, does not keep its limits.

    ``kldiv_check(predictions, targets, limits=["distmean < 0.01"], log_softmax=-1)``: all else are
    arguments of `kldiv_cli.evaluate`, `allow` (ids of findings) and `name` (in the baseline, by
    default the test's id).
    """
    gate = request.config.stash[_GATE]
    used: set[str] = set()

    def check(
        predictions: ArrayOrPath,
        targets: ArrayOrPath,
        /,
        *,
        limits: Iterable[str],
        name: str | None = None,
        allow: Iterable[str] = (),
        **options: Any,
    ) -> Checked:
        __tracebackhide__ = True
        from kldiv_cli.errors import KldivError
        from kldiv_cli.report.gate import render_checked, told_findings

        called = name or request.node.nodeid
        problem = None
        try:
            checked = gate.check(
                predictions, targets, limits=limits, name=called, allow=allow, options=options, used=used
            )
        except KldivError as error:
            problem = f"kldiv_check: {_in_pytest(str(error))}"
        if problem is not None:
            pytest.fail(problem, pytrace=False)
        if not checked:
            told = "\n".join(f"{kind}: {message}" for kind, message in told_findings([checked]))
            pytest.fail(f"{render_checked([checked], 'plain', 6)}{told}", pytrace=False)
        return checked

    return check
