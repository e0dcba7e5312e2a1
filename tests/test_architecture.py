"""The order of the house: who imports whom, what is public, and what a start must not load."""

from __future__ import annotations

import ast
import graphlib
import importlib
import importlib.metadata
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import kldiv_cli
from kldiv_cli.cli.app import SUMMARIES, load_command

ROOT = Path(kldiv_cli.__file__).parent

FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__", "pytest_plugin"),
    ("cli",),
    ("kldiv_cli",),
    ("report",),
    ("resume",),
    ("batch_plan", "pair_stamps", "claims"),
    ("gate", "batch"),
    ("batch_small", "batch_large", "interleaving"),
    ("batch_worker",),
    ("batch_pair",),
    ("cases",),
    ("pair_finder",),
    ("pair_directories", "pair_globs", "pair_groups", "pair_table"),
    ("pair_set",),
    ("api", "pairing", "suite", "baseline_file", "suggestions"),
    ("pair",),
    ("baseline", "pair_names", "arguments"),
    ("table_rows",),
    ("pair_files", "suite_tables"),
    ("placeholders",),
    ("addresses",),
    ("globs",),
    ("batch_totals", "journal"),
    ("journal_lines",),
    ("pair_result",),
    ("batch_summary",),
    ("record",),
    ("comparison", "quantities"),
    ("comparison_worker", "evaluation"),
    ("comparison_partial", "probes"),
    ("comparison_rows", "comparison_spec", "streaming"),
    ("placement", "apart"),
    ("budget", "engine"),
    ("processes", "cluster"),
    ("cluster_probe",),
    ("cluster_run",),
    (
        "execution",
        "pace",
        "process_worker",
        "cluster_worker",
        "block_reader",
        "distributions",
        "piece_losses",
        "digests",
    ),
    ("totals_record",),
    ("totals",),
    ("partials", "job", "shapes", "inspection"),
    ("top_classes",),
    ("places", "pieces"),
    ("map_view", "diagnosis", "target_split", "masses", "selection", "estimates", "sequence"),
    ("misuse", "anomalies"),
    ("evidence",),
    ("findings", "limit_parser", "verdicts"),
    ("limits",),
    ("statistics", "alignment", "observations", "segments"),
    ("octaves", "spread"),
    ("reductions", "histogram"),
    ("spec", "sinks", "text_sinks", "parquet_sinks", "line_file", "sources"),
    ("blocks", "buffers", "likeness", "atomic", "locks", "patterns", "stopping"),
    ("functional", "urls"),
    ("kernels",),
    ("spelling",),
    ("streams",),
    ("errors",),
)
"""From the roof to the ground: a module, or a package with all in it, imports only from below."""

ALLOWED: dict[str, frozenset[str]] = {
    "rich": frozenset({"report.table", "report.batch_live", "report.console", "report.progress"}),
    "typer": frozenset({"__main__", "cli.app", "cli.options"}),
    "h5py": frozenset(
        {"sources.hdf5", "sources.hdf5_groups", "sources.hdf5_listing", "sources.hdf5_names", "sinks"}
    ),
    "pyarrow": frozenset({"parquet_sinks"}),
    "zarr": frozenset({"sources.zarr_store", "sources.zarr_remote"}),
    "obstore": frozenset(
        {
            "sources.stores",
            "sources.remote",
            "sources.remote_errors",
            "sources.remote_listing",
            "sources.zarr_remote",
        }
    ),
    "botocore": frozenset({"sources.stores"}),
    "distributed": frozenset({"cluster", "cluster_probe", "cluster_run"}),
}
"""The only importers of what is heavy."""

EXTRAS = frozenset({"zarr"})
"""Libraries of extras that a module may import at its top, for it is of no use without."""

