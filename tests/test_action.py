"""The GitHub action and the pre-commit hook: the scripts of action.yml run as the runner would run them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree

import pytest
import yaml
from runner_commands import commands_in

ROOT: Final = Path(__file__).parents[1]
ACTION: Final[dict[str, Any]] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS: Final[list[dict[str, Any]]] = ACTION["runs"]["steps"]
EXPRESSION: Final = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
SAMPLES: Final = ROOT / "sample_data"

bash = pytest.mark.skipif(
    os.name != "posix" or shutil.which("bash") is None, reason="needs bash, and programs that are scripts"
)


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Runner:
    """As much of a runner as the action sees: directories, variables, and the file of outputs."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "a runner's temp"
        self.temporary.mkdir()
        self.output = folder / "output"
        self.summary = folder / "summary"
        self.workspace = folder / "work space"
        self.workspace.mkdir()
        self.python = self._program(
            folder / "python3",
            # A virtual environment is made by putting this program in it, and pip only says what it was told.
            # Without -I a file of the repository could stand in for a module.
            f"""
[ "$1" = -I ] || exit 9
case " $* " in
  *' -m venv '*) for place; do :; done; mkdir -p "$place/bin"; cp "$0" "$place/bin/python";;
  *' -m pip '*) printf '%s\\n' "$@" > {shlex.quote(str(folder / "pip"))};;
  *) exec {shlex.quote(sys.executable)} "$@";;
esac
""",
        )
        self.pip = folder / "pip"

    def _program(self, path: Path, script: str) -> Path:
        path.write_text(f"#!/bin/sh\n{script}", "utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def run(self, **inputs: str) -> Ended:
        """All steps, up to one that fails."""
        defaults = {name: str(declared.get("default", "")) for name, declared in ACTION["inputs"].items()}
        given = defaults | {"python": str(self.python)} | inputs
        out = err = ""
        for step in STEPS:
            ended = self._run_step(step, given)
            out, err = out + ended.stdout, err + ended.stderr
            if ended.returncode:
                return Ended(ended.returncode, out, err)
        return Ended(0, out, err)

    def _run_step(self, step: dict[str, Any], inputs: dict[str, str]) -> subprocess.CompletedProcess[str]:
        def value_of(text: str) -> str:
            return EXPRESSION.sub(lambda found: inputs[found[1].removeprefix("inputs.")], text)

        script = self.temporary / "step.sh"
        script.write_text(value_of(step["run"]), "utf-8")
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.workspace / value_of(step.get("working-directory", ".")),
            env={
                **os.environ,
                "GITHUB_ACTION_PATH": str(ROOT),
                "GITHUB_OUTPUT": str(self.output),
                "GITHUB_STEP_SUMMARY": str(self.summary),
                "RUNNER_TEMP": str(self.temporary),
                **{name: value_of(value) for name, value in step.get("env", {}).items()},
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    def outputs(self) -> dict[str, str]:
        """The file of outputs, as the runner reads it."""
        named: dict[str, str] = {}
        lines = iter(self.output.read_text("utf-8").splitlines())
        for line in lines:
            if match := re.fullmatch(r"([\w-]+)<<(.+)", line):
                value = [*iter(lambda: next(lines), match[2])]
                named[match[1]] = "\n".join(value)
            else:
                name, _, named_value = line.partition("=")
                named[name] = named_value
        return named


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(tmp_path)
    (runner.workspace / "samples").symlink_to(SAMPLES)
    yield runner
    assert sorted(path.name for path in tmp_path.iterdir() if "pwned" in path.name) == []


# What is declared


def test_no_input_is_ever_part_of_a_script() -> None:
    assert len(STEPS) == 2
    for step in STEPS:
        assert EXPRESSION.findall(step["run"]) == []
        assert step["shell"] == "bash"


def test_every_input_is_used_and_every_output_is_one_of_a_step() -> None:
    values = [text for step in STEPS for text in (*step["env"].values(), step.get("working-directory", ""))]
    used = {name for text in values for name in EXPRESSION.findall(text)}
    assert used == {f"inputs.{name}" for name in ACTION["inputs"]}
    (check,) = [step for step in STEPS if step.get("id")]
    for name, output in ACTION["outputs"].items():
        assert EXPRESSION.findall(output["value"]) == [f"steps.{check['id']}.outputs.{name}"]
        assert f"{name}=" in check["run"] or f"{name}<<" in check["run"]


def test_inputs_and_outputs_are_described() -> None:
    for declared in (*ACTION["inputs"].values(), *ACTION["outputs"].values()):
        assert declared["description"]
    assert all("default" in declared for declared in ACTION["inputs"].values())


def test_the_workflow_tries_the_action_on_the_sample_data() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    steps = workflow["jobs"]["sample-data"]["steps"]
    ours = [step for step in steps if step.get("uses") == "./"]
    assert ours
    for step in ours:
        assert step["with"].keys() <= ACTION["inputs"].keys()
        folder = ROOT / step["with"].get("working-directory", ".")
        assert (folder / step["with"].get("suite", "")).exists()


# What runs


@bash
def test_the_sample_data_keeps_to_its_baseline(runner: Runner) -> None:
    ended = runner.run(suite="samples/suite.toml")
    assert (ended.code, ended.out.splitlines()[0]) == (0, "3 pairs: 3 passed")
    assert runner.outputs() == {"exit-code": "0", "junit": str(runner.workspace / "kldiv-check.xml")}
    assert ElementTree.parse(runner.workspace / "kldiv-check.xml").getroot().get("tests") == "3"
    assert runner.summary.read_text("utf-8").startswith("## kldiv check\n")


@bash
def test_kldiv_is_installed_from_where_the_action_is(runner: Runner) -> None:
    runner.run(suite="samples/suite.toml")
    told = runner.pip.read_text("utf-8").splitlines()
    assert told[:4] == ["-I", "-m", "pip", "install"]
    assert told[-1] == str(ROOT)


@bash
def test_a_failed_pair_fails_the_step_with_an_annotation_and_a_report(runner: Runner) -> None:
    pair = "digits.h5::/student_logits digits.h5::/teacher_probs --log-softmax -1"
    ended = runner.run(
        **{"working-directory": "samples", "junit": str(runner.workspace / "my report.xml")},
        arguments=f"{pair}\n--limit 'distmean < 0.1' --name \"it's bad\"",
    )
    assert ended.code == 1
    assert [command.properties["title"] for command in commands_in(ended.err)] == [
        "kldiv check: it's bad failed"
    ]
    assert runner.outputs() == {"exit-code": "1", "junit": str(runner.workspace / "my report.xml")}
    assert ElementTree.parse(runner.workspace / "my report.xml").getroot().get("failures") == "1"


@bash
def test_without_a_suite_it_is_that_of_pyproject(runner: Runner) -> None:
    ended = runner.run()
    assert ended.code == 2
    assert "pyproject.toml" in ended.err
    (runner.workspace / "pyproject.toml").write_text(
        '[tool.kldiv.pairs.tumours]\npredictions = "samples/cancer_probs.npy"\n'
        'targets = "samples/cancer_labels.npy"\nloss = "bce"\nlimits = ["mean < 0.2"]\n',
        "utf-8",
    )
    assert runner.run().code == 0


@bash
@pytest.mark.parametrize(
    "text",
    [
        "$(touch ../pwned)",
        "`touch ../pwned`",
        "; touch ../pwned",
        '"; touch ../pwned; "',
        "a\nb",
        "* ?",
        "'",
        "--",
    ],
)
@pytest.mark.parametrize("name", ["suite", "junit", "name"])
def test_nothing_written_in_an_input_is_run(runner: Runner, name: str, text: str) -> None:
    inputs = {name: text}
    if name == "name":
        pair = "samples/cancer_probs.npy samples/cancer_labels.npy --loss bce --limit 'mean < 0.2'"
        inputs = {"arguments": f"{pair} --name {shlex.quote(text)}"}
    ended = runner.run(**inputs)
    assert ended.code == (0 if name == "name" else 2)
    assert runner.outputs()["exit-code"] == str(ended.code)
    if name == "name":
        case = ElementTree.parse(runner.workspace / "kldiv-check.xml").getroot()[0]
        assert case.get("name") == text
    if name == "junit":
        assert runner.outputs()["junit"] == os.path.abspath(runner.workspace / text)


@bash
def test_arguments_with_an_open_quotation_are_refused(runner: Runner) -> None:
    ended = runner.run(suite="samples/suite.toml", arguments="--name 'a")
    assert ended.code == 2
    (command,) = commands_in(ended.err)
    assert command.message == "input arguments: No closing quotation"
    assert runner.outputs() == {"exit-code": "2"}


@bash
def test_an_old_python_is_told_as_such(runner: Runner, tmp_path: Path) -> None:
    old = runner._program(tmp_path / "old", "exit 1")
    ended = runner.run(python=str(old))
    assert ended.code == 2
    (command,) = commands_in(ended.out)
    assert command.message.startswith("needs Python 3.11 or newer; ")


@bash
def test_no_module_of_the_repository_stands_in_for_one_of_pythons(runner: Runner) -> None:
    for name in ("venv", "pip", "shlex", "numpy", "kldiv_cli", "uuid"):
        (runner.workspace / f"{name}.py").write_text("open('../pwned', 'w')\nraise SystemExit(7)\n", "utf-8")
    assert runner.run(suite="samples/suite.toml").code == 0


# pre-commit

HOOKS: Final[list[dict[str, Any]]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))


def test_the_hook_runs_the_gate_once_whatever_files_were_changed() -> None:
    (hook,) = HOOKS
    assert (hook["id"], hook["entry"], hook["language"]) == ("kldiv-check", "kldiv check", "python")
    assert hook["pass_filenames"] is False


@pytest.mark.parametrize(
    ("path", "runs"),
    [
        ("suite.toml", True),
        ("sample_data/suite.toml", True),
        ("int8-suite.toml", True),
        ("pyproject.toml", True),
        ("baseline.json", True),
        ("outputs/digits.npy", True),
        ("dump.h5", True),
        ("README.md", False),
        ("ci/gate.toml", True),
        ("kldiv.json", True),
        ("notes.txt", False),
        ("npy", False),
        ("digits.npy.txt", False),
    ],
)
def test_the_hook_runs_where_arrays_suites_or_baselines_changed(path: str, runs: bool) -> None:
    assert (re.search(HOOKS[0]["files"], path) is not None) is runs


# The README


def test_the_readme_gives_the_action_and_the_hook_what_they_take() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    of_action, of_hook = map(
        yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    )
    (ours,) = [step for step in of_action if step.get("id")]
    assert ours["with"].keys() <= ACTION["inputs"].keys()
    named = {name for step in of_action for name in EXPRESSION.findall(str(step.get("with")))}
    assert named == {f"steps.{ours['id']}.outputs.junit"}
    assert [hook["id"] for hook in of_hook["repos"][0]["hooks"]] == [HOOKS[0]["id"]]
    for name in (*ACTION["inputs"], *ACTION["outputs"]):
        assert f"`{name}`" in text or f"{name}:" in text or f"outputs.{name}" in text
