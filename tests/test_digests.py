"""The digests of inputs: those of hashlib on the whole array, whatever it takes to read them."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from cases import Case, Cut, any_cases, cuts, cutting, read_only, repeatable, stored, strided, swapped, whole
from hypothesis import event, given
from hypothesis import strategies as st

from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.blocks import Block, Layout, block_shape
from kldiv_cli.budget import Resources
from kldiv_cli.buffers import Buffer
from kldiv_cli.digests import Digest, Digests, digest_of
from kldiv_cli.errors import InputChanged, InputError
from kldiv_cli.evaluation import Evaluation, evaluate_sources
from kldiv_cli.execution import run
from kldiv_cli.shapes import fit
from kldiv_cli.sources import ArraySource, Inputs, Source, open_source
from kldiv_cli.spec import resolve_spec

AnyArray = npt.NDArray[Any]

ROLES = ("predictions", "targets", "weight", "pos_weight", "mask")
SMALL = Cut(segment=4, piece=16, smallest=16, largest=64)
"""Many blocks of small arrays."""
DTYPES = ["?", "u1", "<i2", ">i2", "<i8", ">i8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]
LAYOUTS = ["C", "F", "npz", "npz deflated", "hdf5", "hdf5 chunked", "hdf5 gzip"]


def sha256_of(array: AnyArray) -> str:
    plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(plain.tobytes()).hexdigest()


def digests_of(evaluation: Evaluation) -> dict[str, str | None]:
    described = {role: getattr(evaluation, role) for role in ROLES}
    return {role: given.sha256 for role, given in described.items() if given is not None}


def hashed(
    options: dict[str, Any], inputs: dict[str, Any], cut: Cut = SMALL, **resources: int
) -> dict[str, str | None]:
    """The digests that an evaluation tells of paths or arrays."""
    given = {name: name in inputs for name in ("weight", "pos_weight", "mask")}
    spec = resolve_spec(**{"losses": ("kl",), **given, **options})
    with cutting(cut):
        evaluations = evaluate_to(
            spec,
            open_inputs(**inputs),
            resources=Resources(**{"memory": 1 << 40, **resources}),
            sha256=True,
        )
    (told,) = {tuple(digests_of(evaluation).items()) for evaluation in evaluations}
    return dict(told)


def save(path: Path, array: AnyArray, layout: str, chunks: Any = True) -> str:
    """Store an array and return its address."""
    if layout in ("C", "F"):
        np.save(f"{path}.npy", np.array(array, order=layout))  # type: ignore[call-overload]
        return f"{path}.npy"
    if layout.startswith("npz"):
        (np.savez_compressed if "deflated" in layout else np.savez)(f"{path}.npz", x=array)
        return f"{path}.npz::x"
    with h5py.File(f"{path}.h5", "w") as file:
        file.create_dataset(
            "x",
            data=array,
            chunks=None if layout == "hdf5" else chunks,
            compression="gzip" if "gzip" in layout else None,
        )
    return f"{path}.h5::x"


class Watched(Source):
    """A source that counts how often each element is read, may fail at one, and waits before it does."""

    def __init__(self, array: AnyArray, *, fails_at: int | None = None, late: float = 0.0) -> None:
        self.base = ArraySource(array, "watched")
        self.address, self.shape, self.dtype = "watched", array.shape, array.dtype
        self.fails_at, self.late = fails_at, late
        self.places = np.arange(array.size).reshape(array.shape)
        self.reads = np.zeros(array.shape, int)
        self.verified_after: npt.NDArray[np.int_] | None = None
        self._lock = threading.Lock()

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        if self.fails_at is not None and self.fails_at in self.places[block]:
            time.sleep(self.late)
            raise InputError("watched: unreadable")
        with self._lock:
            self.reads[block] += 1
        array = buffer.array(block_shape(block), self.dtype)
        np.copyto(array, self.base.read(block, buffer))
        return array

    def verify(self) -> None:
        self.verified_after = self.reads.copy()


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work` returns or raises; a failure of the test if it takes longer, as it does in a deadlock."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again below
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcome, f"still waiting after {seconds} seconds"
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def probabilities(rng: np.random.Generator, *shape: int) -> AnyArray:
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


# A digest


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (7,), (3, 4, 5), (2, 40_000, 3), (3, 70_001)])
@pytest.mark.parametrize("view", [np.array, np.asfortranarray, strided, swapped, read_only])
def test_the_digest_of_one_part_is_that_of_its_little_endian_bytes(
    random_array: Any, shape: tuple[int, ...], dtype: str, view: Callable[[AnyArray], AnyArray]
) -> None:
    array = np.asarray(view(random_array(shape, dtype)))
    digest = Digest()
    digest.append(array)
    assert digest.hexdigest(array.size) == sha256_of(array)


def test_a_matrix_is_hashed_as_the_array_it_is(random_array: Any) -> None:
    array = random_array((3, 4))
    digest = Digest()
    with pytest.warns(PendingDeprecationWarning):
        digest.append(np.matrix(array))
    assert digest.hexdigest(12) == sha256_of(array)


def test_parts_are_hashed_in_order_whichever_thread_comes_first(random_array: Any) -> None:
    array, digest = random_array((40,)), Digest()

    def add(start: int) -> None:
        digest.add(start, array[start : start + 10])

    threads = [threading.Thread(target=add, args=(start,), daemon=True) for start in (30, 10, 20, 0)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(10)
    assert digest.hexdigest(40) == sha256_of(array)


def test_an_abandoned_digest_lets_go_of_those_that_wait_and_has_no_result(random_array: Any) -> None:
    digest = Digest()
    waiting = threading.Thread(target=digest.add, args=(5, random_array((5,))), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    digest.abandon()
    waiting.join(10)
    assert not waiting.is_alive()
    digest.add(50, random_array((5,)))
    with pytest.raises(AssertionError):
        digest.hexdigest(0)


def test_a_part_that_is_hashed_already_or_missing_is_not_passed_over(random_array: Any) -> None:
    digest = Digest()
    digest.append(random_array((4,)))
    with pytest.raises(AssertionError, match="element 2 is hashed already"):
        digest.add(2, random_array((4,)))
    with pytest.raises(AssertionError, match="4 of 5 elements"):
        digest.hexdigest(5)


# Of inputs, wherever they lie


@repeatable(75)
@given(any_cases(), cuts(), st.integers(1, 4), st.data())
def test_the_digests_of_arrays_in_memory_do_not_depend_on_how_they_are_cut_or_lie(
    case: Case, cut: Cut, workers: int, data: st.DataObject
) -> None:
    views: list[Callable[[AnyArray], AnyArray]] = [np.array, np.asfortranarray, strided, swapped, read_only]
    drawn = {name: data.draw(st.sampled_from(views)) for name in case.inputs()}
    sources = {
        name: ArraySource(drawn[name](array).reshape(array.shape), name)
        for name, array in case.inputs().items()
    }
    with cutting(cut):
        evaluations = evaluate_sources(
            resolve_spec(**case.options),
            Inputs(**sources),
            resources=Resources(workers=workers, memory=1 << 40),
            sha256=True,
        )
    for evaluation in evaluations:
        assert digests_of(evaluation) == {name: sha256_of(array) for name, array in case.inputs().items()}


@repeatable(50)
@given(any_cases(), cuts(), st.integers(1, 3), st.data())
def test_the_digests_of_files_are_those_of_the_arrays_in_them(
    case: Case, cut: Cut, workers: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        addresses = {
            name: stored(Path(directory) / name, array, data) for name, array in case.inputs().items()
        }
        inputs = Inputs(**{name: open_source(address) for name, address in addresses.items()})
        spec = resolve_spec(**case.options)
        with cutting(cut):
            evaluations = evaluate_to(
                spec, inputs, resources=Resources(workers=workers, memory=1 << 40), sha256=True
            )
        event(f"followed in the pass: {len(in_pass(case, inputs, cut))} of {len(addresses)}")
    for evaluation in evaluations:
        assert digests_of(evaluation) == {name: sha256_of(array) for name, array in case.inputs().items()}


def in_pass(case: Case, inputs: Inputs, cut: Cut) -> set[str]:
    """The roles that are hashed in the pass over blocks of the largest size."""
    fitted = fit(resolve_spec(**case.options), inputs)
    shape, axis = fitted.predictions.shape, case.axis % len(fitted.predictions.shape)
    layout = Layout(shape, axis, fitted.predictions.fortran_order)
    followed = Digests(inputs).follow(fitted, axis, layout, cut.largest)
    return {
        role
        for role, before, after in zip(Inputs._fields, fitted, followed, strict=True)
        if before is not after
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_format_and_dtype_has_the_digest_of_its_array(
    tmp_path: Path, random_array: Any, layout: str, dtype: str
) -> None:
    array = random_array((12, 5, 8), dtype)
    source = open_source(save(tmp_path / "x", array, layout, chunks=(3, 2, 5)))
    try:
        assert digest_of(source, 1 << 20) == digest_of(source, 1) == sha256_of(array)
    finally:
        source.close()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_axis_and_format_gives_the_same_digests(
    tmp_path: Path, rng: np.random.Generator, layout: str, axis: int, workers: int
) -> None:
    logits = rng.standard_normal((6, 7, 8)).astype(">f4")
    labels = rng.integers(0, logits.shape[axis], np.delete(logits.shape, axis))
    mask = rng.random(labels.shape) < 0.5
    arrays = {"predictions": logits, "targets": labels, "mask": mask}
    addresses = {name: save(tmp_path / name, array, layout) for name, array in arrays.items()}
    options = {"log_softmax": axis, "targets_are": "labels"}
    told = hashed(options, addresses, workers=workers)
    assert told == {name: sha256_of(array) for name, array in arrays.items()}


@pytest.mark.parametrize("chunks", [(1, 10), (4, 3), (16, 2), (5, 10), (40, 1), (7, 7)])
def test_two_dimensional_tiles_of_chunks_are_no_other_array(
    tmp_path: Path, rng: np.random.Generator, chunks: tuple[int, int]
) -> None:
    p = probabilities(rng, 40, 10)
    addresses = {
        "predictions": save(tmp_path / "q", np.log(p), "hdf5 gzip", chunks),
        "targets": save(tmp_path / "p", p, "C"),
    }
    for losses in (("kl",), ("bce",)):
        options = {"losses": losses, "predictions_are": "log-probs"}
        told = hashed(options, addresses, workers=2)
        assert told == {"predictions": sha256_of(np.log(p)), "targets": sha256_of(p)}


@pytest.mark.parametrize("layout", ["C", "F", "hdf5 chunked"])
@pytest.mark.parametrize("selection", ["[3:20]", "[:, 2:9]", "[5:6, :4]"])
def test_the_digest_of_a_slice_is_of_the_slice_alone(
    tmp_path: Path, rng: np.random.Generator, layout: str, selection: str
) -> None:
    p = probabilities(rng, 30, 12)
    part = eval(f"p{selection}")
    address = save(tmp_path / "p", p, layout)
    address += selection if "::" in address else f"::{selection}"
    told = hashed({"predictions_are": "probs"}, {"predictions": address, "targets": part})
    assert told == dict.fromkeys(("predictions", "targets"), sha256_of(part))


def test_one_row_of_a_larger_array_is_hashed_where_an_index_picks_it(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    p = probabilities(rng, 5, 30)
    address = f"{save(tmp_path / 'p', p, 'F')}::[2]"
    told = hashed({"predictions_are": "probs"}, {"predictions": address, "targets": address})
    assert told == dict.fromkeys(("predictions", "targets"), sha256_of(p[2]))


def test_what_is_stretched_is_hashed_as_it_is_stored(rng: np.random.Generator) -> None:
    q, p, weight = rng.random((20, 6)), rng.random((6,)), rng.random((20, 1))
    told = hashed({"losses": ("bce",), "broadcast": True}, {"predictions": q, "targets": p, "weight": weight})
    assert told == {"predictions": sha256_of(q), "targets": sha256_of(p), "weight": sha256_of(weight)}


def test_what_is_trimmed_is_hashed_whole(rng: np.random.Generator) -> None:
    q, p = rng.standard_normal((20, 8)), probabilities(rng, 20, 6)
    told = hashed({"log_softmax": -1, "trim_axis": True}, {"predictions": q, "targets": p})
    assert told == {"predictions": sha256_of(q), "targets": sha256_of(p)}


def test_weights_and_masks_have_digests_of_their_own(rng: np.random.Generator) -> None:
    arrays = {
        "predictions": rng.standard_normal((20, 6)).astype("f2"),
        "targets": rng.integers(0, 2, (20, 6)).astype("u1"),
        "weight": rng.random((20, 6)),
        "pos_weight": rng.random((20, 6)).astype(">f4"),
        "mask": rng.random((20, 6)) < 0.7,
    }
    told = hashed({"losses": ("bce",), "predictions_are": "logits"}, arrays, workers=2)
    assert told == {name: sha256_of(array) for name, array in arrays.items()}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("shape", [(2, 500), (500, 2), (3, 100, 2)])
def test_distributions_that_are_read_in_windows_are_hashed_too(
    rng: np.random.Generator, shape: tuple[int, ...], workers: int
) -> None:
    axis = int(np.argmax(shape))
    q, p = rng.standard_normal(shape), rng.random(shape)
    told = hashed({"log_softmax": axis}, {"predictions": q, "targets": p}, workers=workers)
    assert told == {"predictions": sha256_of(q), "targets": sha256_of(p)}


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_an_array_without_elements_has_the_digest_of_nothing(shape: tuple[int, ...]) -> None:
    nothing = np.zeros(shape)
    told = hashed({"losses": ("bce",)}, {"predictions": nothing, "targets": nothing})
    assert told == dict.fromkeys(("predictions", "targets"), hashlib.sha256(b"").hexdigest())


def test_a_single_number_without_dimensions_is_hashed() -> None:
    q, p = np.array(0.25, ">f4"), np.array(1, "i8")
    told = hashed({"losses": ("bce",)}, {"predictions": q, "targets": p})
    assert told == {"predictions": sha256_of(q), "targets": sha256_of(p)}


def test_an_array_that_is_given_twice_has_its_digest_twice(tmp_path: Path, rng: np.random.Generator) -> None:
    p = probabilities(rng, 20, 6)
    address = save(tmp_path / "p", p, "C")
    told = hashed({"predictions_are": "probs"}, {"predictions": address, "targets": address})
    assert told == dict.fromkeys(("predictions", "targets"), sha256_of(p))


def test_both_losses_of_one_pass_tell_the_same_digests(rng: np.random.Generator) -> None:
    p = probabilities(rng, 20, 6)
    options = {"losses": ("kl", "bce"), "predictions_are": "probs"}
    assert hashed(options, {"predictions": p, "targets": p})["targets"] == sha256_of(p)


def test_without_being_asked_for_there_are_no_digests(rng: np.random.Generator) -> None:
    p = probabilities(rng, 4, 3)
    (evaluation,) = evaluate_to(resolve_spec(losses=("kl",), predictions_are="probs"), open_inputs(p, p))
    assert digests_of(evaluation) == {"predictions": None, "targets": None}


def test_digests_change_nothing_else_of_the_result(rng: np.random.Generator) -> None:
    predictions, targets = rng.standard_normal((50, 7)), probabilities(rng, 50, 7)
    spec = resolve_spec(losses=("kl",), log_softmax=-1, worst=3)
    (plain,), (with_digests,) = (
        evaluate_to(spec, open_inputs(predictions, targets), sha256=sha256) for sha256 in (False, True)
    )
    assert plain.scalars == with_digests.scalars
    assert (plain.statistics, plain.worst) == (with_digests.statistics, with_digests.worst)
    assert plain.findings == with_digests.findings


def test_the_smallest_memory_is_enough_for_what_must_be_read_again(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    logits, labels = rng.standard_normal((9, 64, 700)), rng.integers(0, 9, (64, 700))
    addresses = {
        "predictions": save(tmp_path / "q", logits, "F"),
        "targets": save(tmp_path / "p", labels, "hdf5 gzip", (13, 100)),
    }
    spec = {"log_softmax": 0, "targets_are": "labels"}
    expected = {"predictions": sha256_of(logits), "targets": sha256_of(labels)}
    for resources in ({"memory": 12 << 20}, {"memory": 24 << 20, "workers": 2}):
        assert hashed(spec, addresses, cut=Cut(), **resources) == expected


# Once only, and of what was computed from


@pytest.mark.parametrize("workers", [1, 3])
def test_what_lies_in_the_order_of_the_pass_is_read_once(rng: np.random.Generator, workers: int) -> None:
    p, mask = probabilities(rng, 40, 8), np.arange(40) % 3 > 0
    inputs = Inputs(predictions=Watched(p), targets=Watched(p), mask=Watched(mask))
    spec = resolve_spec(losses=("kl", "bce"), predictions_are="probs", mask=True)
    with cutting(SMALL):
        evaluations = evaluate_sources(spec, inputs, resources=Resources(workers=workers), sha256=True)
    expected = {"predictions": sha256_of(p), "targets": sha256_of(p), "mask": sha256_of(mask)}
    assert [digests_of(evaluation) for evaluation in evaluations] == [expected, expected]
    for source in inputs.all():
        assert isinstance(source, Watched)
        assert (source.reads == 1).all()
        assert source.verified_after is not None


def test_what_the_pass_reads_out_of_order_is_read_once_more_before_it_is_verified(
    rng: np.random.Generator,
) -> None:
    p = np.moveaxis(probabilities(rng, 6, 5, 10), -1, 0)
    source, targets = Watched(p), Watched(p)
    spec = resolve_spec(losses=("kl",), predictions_are="probs", axis=0)
    with cutting(SMALL):
        (evaluation,) = evaluate_sources(spec, Inputs(source, targets), sha256=True)
    assert digests_of(evaluation)["targets"] == sha256_of(targets.base.array)
    assert (targets.reads == 2).all()
    assert targets.verified_after is not None
    assert (targets.verified_after == 2).all()


def test_a_plain_file_is_hashed_from_the_bytes_that_the_losses_are_of(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    p = probabilities(rng, 40, 8)
    inputs = open_inputs(save(tmp_path / "q", np.log(p), "C"), save(tmp_path / "p", p, "C"))
    sources = fit(resolve_spec(losses=("kl",)), inputs)
    followed = Digests(inputs).follow(sources, 1, Layout((40, 8), 1), 64)
    assert followed.predictions is not inputs.predictions
    assert followed.targets is not inputs.targets
    inputs.close()


def test_a_file_that_changes_before_it_is_read_again_is_an_error(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    address = save(tmp_path / "q", rng.random((30, 8)), "C")
    inputs = open_inputs(address, np.full((30, 8), 1 / 30))
    spec = resolve_spec(losses=("kl",), predictions_are="probs", axis=0)
    changed: list[int] = []

    def change(done: int) -> None:
        if not changed:
            time.sleep(0.01)
            save(tmp_path / "q", rng.random((30, 8)), "C")
        changed.append(done)

    with cutting(SMALL), pytest.raises(InputChanged):
        evaluate_to(spec, inputs, sha256=True, progress=change)


# When something fails


@pytest.fixture
def _no_thread_survives() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("_no_thread_survives")
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("role", ["predictions", "targets", "mask"])
@pytest.mark.parametrize("late", [0.0, 0.05])
def test_a_source_that_fails_in_the_middle_ends_the_pass_with_its_own_error(
    rng: np.random.Generator, workers: int, role: str, late: float
) -> None:
    arrays = {"predictions": rng.random((400, 8)), "targets": rng.random((400, 8)), "mask": np.ones(400)}
    inputs = Inputs(
        **{
            name: Watched(array, fails_at=array.size // 2 if name == role else None, late=late)
            for name, array in arrays.items()
        }
    )
    spec = resolve_spec(losses=("kl",), predictions_are="probs", mask=True)
    resources = Resources(workers=workers)
    with cutting(SMALL), pytest.raises(InputError, match="watched: unreadable"):
        within(20, lambda: evaluate_sources(spec, inputs, resources=resources, sha256=True))


@pytest.mark.usefixtures("_no_thread_survives")
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interrupt_of_the_thread_that_gathers_results_ends_the_pass(
    rng: np.random.Generator, workers: int, error: type[BaseException]
) -> None:
    inputs = Inputs(Watched(rng.random((400, 8))), Watched(rng.random((400, 8))))
    spec = resolve_spec(losses=("kl",), predictions_are="probs")

    def interrupt(done: int) -> None:
        raise error

    def work() -> None:
        evaluate_sources(spec, inputs, resources=Resources(workers=workers), progress=interrupt, sha256=True)

    with cutting(SMALL), pytest.raises(error):
        within(20, work)


@pytest.mark.usefixtures("_no_thread_survives")
@pytest.mark.parametrize("workers", [2, 4])
def test_work_that_fails_between_two_inputs_leaves_nobody_waiting(random_array: Any, workers: int) -> None:
    """As memory that runs out does: the first input of a block is hashed, the second is not."""
    array = random_array((40, 8))
    inputs = Inputs(ArraySource(array), ArraySource(array))
    digests = Digests(inputs)
    followed = digests.follow(inputs, 1, Layout((40, 8), 1), 8)
    entered = threading.Barrier(workers)

    def read(row: int) -> int:
        block = (slice(row, row + 1), slice(0, 8))
        followed.predictions.read(block, Buffer())
        if row == 0:
            entered.wait(10)
            raise MemoryError
        if row < workers:
            entered.wait(10)
        followed.targets.read(block, Buffer())
        return row

    with pytest.raises(MemoryError):
        within(20, lambda: list(run(range(40), lambda: digests.guarded(read), workers)))


@pytest.mark.parametrize("cut", [SMALL, whole(SMALL)])
def test_a_block_that_is_the_whole_array_is_in_order_along_any_axis(
    rng: np.random.Generator, cut: Cut
) -> None:
    q = rng.standard_normal((4, 5, 6))
    for axis in range(3):
        told = hashed({"log_softmax": axis, "targets_are": "logits"}, {"predictions": q, "targets": q}, cut)
        assert told["predictions"] == sha256_of(q)