PURE = (
    "functional",
    "kernels",
    "likeness",
    "reductions",
    "histogram",
    "spread",
    "octaves",
    "statistics",
    "totals",
    "totals_record",
    "batch_totals",
    "limits",
    "selection",
    "observations",
    "alignment",
    "estimates",
    "findings",
    "evidence",
    "misuse",
    "anomalies",
    "diagnosis",
)
"""Numbers in, numbers out: these know neither files nor terminals."""


def module_name(path: Path) -> str:
    """The name below the package; that of the package itself for its own ``__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    named = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(named) or "kldiv_cli"


TREES = {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(ROOT.rglob("*.py"))}
MODULES = sorted(TREES)


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names of all modules imported anywhere: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where it leads"
            assert node.module is not None
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            modules = [name for name in inner.values() if below(name) in TREES]
            yield from modules
            if len(modules) < len(inner) or below(node.module) not in TREES:
                yield node.module


def below(name: str) -> str:
    """A full module name as one of `TREES`."""
    return name.removeprefix("kldiv_cli.")


def inner_edges() -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        edges[name] = {below(target) for target in imported(tree) if target.split(".")[0] == "kldiv_cli"}
        assert edges[name] <= TREES.keys()
    return edges


EDGES = inner_edges()


def floor(name: str) -> int:
    matching = [k for k, rooms in enumerate(FLOORS) if name in rooms or name.split(".")[0] in rooms]
    assert len(matching) == 1, f"{name}: stands on no floor; give it one"
    return matching[0]


def names_of(tree: ast.Module, kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> list[str]:
    return [n.name for n in tree.body if isinstance(n, kind)]  # type: ignore[attr-defined]


def loaded(name: str) -> ModuleType:
    if name == "kldiv_cli":
        return kldiv_cli
    try:
        return importlib.import_module(f"kldiv_cli.{name}")
    except ModuleNotFoundError as error:
        if error.name in EXTRAS:
            pytest.skip(f"needs {error.name}")
        raise


def modules_after(code: str) -> set[str]:
    """What a fresh interpreter has imported once it has run `code`."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr))


# The order of the floors


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_floors_below_or_from_its_own_package(name: str) -> None:
    for target in EDGES[name]:
        if target.split(".")[0] != name.split(".")[0]:
            assert floor(target) > floor(name), f"{name} imports {target}, which does not stand below it"


def test_every_room_of_the_plan_exists() -> None:
    assert {room for rooms in FLOORS for room in rooms} <= TREES.keys()


def test_no_module_is_reached_by_its_own_imports() -> None:
    order = tuple(graphlib.TopologicalSorter(EDGES).static_order())
    assert set(order) == set(MODULES)


def test_the_reader_sees_imports_inside_functions_and_under_type_checking() -> None:
    assert "report.render" in EDGES["cli.compute"]
    assert "api" in EDGES["kldiv_cli"]
    assert "placement" in EDGES["streaming"]


@pytest.mark.parametrize("library", sorted(ALLOWED))
def test_a_heavy_library_is_imported_only_where_it_is_at_home(library: str) -> None:
    importers = {name for name, tree in TREES.items() if library in {i.split(".")[0] for i in imported(tree)}}
    assert importers
    assert importers <= ALLOWED[library]


