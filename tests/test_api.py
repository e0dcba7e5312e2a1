from __future__ import annotations

import errno
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

import kldiv_cli
from kldiv_cli import KldivError, evaluate, log_softmax
from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.blocks import Block
from kldiv_cli.errors import (
    DomainError,
    FormatError,
    InputChanged,
    InputNotFound,
    OutputError,
    ShapeMismatch,
    UsageError,
)
from kldiv_cli.functional import binary_cross_entropy_with_logits, kl_div
from kldiv_cli.spec import resolve_spec

Array = npt.NDArray[np.float64]

LOGITS = np.random.default_rng(11).standard_normal((6, 5))
X = log_softmax(LOGITS)
Y = np.random.default_rng(12).dirichlet(np.ones(5), 6)
EXPECTED = evaluate(X, Y)

DESCRIPTORS = "/dev/fd"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The same two arrays in every format, as addresses."""
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.savez(tmp_path / "both.npz", x=X, y=Y)
    np.savez_compressed(tmp_path / "small.npz", x=X, y=Y)
    with h5py.File(tmp_path / "both.h5", "w") as file:
        file["x"], file["y"] = X, Y
        file.create_dataset("group/x", data=X, chunks=(2, 3), compression="gzip")
    return {
        "x.npy": f"{tmp_path}/x.npy",
        "y.npy": f"{tmp_path}/y.npy",
        **{f"npz {name}": f"{tmp_path}/both.npz::{name}" for name in "xy"},
        **{f"deflated {name}": f"{tmp_path}/small.npz::{name}" for name in "xy"},
        **{f"h5 {name}": f"{tmp_path}/both.h5::{name}" for name in ("x", "y", "group/x")},
    }


def open_files() -> int:
    """How many descriptors this process holds."""
    if not os.path.isdir(DESCRIPTORS):
        pytest.skip(f"open files are counted in {DESCRIPTORS}")
    return len(os.listdir(DESCRIPTORS))


# Inputs


@pytest.mark.parametrize("x", ["x.npy", "npz x", "deflated x", "h5 x", "h5 group/x"])
@pytest.mark.parametrize("y", ["y.npy", "npz y", "h5 y"])
def test_addresses_of_every_format_give_the_same_result(files: dict[str, str], x: str, y: str) -> None:
    result = evaluate(files[x], files[y])
    assert result.scalars == EXPECTED.scalars
    assert (result.predictions.address, result.targets.address) == (files[x], files[y])


def test_paths_may_be_path_objects(tmp_path: Path, files: dict[str, str]) -> None:
    assert evaluate(tmp_path / "x.npy", tmp_path / "y.npy").scalars == EXPECTED.scalars


def test_a_path_and_an_array_go_together(files: dict[str, str]) -> None:
    assert evaluate(files["x.npy"], Y).scalars == EXPECTED.scalars


def test_lists_and_scalars_are_arrays_too() -> None:
    assert evaluate(X.tolist(), Y.tolist()).scalars == EXPECTED.scalars
    assert evaluate(-1.0, 1.0).sum == 1.0


def test_a_selection_in_an_address_is_a_slice(files: dict[str, str]) -> None:
    assert (
        evaluate(f"{files['h5 x']}[1:4]", f"{files['y.npy']}::[1:4]").scalars
        == evaluate(X[1:4], Y[1:4]).scalars
    )


def test_weights_may_be_files_and_arrays(tmp_path: Path) -> None:
    weight = np.arange(5.0)
    np.save(tmp_path / "weight.npy", weight)
    options: dict[str, Any] = {"loss": "bce", "predictions_are": "logits", "pos_weight": [2.0]}
    stored = evaluate(LOGITS, Y, weight=tmp_path / "weight.npy", **options)
    assert stored.scalars == evaluate(LOGITS, Y, weight=weight, **options).scalars
    expected = binary_cross_entropy_with_logits(LOGITS, Y, weight=weight, pos_weight=[2.0])
    assert stored.sum == math.fsum(expected.ravel().tolist())


def test_arrays_are_named_after_their_part_in_the_record() -> None:
    assert (EXPECTED.predictions.address, EXPECTED.targets.address) == ("predictions", "targets")


def test_read_only_arrays_are_taken_as_they_are() -> None:
    x = X.copy()
    x.flags.writeable = False
    assert evaluate(x, Y).scalars == EXPECTED.scalars


# Options


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, kl_div(X, Y)),
        ({"axis": 0}, kl_div(X, Y)),
        ({"log_softmax": 0}, kl_div(log_softmax(X, axis=0), Y)),
        ({"log_softmax": -1, "temperature": 2.0}, kl_div(log_softmax(X / 2), Y)),
        ({"log_target": True}, kl_div(X, Y, log_target=True)),
        ({"targets_are": "log-probs"}, kl_div(X, Y, log_target=True)),
        ({"targets_are": "logits"}, kl_div(X, log_softmax(Y), log_target=True)),
        ({"loss": "bce", "predictions_are": "logits"}, binary_cross_entropy_with_logits(X, Y)),
    ],
)
def test_options_choose_what_is_computed(options: dict[str, Any], expected: Array) -> None:
    assert evaluate(X, Y, **options).sum == pytest.approx(math.fsum(expected.ravel().tolist()), rel=1e-13)


def test_the_result_gives_every_reduction() -> None:
    total = EXPECTED.sum
    assert (EXPECTED.mean, EXPECTED.batchmean, EXPECTED.distmean) == (total / 30, total / 6, total / 6)


def test_labels_choose_a_class() -> None:
    labels = [0, 1, 2, 3, 4, 0]
    result = evaluate(LOGITS, labels, log_softmax=-1, targets_are="labels")
    assert result.sum == pytest.approx(-X[range(6), labels].sum(), rel=1e-13)


def test_zero_policy_torch_gives_nan_where_the_limit_gives_zero() -> None:
    x, y = [-math.inf, 0.0], [0.0, 1.0]
    assert evaluate([x], [y]).sum == 0.0
    assert math.isnan(evaluate([x], [y], zero_policy="torch").sum)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("memory", [None, 64 << 20, 1 << 30])
def test_workers_and_memory_change_no_bit(workers: int, memory: int | None) -> None:
    rng = np.random.default_rng(13)
    x, y = rng.standard_normal((700, 1000)).astype("f4"), rng.random((700, 1000)).astype("f4")
    options: dict[str, Any] = {"log_softmax": -1, "by_target": True}
    reference = evaluate(x, y, workers=1, **options)
    result = evaluate(x, y, workers=workers, memory=memory, **options)
    assert result.scalars == reference.scalars
    assert result.by_target == reference.by_target
    assert result.findings == reference.findings


@pytest.mark.parametrize("options", [{}, {"log_softmax": 1}, {"loss": "bce", "predictions_are": "logits"}])
@pytest.mark.parametrize("shape", [(7, 50_000), (0, 3), (2, 1_200_000)])
def test_progress_adds_up_to_the_number_of_elements(options: dict[str, Any], shape: tuple[int, int]) -> None:
    done: list[int] = []
    evaluate(np.zeros(shape, "f4"), np.zeros(shape, "f4"), progress=done.append, **options)
    assert sum(done) == math.prod(shape)
    assert all(step > 0 for step in done)


# Output


@pytest.mark.parametrize("name", ["map.npy", "map.h5", "map.h5::/losses/kl"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_the_map_is_written_as_kl_div_computes_it(tmp_path: Path, name: str, dtype: str) -> None:
    result = evaluate(LOGITS, Y, log_softmax=-1, output=tmp_path / name, output_dtype=dtype)
    assert result.scalars == evaluate(LOGITS, Y, log_softmax=-1).scalars
    expected = kl_div(log_softmax(LOGITS), Y).astype(dtype)
    np.testing.assert_array_equal(stored_map(tmp_path / name), expected, strict=True)


def stored_map(path: Path) -> npt.NDArray[Any]:
    file, _, dataset = str(path).partition("::")
    if file.endswith(".npy"):
        return np.asarray(np.load(file))
    with h5py.File(file, "r") as container:
        return np.asarray(container[dataset or "map"])


def test_a_map_of_many_blocks_along_any_axis_is_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    logits, y = rng.standard_normal((90, 700, 30)).astype("f4"), rng.random((90, 700, 30)).astype("f4")
    evaluate(logits, y, log_softmax=1, output=tmp_path / "map.npy", workers=2, memory=24 << 20)
    expected = kl_div(log_softmax(logits, axis=1), y)
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), expected)


def test_an_existing_output_is_kept_unless_forced(tmp_path: Path) -> None:
    output = tmp_path / "map.npy"
    output.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists"):
        evaluate(X, Y, output=output)
    assert output.read_bytes() == b"precious"
    evaluate(X, Y, output=output, force=True)
    np.testing.assert_array_equal(np.load(output), kl_div(X, Y))


def test_an_input_is_not_written_over(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(OutputError, match="is the input"):
        evaluate(files["x.npy"], files["y.npy"], output=files["x.npy"], force=True)
    np.testing.assert_array_equal(np.load(files["x.npy"]), X)


def test_a_failure_leaves_no_output_behind(tmp_path: Path) -> None:
    with pytest.raises(KldivError):
        evaluate([[2.0]], [[0.5]], loss="bce", output=tmp_path / "map.npy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_of_two_outputs_there_are_both_or_none(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second can't be brought onto the disk, or somebody else takes its name."""
    step_before, calls = getattr(os, step), itertools.count()

    def fails(*arguments: Any) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "no space") if step == "fsync" else FileExistsError
        step_before(*arguments)

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OutputError, match=r"^\S+rows\.npy: "):
        evaluate(X, Y, output=tmp_path / "map.npy", distributions=tmp_path / "rows.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_mask_may_be_an_array_or_a_path(tmp_path: Path) -> None:
    mask = np.array([True, False, True, True, False, True])
    np.save(tmp_path / "m.npy", mask)
    for given in (mask, mask.tolist(), tmp_path / "m.npy", f"{tmp_path}/m.npy"):
        result = evaluate(X, Y, mask=given, worst=1)
        assert (result.scalars, result.statistics) == (
            evaluate(X[mask], Y[mask]).scalars,
            evaluate(X[mask], Y[mask]).statistics,
        )
        assert result.mask is not None
        assert (result.mask.shape, result.mask.dtype, result.mask.space) == ((6,), "bool", "mask")


@pytest.mark.parametrize("axis", [0, 1])
def test_the_losses_of_distributions_of_many_blocks_are_whole(tmp_path: Path, axis: int) -> None:
    rng = np.random.default_rng(15)
    logits, y = rng.standard_normal((90, 700, 30)).astype("f4"), rng.random((90, 700, 30)).astype("f4")
    mask = rng.random((90, 700, 30)) < 0.5
    path = tmp_path / "kl.npy"
    options: dict[str, Any] = {"log_softmax": axis, "mask": mask, "workers": 2, "memory": 24 << 20}
    result = evaluate(logits, y, distributions=path, **options)
    losses = np.where(mask, kl_div(log_softmax(logits, axis=axis), y), 0.0).sum(axis=axis)
    written = np.load(path)
    np.testing.assert_allclose(written, losses, rtol=1e-12, atol=1e-14)
    assert result.sum == math.fsum(written.ravel().tolist())
    assert result.statistics.percentiles["p50"] == np.quantile(written, 0.5)


def test_an_unknown_output_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'int8': expected one of float16, float32, float64"):
        evaluate(X, Y, output=tmp_path / "map.npy", output_dtype="int8")


# Files


@pytest.mark.parametrize("x", ["x.npy", "npz x", "deflated x", "h5 x", "h5 group/x"])
def test_files_are_closed_after_a_result(files: dict[str, str], x: str) -> None:
    before = open_files()
    inputs = open_inputs(files[x], files["y.npy"])
    evaluate_to(resolve_spec(), inputs)
    assert open_files() == before


@pytest.mark.parametrize("x", ["x.npy", "npz x", "deflated x", "h5 x", "h5 group/x"])
def test_files_are_closed_after_an_error(files: dict[str, str], x: str) -> None:
    before = open_files()
    inputs = open_inputs(files[x], files["y.npy"])
    with pytest.raises(DomainError):
        evaluate_to(resolve_spec(losses=("bce",)), inputs)
    assert open_files() == before


def test_files_are_closed_where_the_output_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    before = open_files()
    inputs = open_inputs(files["x.npy"], files["y.npy"])
    with pytest.raises(OutputError):
        evaluate_to(resolve_spec(), inputs, output=f"{tmp_path}/no/map.npy")
    assert open_files() == before


@pytest.mark.parametrize("x", ["x.npy", "deflated x", "h5 x", "h5 group/x"])
def test_files_can_be_closed_and_read_again(files: dict[str, str], x: str) -> None:
    inputs = open_inputs(files[x], files["y.npy"])
    for _ in range(2):
        (result,) = evaluate_to(resolve_spec(), inputs)
        assert result.scalars == EXPECTED.scalars


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound, match=r"nowhere\.npy: no such file"):
        evaluate(tmp_path / "nowhere.npy", Y)