@pytest.mark.parametrize("name", PURE)
def test_the_numeric_core_knows_no_files_and_no_terminals(name: str) -> None:
    roots = {target.split(".")[0] for target in imported(TREES[name])}
    assert roots.isdisjoint({"os", "sys", "pathlib", "io", "shutil", "tempfile", "subprocess"})
    calls = {
        n.func.id for n in ast.walk(TREES[name]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert calls.isdisjoint({"open", "print", "input"})


# What is public


@pytest.mark.parametrize("name", MODULES)
def test_a_module_with_public_names_lists_them_and_each_resolves(name: str) -> None:
    public = [n for n in names_of(TREES[name], (ast.FunctionDef, ast.ClassDef)) if not n.startswith("_")]
    module = loaded(name)
    if public or hasattr(module, "__all__"):
        assert module.__all__
        assert len(set(module.__all__)) == len(module.__all__)
        for exported in module.__all__:
            assert getattr(module, exported) is not None
            assert not exported.startswith("_")


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_takes_from_another_is_public_there(name: str) -> None:
    private = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kldiv_cli.")
        for alias in node.names
        if below(f"{node.module}.{alias.name}") not in TREES
        and alias.name not in loaded(below(node.module)).__all__
    ]
    assert private == []


def test_the_package_offers_what_it_lists() -> None:
    for name in kldiv_cli.__all__:
        assert name in dir(kldiv_cli)
        assert getattr(kldiv_cli, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        kldiv_cli.nonsense  # noqa: B018


@pytest.mark.parametrize("name", MODULES)
def test_every_function_is_annotated_to_the_last_argument(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            spec = node.args
            arguments = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
            bare = [a.arg for a in arguments if a is not None and a.annotation is None]
            assert bare in ([], ["self"], ["cls"]), node.name
            assert node.returns is not None, node.name


@pytest.mark.parametrize("name", MODULES)
def test_a_module_begins_with_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(TREES[name])


@pytest.mark.parametrize("name", kldiv_cli.__all__)
def test_what_the_package_offers_is_documented(name: str) -> None:
    item = getattr(kldiv_cli, name)
    assert item.__doc__
    if inspect.isfunction(item):
        assert "Parameters" in item.__doc__
        assert ">>>" in item.__doc__


def test_the_version_is_that_of_the_installed_project() -> None:
    assert kldiv_cli.__version__ == importlib.metadata.version("kldiv-cli")


# What a start loads

HEAVY_TYPER = tuple(map(int, importlib.metadata.version("typer").split(".")[:2])) >= (0, 29)
UNWANTED = {"h5py"} if HEAVY_TYPER else {"h5py", "pydantic"}
"""From 0.29 on Typer itself loads pydantic, which is why the project stays below it."""


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert modules_after("import kldiv_cli").isdisjoint({"numpy", "typer", "rich", "h5py", "zarr"})


def test_evaluate_loads_numpy_but_neither_command_line_nor_hdf5() -> None:
    modules = modules_after("import kldiv_cli; kldiv_cli.evaluate; kldiv_cli.kl_div")
    assert "numpy" in modules
    assert modules.isdisjoint({"typer", "click", "rich", "h5py", "pydantic", "zarr"})


def test_the_version_is_told_without_typer() -> None:
    modules = modules_after("from kldiv_cli.__main__ import main\nassert main(['--version']) == 0")
    assert modules.isdisjoint({"numpy", "typer", "rich", "h5py", "kldiv_cli.cli"})


@pytest.mark.parametrize("arguments", [["--help"], ["compute", "--help"]])
def test_help_loads_neither_numpy_nor_hdf5_nor_markdown_nor_pydantic(arguments: list[str]) -> None:
    modules = modules_after(f"from kldiv_cli.__main__ import main\nassert main({arguments!r}) == 0")
    assert "typer" in modules
    assert modules.isdisjoint({"numpy", "rich.markdown"} | UNWANTED)


def test_a_plain_computation_in_a_pipe_loads_neither_rich_nor_hdf5(tmp_path: Path) -> None:
    code = f"""
import os, numpy
os.chdir({str(tmp_path)!r})
numpy.save("q.npy", numpy.log([[0.5, 0.5]]))
numpy.save("p.npy", numpy.log([[0.25, 0.75]]))
from kldiv_cli.__main__ import main
assert main(["compute", "q.npy", "p.npy", "--log-target"]) == 0
"""
    assert modules_after(code).isdisjoint({"rich.console", "zarr"} | UNWANTED)


def test_the_list_of_commands_says_the_first_line_of_the_help_of_each() -> None:
    for name, summary in SUMMARIES.items():
        command = load_command(name)
        assert command.__doc__ is not None
        assert command.__doc__.strip().splitlines()[0] == summary