def test_a_file_that_changes_while_it_is_read_gives_an_error_and_no_number(files: dict[str, str]) -> None:
    def touch(done: int) -> None:
        os.utime(files["x.npy"], ns=(0, 0))

    with pytest.raises(InputChanged, match="changed while it was read"):
        evaluate(files["x.npy"], Y, progress=touch)


def test_shapes_that_differ_are_refused_with_both_names(files: dict[str, str]) -> None:
    with pytest.raises(ShapeMismatch, match=r"x\.npy \(6, 5\) and targets targets \(5,\)"):
        evaluate(files["x.npy"], np.zeros(5))


# Several losses, several writers


def test_evaluate_to_computes_several_losses_in_one_pass() -> None:
    spec = resolve_spec(losses=("kl", "bce"), log_softmax=-1)
    kl, bce = evaluate_to(spec, open_inputs(LOGITS, Y))
    assert kl.scalars == evaluate(LOGITS, Y, log_softmax=-1).scalars
    assert bce.scalars == evaluate(LOGITS, Y, loss="bce", log_softmax=-1).scalars
    assert bce.batchmean is None


def test_the_map_goes_to_the_file_and_to_the_other_writers(tmp_path: Path) -> None:
    seen = np.zeros(X.shape)

    class Writer:
        def write(self, block: Block, values: npt.NDArray[Any]) -> None:
            seen[block] = values

    evaluate_to(resolve_spec(), open_inputs(X, Y), output=str(tmp_path / "map.npy"), writers=(Writer(),))
    np.testing.assert_array_equal(seen, np.load(tmp_path / "map.npy"))


def test_the_package_gives_what_it_promises() -> None:
    for name in kldiv_cli.__all__:
        assert getattr(kldiv_cli, name).__module__.startswith("kldiv_cli.")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kldiv_cli.nothing


# Memory

MIB = 1 << 20
LIMIT = 100 * MIB

PEAK = """
import os, sys

def peak():
    if os.path.exists("/proc/self/status"):  # ru_maxrss may be the parent's, from before exec
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (10 * (sys.platform != "darwin"))

import numpy
"""

COMPUTE = """
from kldiv_cli import evaluate
result = evaluate(sys.argv[1], sys.argv[2], log_softmax=-1)
assert result.sum > 0
"""


def peak_memory(program: str, *arguments: str) -> int:
    command = [sys.executable, "-c", f"{PEAK}{program}\nprint(peak())", *arguments]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(finished.stdout)


def large_file(path: Path, shape: tuple[int, ...], seed: int) -> str:
    """An .npy of float32 between 0 and 1, written piece by piece."""
    np.lib.format.open_memmap(path, "w+", np.float32, shape)._mmap.close()  # type: ignore[attr-defined]
    size = 4 * math.prod(shape)
    piece = np.random.default_rng(seed).random(1 << 20, np.float32).tobytes()
    with open(path, "r+b") as file:
        file.seek(-size, os.SEEK_END)
        file.writelines(piece[: size - start] for start in range(0, size, len(piece)))
    return str(path)


COMPUTE_WITH_DIGESTS = """
from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.spec import resolve_spec
spec = resolve_spec(losses=("kl",), log_softmax=-1)
(result,) = evaluate_to(spec, open_inputs(sys.argv[1], sys.argv[2]), sha256=True)
assert result.targets.sha256
"""


@pytest.mark.skipif(os.name != "posix", reason="peak memory is asked of a POSIX system")
@pytest.mark.parametrize("shape", [(25_000, 1_000), (20_000_000,)])
@pytest.mark.parametrize("program", [COMPUTE, COMPUTE_WITH_DIGESTS])
def test_peak_memory_is_bounded_whatever_the_size(
    tmp_path: Path, shape: tuple[int, ...], program: str
) -> None:
    """2 x 100 MB of many distributions, 2 x 80 MB of one."""
    predictions = large_file(tmp_path / "predictions.npy", shape, 1)
    targets = large_file(tmp_path / "targets.npy", shape, 2)
    assert peak_memory(program, predictions, targets) - peak_memory("") < LIMIT


@pytest.mark.parametrize("name", ["axis", "log_softmax"])
@pytest.mark.parametrize("value", [True, False, 1.0, "1"])
def test_an_axis_that_is_no_whole_number_is_refused(name: str, value: Any) -> None:
    """True would mean axis 1, which nobody who writes it means."""
    with pytest.raises(UsageError, match=rf"{name} .*: expected the number of an axis"):
        evaluate(X, Y, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("memory", "64MiB"), ("workers", "2"), ("workers", True)])
def test_resources_that_are_no_whole_numbers_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name} .*: expected a whole number"):
        evaluate(X, Y, **{name: value})


def test_a_masked_array_is_refused_since_its_mask_would_be_lost() -> None:
    with pytest.raises(FormatError, match="masked array"):
        evaluate(np.ma.masked_invalid(X), Y)


def test_more_workers_than_the_memory_holds_are_refused_with_what_they_need() -> None:
    with pytest.raises(UsageError, match="for 9 workers"):
        evaluate(X, Y, workers=9, memory=32 << 20)
    assert evaluate(X, Y, workers=9).sum == evaluate(X, Y).sum


@pytest.mark.parametrize("options", [{"output_dtype": "float32"}, {"force": True}])
def test_options_of_an_output_need_one(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs an output"):
        evaluate(X, Y, **options)
