from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from comparisons import QUANTILES, SPACES, bits, cutting, expected, in_space, numbers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

import kldiv_cli
from kldiv_cli.comparison import Comparison
from kldiv_cli.errors import AxisError, DomainError, FormatError, KldivError, ShapeMismatch, UsageError
from kldiv_cli.findings import Finding

AnyArray = npt.NDArray[Any]
Array = npt.NDArray[np.float64]

INF, NAN = math.inf, math.nan
PAIRS = list(itertools.product(SPACES, SPACES))


def compare(reference: Any, candidate: Any, **options: Any) -> Comparison:
    return kldiv_cli.compare(reference, candidate, **options)


def models(
    shape: tuple[int, ...], *, seed: int = 5, spread: float = 3.0, change: float = 0.5
) -> tuple[Array, Array]:
    """Logits of a reference and of a candidate much like it, confident to all degrees."""
    random = np.random.default_rng(seed)
    z = random.normal(0, spread, shape) * random.uniform(0.1, 2.5, (*shape[:-1], 1))
    return z, z + random.normal(0, change, shape)


def labels_for(z: Array, axis: int = -1, *, seed: int = 6) -> AnyArray:
    """Labels that the model of these logits often predicts."""
    random = np.random.default_rng(seed)
    drawn = random.gumbel(size=z.shape) + z
    return np.asarray(drawn.argmax(axis))


def assert_numbers(found: Comparison, wanted: dict[str, float], rel: float = 1e-10) -> None:
    told = numbers(found)
    assert told.keys() == wanted.keys()
    for name, value in wanted.items():
        assert told[name] == pytest.approx(value, rel=rel, abs=1e-13, nan_ok=True), name


def ids(comparison: Comparison) -> list[str]:
    return [finding.id for finding in comparison.findings]


def found_of(comparison: Comparison, id: str) -> Finding:
    (finding,) = (finding for finding in comparison.findings if finding.id == id)
    return finding


# Every number


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("classes", [2, 7, 40])
def test_every_number_is_that_of_numpy_and_scipy(classes: int, with_labels: bool) -> None:
    z, w = models((300, classes))
    labels = labels_for(z) if with_labels else None
    found = compare(z, w, labels=labels, top_k=3)
    assert_numbers(found, expected(log_softmax(z, -1), log_softmax(w, -1), labels, 3))
    assert found.findings == ()
    assert (found.with_labels is not None) == with_labels


def test_every_bucket_holds_what_its_name_says() -> None:
    top = np.array([0.3, 0.25, 0.5, 0.6, 0.75, 0.75, 0.8999, 0.9, 0.95, 0.99, 1.0])
    p = np.array([[t, *[(1 - t) / 3] * 3] for t in top])
    q = np.full_like(p, 0.25)
    buckets = compare(p, q, reference_are="probs", candidate_are="probs").buckets
    assert [(bucket.low, bucket.high) for bucket in buckets] == [
        (0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 0.9), (0.9, 0.99), (0.99, 1),
    ]  # fmt: skip
    assert [bucket.count for bucket in buckets] == [0, 2, 2, 3, 2, 2]


def test_the_percentiles_are_those_of_numpy_bit_by_bit_and_more_come_when_asked_for() -> None:
    z, w = models((777, 9))
    found = compare(z, w, quantiles=[0.3, 1.0])
    wanted = {f"p{100 * q:.12g}" for q in (*QUANTILES, 0.3, 1.0)}
    assert found.kl.percentiles.keys() == found.delta_p.percentiles.keys() == wanted
    assert found.kl.percentiles["p100"] == found.kl.maximum
    assert found.kl_reverse.percentiles == {}
    assert (found.kl.exact, found.delta_p.exact) == (True, True)


def test_the_same_top_class_is_the_first_of_equal_ones() -> None:
    found = compare([[0.0, 1, 1], [0, 1, 1], [0, 2, 1]], [[1.0, 1, 0], [0, 1, 1], [0, 1, 2]], top_k=1)
    assert (found.same_top.count, found.in_top_k.count) == (1, 2)


@pytest.mark.parametrize("top_k", [1, 2, 4, 5, 6, 100])
def test_in_top_k_is_counted_up_to_all_classes(top_k: int) -> None:
    z, w = models((60, 5), change=3)
    found = compare(z, w, top_k=top_k)
    assert_numbers(found, expected(log_softmax(z, -1), log_softmax(w, -1), None, top_k))
    assert (found.in_top_k.count == 60) or top_k < 5
    assert found.settings.top_k == top_k


# As evaluate has it


@pytest.mark.parametrize(("reference_are", "candidate_are"), PAIRS)
@pytest.mark.parametrize("odd", [False, True])
def test_kl_is_bit_by_bit_that_of_evaluate(reference_are: str, candidate_are: str, odd: bool) -> None:
    z, w = models((50, 23))
    if odd:
        w[3, 2] = z[4, 3] = -INF
        z[:, 9] = w[:, 9] = -INF
    assert_as_evaluate(in_space(reference_are, z), in_space(candidate_are, w), reference_are, candidate_are)


@pytest.mark.parametrize(("reference_are", "candidate_are"), [p for p in PAIRS if "logits" in p])
@pytest.mark.parametrize("length", [4095, 4096, 4097, 9001, 140_001])
def test_kl_of_large_vocabularies_is_bit_by_bit_that_of_evaluate(
    reference_are: str, candidate_are: str, length: int
) -> None:
    z, w = (np.asarray(logits, "<f4") for logits in models((3, length)))
    w[1, 5:9] = -INF
    assert_as_evaluate(in_space(reference_are, z), in_space(candidate_are, w), reference_are, candidate_are)


def assert_as_evaluate(
    reference: AnyArray, candidate: AnyArray, reference_are: str, candidate_are: str
) -> None:
    options: dict[str, Any] = {"quantiles": [0.25, 0.75], "worst": 3, "blocks_of": 2}
    found = compare(reference, candidate, reference_are=reference_are, candidate_are=candidate_are, **options)
    wanted = kldiv_cli.evaluate(
        candidate, reference, predictions_are=candidate_are, targets_are=reference_are, **options
    )
    assert repr(found.kl) == repr(wanted.statistics)
    assert found.worst == wanted.worst
    assert found.distributions == wanted.scalars.distributions
    assert (found.kl.mean == wanted.distmean) or math.isnan(wanted.distmean)


def test_options_do_to_kl_what_they_do_in_evaluate(rng: np.random.Generator) -> None:
    z, w = models((6, 5, 8))
    mask = rng.random((6, 8)) < 0.7
    options: dict[str, Any] = {
        "axis": 1, "temperature": 2.5, "mask": mask, "worst": 4, "blocks_of": 3, "quantiles": [0.25, 0.75],
    }  # fmt: skip
    found = compare(z, w, **options)
    wanted = kldiv_cli.evaluate(w, z, predictions_are="logits", targets_are="logits", **options)
    assert repr(found.kl) == repr(wanted.statistics)
    assert found.worst == wanted.worst
    assert found.shape == wanted.shape == (6, 5, 8)
    assert found.axis == 1


def test_the_cross_entropy_is_that_of_evaluate_with_labels() -> None:
    z, w = models((300, 12))
    labels = labels_for(z)
    found = compare(z, w, labels=labels).with_labels
    assert found is not None
    for logits, told in ((z, found.cross_entropy_reference), (w, found.cross_entropy_candidate)):
        wanted = kldiv_cli.evaluate(logits, labels, log_softmax=-1, targets_are="labels").statistics
        assert (told.mean, told.minimum, told.maximum) == pytest.approx(
            (wanted.mean, wanted.minimum, wanted.maximum), rel=1e-13, abs=1e-15
        )
        assert told.standard_error == pytest.approx(wanted.standard_error, rel=1e-9)


# Spaces, axes, storage


@pytest.mark.parametrize(("reference_are", "candidate_are"), PAIRS)
def test_the_numbers_are_the_same_in_all_spaces(reference_are: str, candidate_are: str) -> None:
    z, w = models((80, 13))
    labels = labels_for(z)
    found = compare(
        in_space(reference_are, z),
        in_space(candidate_are, w),
        reference_are=reference_are,
        candidate_are=candidate_are,
        labels=labels,
    )
    told, wanted = numbers(found), numbers(compare(z, w, labels=labels))
    for name, value in wanted.items():
        assert told[name] == pytest.approx(value, rel=1e-11, abs=1e-12, nan_ok=True), name
    assert found.findings == ()
    assert (found.reference.space, found.candidate.space) == (reference_are, candidate_are)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_temperature_is_that_of_divided_logits(temperature: float) -> None:
    z, w = models((60, 9))
    labels = labels_for(z)
    found = compare(z, w, temperature=temperature, labels=labels)
    by_hand = expected(log_softmax(z / temperature, -1), log_softmax(w / temperature, -1), labels)
    assert_numbers(found, by_hand)
    one_side = compare(softmax(z / temperature, -1), w, reference_are="probs", temperature=temperature)
    assert one_side.kl.mean == pytest.approx(found.kl.mean, rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((9,), 0), ((9,), -1), ((7, 9), 0), ((7, 9), -2), ((3, 4, 9), 1), ((3, 4, 9), -1), ((2, 3, 4, 5), -3)],
)
def test_any_axis_is_the_last_one_moved_there(shape: tuple[int, ...], axis: int) -> None:
    z, w = models(shape)
    last = [np.moveaxis(values, axis, -1).reshape(-1, shape[axis]) for values in (z, w)]
    labels = labels_for(z, axis)
    found = compare(z, w, axis=axis, labels=labels)
    wanted = compare(*map(np.ascontiguousarray, last), labels=labels.ravel())
    assert repr(numbers(found)) == repr(numbers(wanted))
    assert (found.shape, found.axis) == (shape, axis % len(shape))


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", ">f8", "<i1", ">i2", "u4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_storage_changes_no_bit(dtype: str, order: Any) -> None:
    z, w = (np.asarray(np.abs(values).astype(dtype), order=order) for values in models((5, 6, 7)))
    labels = labels_for(z.astype(np.float64), 1).astype(">i2", order=order)
    wide = [np.ascontiguousarray(values, np.float64) for values in (z, w)]
    found = compare(z, w, axis=1, labels=labels, worst=3)
    wanted = compare(*wide, axis=1, labels=np.ascontiguousarray(labels, np.int64), worst=3)
    assert bits(found, findings=False) == bits(wanted, findings=False)
    assert found.reference.dtype == str(np.dtype(dtype))


@pytest.mark.parametrize("format", ["npy", "npz", "h5"])
def test_the_format_changes_no_bit(tmp_path: Path, format: str) -> None:
    z, w = models((40, 3, 7))
    named = {"z": z, "w": w, "labels": labels_for(z), "mask": labels_for(z) != 2}
    if format == "npy":
        for name, array in named.items():
            np.save(tmp_path / f"{name}.npy", array)
        addresses = {name: str(tmp_path / f"{name}.npy") for name in named}
    elif format == "npz":
        np.savez_compressed(tmp_path / "a.npz", **named)
        addresses = {name: f"{tmp_path / 'a.npz'}::{name}" for name in named}
    else:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, array in named.items():
                file.create_dataset(f"run/{name}", data=array, chunks=True, compression="gzip")
        addresses = {name: f"{tmp_path / 'a.h5'}::/run/{name}" for name in named}
    found = compare(
        addresses["z"], addresses["w"], labels=addresses["labels"], mask=addresses["mask"], worst=5
    )
    wanted = compare(z, w, labels=named["labels"], mask=named["mask"], worst=5)
    assert bits(found) == bits(wanted)
    assert found.labels is not None
    assert (found.reference.address, found.labels.address) == (addresses["z"], addresses["labels"])


def test_a_part_of_a_file_is_compared_with_a_part(tmp_path: Path) -> None:
    z, w = models((30, 7))
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "w.npy", w)
    found = compare(f"{tmp_path / 'z.npy'}::[10:20]", f"{tmp_path / 'w.npy'}::[10:20]")
    assert bits(found) == bits(compare(z[10:20], w[10:20]))


# How it is cut


def test_memory_and_workers_change_no_bit() -> None:
    z, w = (values.astype("<f4") for values in models((3000, 100)))
    labels = labels_for(z)
    labels[::3] = -100
    options: dict[str, Any] = {"labels": labels, "ignore_value": -100, "worst": 9, "blocks_of": 7}
    wanted = bits(compare(z, w, **options))
    for workers, memory in ((1, 12 << 20), (2, 24 << 20), (3, None), (None, 1 << 30)):
        assert bits(compare(z, w, workers=workers, memory=memory, **options)) == wanted


@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_blocks_pieces_and_workers_change_no_bit(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    z, w = (random.normal(0, 2, shape) for _ in range(2))
    if data.draw(st.booleans()):
        z[random.random(shape) < 0.1] = w[random.random(shape) < 0.1] = -INF
        np.moveaxis(z, axis, 0)[0] = np.moveaxis(w, axis, 0)[0] = 0
    order: Any = data.draw(st.sampled_from("CF"))
    spaces = data.draw(st.sampled_from(PAIRS))
    reference, candidate = (
        np.asarray(in_space(s, v, axis), order=order) for s, v in zip(spaces, (z, w), strict=True)
    )
    labels = random.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :])
    options: dict[str, Any] = {
        "reference_are": spaces[0],
        "candidate_are": spaces[1],
        "axis": axis,
        "labels": labels,
        "ignore_value": data.draw(st.sampled_from([None, 0, -100])),
        "mask": data.draw(st.sampled_from([None, random.random(labels.shape) < 0.6])),
        "worst": 4,
        "blocks_of": data.draw(st.sampled_from([None, 2, 5])),
    }
    segment = data.draw(st.integers(1, 8))
    with cutting(segment=segment, piece=1 << 20, block=1 << 20):
        wanted = bits(compare(reference, candidate, workers=1, **options))
    with cutting(segment=segment, piece=data.draw(st.integers(1, 60)), block=data.draw(st.integers(1, 60))):
        found = bits(compare(reference, candidate, workers=data.draw(st.integers(1, 3)), **options))
    assert found == wanted


def test_what_is_said_of_a_sample_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kldiv_cli.job._ADDED_UP", 0)
    z, w = models((400, 6))
    w = log_softmax(w, -1)
    w[::7] += 0.5
    labels = labels_for(z)
    labels[::3] = -100
    options: dict[str, Any] = {"candidate_are": "log-probs", "labels": labels, "ignore_value": -100}
    with cutting(block=1 << 20):
        wanted = compare(z, w, **options)
    with cutting(block=60):
        assert compare(z, w, **options).findings == wanted.findings


def test_a_nan_elsewhere_does_not_depend_on_blocks() -> None:
    z, w = models((40, 6))
    w[3, 2], w[5, 1] = -INF, NAN
    with cutting(block=6):
        wanted = bits(compare(z, w, worst=3))
    assert bits(compare(z, w, worst=3)) == wanted


def test_progress_adds_up_to_all_elements() -> None:
    z, w = models((50, 8))
    steps: list[int] = []
    with cutting(block=64):
        compare(z, w, progress=steps.append)
    assert len(steps) > 1
    assert sum(steps) == z.size


# Too many to keep


def test_of_too_many_to_keep_all_but_percentiles_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    z, w = models((1001, 6))
    labels = labels_for(z)
    options: dict[str, Any] = {"labels": labels, "worst": 7, "blocks_of": 10}
    exact = compare(z, w, **options)
    monkeypatch.setattr("kldiv_cli.comparison.LIMIT", 0)
    found = compare(z, w, **options)
    assert exact.with_labels is not None
    assert found.with_labels is not None
    assert found.kl.blocks is not None
    assert exact.kl.blocks is not None
    assert found.kl.blocks[:2] == exact.kl.blocks[:2]
    assert found.kl.blocks.standard_error == pytest.approx(exact.kl.blocks.standard_error, rel=1e-12)
    sketched = [found.kl, found.delta_p, found.with_labels.delta_p]
    kept = [exact.kl, exact.delta_p, exact.with_labels.delta_p]
    for obtained, wanted in zip(sketched, kept, strict=True):
        assert (obtained.exact, wanted.exact) == (False, True)
        assert obtained.percentiles.keys() == wanted.percentiles.keys()
        assert dict(obtained.percentiles) == pytest.approx(dict(wanted.percentiles), rel=2**-11)
        assert obtained.percentiles != wanted.percentiles
        assert obtained.standard_error == pytest.approx(wanted.standard_error, rel=1e-12)
    same: dict[str, Any] = {"exact": True, "blocks": None, "percentiles": {}, "standard_error": 0.0}

    def rest(c: Comparison) -> str:
        labelled = c.with_labels
        assert labelled is not None
        labelled = dataclasses.replace(labelled, delta_p=labelled.delta_p._replace(**same))
        kl, delta_p = c.kl._replace(**same), c.delta_p._replace(**same)
        return bits(dataclasses.replace(c, kl=kl, delta_p=delta_p, with_labels=labelled))

    assert rest(found) == rest(exact)


def test_of_too_many_to_keep_blocks_change_no_bit_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kldiv_cli.comparison.LIMIT", 0)
    z, w = models((500, 6))
    z[7, 3] = w[9, 2] = -INF
    mask = labels_for(z) != 1
    options: dict[str, Any] = {"labels": labels_for(z), "mask": mask, "worst": 3, "blocks_of": 9}
    with cutting(block=1 << 20):
        wanted = bits(compare(z, w, **options))
    for block, workers in ((60, 1), (300, 3)):
        with cutting(block=block):
            assert bits(compare(z, w, workers=workers, **options)) == wanted


def test_what_is_kept_of_labels_counts_towards_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    z, w = models((20, 6))
    monkeypatch.setattr("kldiv_cli.comparison.LIMIT", 40)
    assert compare(z, w).kl.exact
    assert not compare(z, w, labels=labels_for(z)).kl.exact
    monkeypatch.setattr("kldiv_cli.comparison.LIMIT", 60)
    assert compare(z, w, labels=labels_for(z)).kl.exact


# Zeros, infinities, nothing


def test_the_candidate_that_rules_out_what_happens_is_infinitely_far_and_said_so() -> None:
    z, w = models((4, 5, 6))
    w[1, 3, 2] = w[3, 0, 4] = -INF
    found = compare(z, w, worst=3)
    assert (found.kl.mean, found.kl.maximum) == (INF, INF)
    assert math.isnan(found.kl.standard_error)
    assert math.isfinite(found.kl_reverse.mean)
    assert found.js.maximum <= math.log(2)
    assert [item.value for item in found.worst[:2]] == [INF, INF]
    assert [item.index for item in found.worst[:2]] == [(1, 3), (3, 0)]
    finding = found_of(found, "infinite-kl")
    assert (finding.count, finding.place, finding.value, finding.severity) == (2, (1, 3), INF, "warning")
    assert finding.message == (
        "2 distributions with an infinite KL, first at [1, 3]: the candidate rules out what the reference "
        "holds possible"
    )
    assert ids(found) == ["infinite-kl"]


def test_a_reference_that_rules_classes_out_is_no_reason_to_say_anything() -> None:
    z, w = models((40, 6))
    z[:, 3] = -INF
    found = compare(z, w)
    assert found.findings == ()
    assert math.isfinite(found.kl.mean)
    assert found.kl_reverse.mean == INF


@pytest.mark.parametrize(("reference_are", "candidate_are"), PAIRS)
def test_a_vocabulary_masked_in_both_is_as_if_it_were_cut_out(reference_are: str, candidate_are: str) -> None:
    z, w = models((60, 8))
    masked = [values.copy() for values in (z, w)]
    for values in masked:
        values[:, 5:] = -INF
    found = compare(
        in_space(reference_are, masked[0]),
        in_space(candidate_are, masked[1]),
        reference_are=reference_are,
        candidate_are=candidate_are,
        labels=labels_for(masked[0]),
    )
    wanted = expected(log_softmax(z[:, :5], -1), log_softmax(w[:, :5], -1), labels_for(masked[0]))
    assert_numbers(found, wanted)
    assert found.findings == ()


def test_rows_of_nan_are_counted_and_placed() -> None:
    z, w = models((4, 5, 6))
    z[2, 1, 0] = w[3, 3, 3] = NAN
    found = compare(z, w)
    assert math.isnan(found.kl.mean)
    finding = found_of(found, "nan-kl")
    assert (finding.count, finding.place, finding.option) == (2, (2, 1), "--mask FILE")
    assert found.kl.count == found.distributions == 20


def test_a_reference_of_unknown_confidence_is_in_no_bucket() -> None:
    z, w = models((60, 6))
    z[3, 0] = NAN
    assert all(math.isfinite(bucket.kl.value) for bucket in compare(z, w).buckets if bucket.count)


@pytest.mark.parametrize("space", SPACES)
def test_the_same_data_twice_are_0_apart_and_said_so(space: str) -> None:
    z = in_space(space, models((60, 9))[0])
    found = compare(z, z.copy(), reference_are=space, candidate_are=space, labels=labels_for(z))
    assert (found.kl.mean, found.kl.maximum, found.kl_reverse.maximum, found.tv.maximum) == (0, 0, 0, 0)
    assert found.js.mean == pytest.approx(0, abs=1e-15)
    assert (found.same_top.share, found.in_top_k.share, found.delta_p_rms.value) == (1, 1, 0)
    assert found.with_labels is not None
    assert found.with_labels.correlation == 1
    assert found.with_labels.ratio == (1, 0)
    assert found.with_labels.difference.value == 0
    assert ids(found) == ["identical"]
    assert "candidate outputs and reference outputs are the same data" in found.findings[0].message


@pytest.mark.parametrize(
    ("reference", "candidate", "before", "after", "difference"),
    [
        (0.0, -INF, math.e, INF, INF),
        (-INF, 0.0, INF, math.e, -INF),
        (-INF, -INF, INF, INF, NAN),
    ],
)
def test_a_label_that_is_ruled_out_makes_a_perplexity_infinite(
    reference: float, candidate: float, before: float, after: float, difference: float
) -> None:
    one = math.log(math.e - 1)  # so that a label beside it costs one nat
    z, w = (np.array([[0.0, one], [label, one]]) for label in (reference, candidate))
    found = compare(z, w, labels=np.array([0, 0])).with_labels
    assert found is not None
    assert found.perplexity_reference.value == pytest.approx(before)
    assert found.perplexity_candidate.value == pytest.approx(after)
    np.testing.assert_equal(found.difference, (difference, NAN))
    np.testing.assert_equal(found.ratio.value, math.exp(difference))
    assert math.isnan(found.correlation)
    assert math.isfinite(found.delta_p_rms.value)


def test_one_distribution_has_means_without_errors() -> None:
    z, w = models((5,))
    found = compare(z, w, labels=np.array(2), worst=2)
    assert_numbers(found, expected_of_one(z, w, 2))
    assert found.worst[0].index == ()
    assert len(found.worst) == 1


def expected_of_one(z: Array, w: Array, label: int) -> dict[str, float]:
    """As of the same row twice, but for counts and errors."""
    log_p, log_q = (np.tile(log_softmax(values), (2, 1)) for values in (z, w))
    with np.errstate(invalid="ignore"):
        twice = expected(log_p, log_q, np.array([label, label]))

    def single(name: str, value: float) -> float:
        if "standard_error" in name or name.endswith("correlation"):
            return NAN
        return value / 2 if name.endswith("count") or name == "distributions" else value

    return {name: single(name, value) for name, value in twice.items()}


def test_one_class_is_0_apart() -> None:
    found = compare(np.ones((40, 1)), np.full((40, 1), 2.0), labels=np.zeros(40, int))
    assert (found.kl.mean, found.js.mean, found.tv.mean, found.entropy_reference.mean) == (0, 0, 0, 0)
    assert (found.same_top.share, found.buckets[-1].count) == (1, 40)
    assert found.with_labels is not None
    assert found.with_labels.perplexity_candidate == (1, 0)
    assert math.isnan(found.with_labels.correlation)


def test_the_difference_of_a_model_from_itself_has_no_error() -> None:
    z = models((60, 9))[0]
    found = compare(z, z, labels=labels_for(z)).with_labels
    assert found is not None
    assert found.difference == (0, 0)


@pytest.mark.parametrize(
    "shape",
    [(0, 5), (2, 0, 3), pytest.param((0,)), pytest.param((3, 0))],
)
def test_empty_arrays_have_no_numbers_and_are_said_to_be_empty(shape: tuple[int, ...]) -> None:
    found = compare(np.zeros(shape), np.zeros(shape), labels=np.zeros(shape[:-1], int), worst=3, blocks_of=2)
    assert ids(found) == ["empty"]
    assert math.isnan(found.kl.mean)
    assert (found.kl.count, found.same_top.count, found.worst) == (0, 0, ())
    assert {bucket.count for bucket in found.buckets} == {0}
    assert found.with_labels is not None
    assert math.isnan(found.with_labels.ratio.value)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_where_all_is_masked_there_are_no_numbers(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr("kldiv_cli.comparison.LIMIT", limit)
    z, w = models((4, 5))
    found = compare(z, w, mask=np.zeros(4, bool), labels=labels_for(z), worst=2, blocks_of=2)
    assert ids(found) == ["empty"]
    assert (found.distributions, found.kl.count, found.worst) == (0, 0, ())
    assert math.isnan(found.kl.mean)
    assert math.isnan(found.kl.percentiles["p50"])
    ignored = compare(z, w, labels=np.full(4, -100), ignore_value=-100)
    assert ids(ignored) == ["empty"]


def test_perplexities_beyond_all_measure_are_no_error() -> None:
    z, w = models((32, 20), spread=300)
    found = compare(z, w, labels=np.arange(32) % 20).with_labels
    assert found is not None
    assert found.perplexity_reference.value > 1e100


# What counts


@pytest.mark.parametrize("dtype", ["?", "u1", "<i8", "<f4"])
def test_a_mask_is_the_selection_by_hand(rng: np.random.Generator, dtype: str) -> None:
    z, w = models((6, 9, 7))
    mask, labels = rng.random((6, 9)) < 0.5, labels_for(z)
    found = compare(z, w, labels=labels, mask=mask.astype(dtype), worst=2)
    wanted = compare(z[mask], w[mask], labels=labels[mask], worst=2)
    assert repr(numbers(found)) == repr(numbers(wanted))
    assert [item.value for item in found.worst] == [item.value for item in wanted.worst]
    where = np.argwhere(mask)[wanted.worst[0].index[0]]
    assert found.worst[0].index == tuple(where)
    assert found.mask is not None
    assert found.mask.space == "mask"


@pytest.mark.parametrize(("axis", "shape"), [(0, (5, 6)), (1, (4, 6)), (2, (4, 5))])
def test_a_mask_has_the_shape_without_the_axis(rng: np.random.Generator, axis: int, shape: Any) -> None:
    z, w = models((4, 5, 6))
    mask = rng.random(shape) < 0.5
    rows = [np.moveaxis(values, axis, -1)[mask] for values in (z, w)]
    assert repr(numbers(compare(z, w, axis=axis, mask=mask))) == repr(numbers(compare(*rows)))


@pytest.mark.parametrize("shape", [(4, 1), (1, 1), (1,), ()])
def test_a_mask_that_is_alike_for_all_classes_may_broadcast(shape: tuple[int, ...]) -> None:
    z, w = models((4, 5))
    assert compare(z, w, mask=np.ones(shape)).distributions == 4


@pytest.mark.parametrize("shape", [(4, 5), (5,), (1, 5)])
def test_a_mask_of_single_classes_is_refused(shape: tuple[int, ...]) -> None:
    z, w = models((4, 5))
    message = re.escape("is of single classes; expected shape (4,), one value a distribution")
    with pytest.raises(ShapeMismatch, match=f"^mask .*{message}"):
        compare(z, w, mask=np.ones(shape))


def test_a_mask_of_something_else_is_refused() -> None:
    z, w = models((4, 5))
    with pytest.raises(ShapeMismatch, match=re.escape("mask mask (3,): expected a shape")):
        compare(z, w, mask=np.ones(3))
    with pytest.raises(DomainError, match="mask mask: holds 2, expected 1"):
        compare(z, w, mask=np.full(4, 2))


@pytest.mark.parametrize(
    ("ignored", "dtype"), [(-100, "<i8"), (-100, ">i2"), (0, "u1"), (4, "<i4"), (255, "u1")]
)
def test_an_ignored_label_is_the_selection_by_hand(ignored: int, dtype: str) -> None:
    z, w = models((6, 9, 7))
    labels = labels_for(z).astype(dtype)
    labels[::2, ::3] = ignored
    counted = labels != ignored
    found = compare(z, w, labels=labels, ignore_value=ignored, worst=1, blocks_of=4)
    wanted = compare(z[counted], w[counted], labels=labels[counted], worst=1)
    assert repr(numbers(found)) == repr(numbers(wanted))
    assert found.worst[0].value == wanted.worst[0].value
    assert found.settings.ignore_value == ignored


def test_a_mask_and_ignored_labels_leave_out_what_either_does(rng: np.random.Generator) -> None:
    z, w = models((50, 7))
    labels, mask = labels_for(z), rng.random(50) < 0.6
    labels[::4] = -100
    counted = mask & (labels != -100)
    found = compare(z, w, labels=labels, mask=mask, ignore_value=-100)
    assert repr(numbers(found)) == repr(numbers(compare(z[counted], w[counted], labels=labels[counted])))


def test_labels_that_are_left_out_may_be_no_class() -> None:
    z, w = models((4, 5))
    labels = np.array([0, -7, 99, 2])
    found = compare(z, w, labels=labels, mask=np.array([1, 0, 0, 1]))
    assert found.distributions == 2
    with pytest.raises(DomainError, match="say --ignore-value -7"):
        compare(z, w, labels=labels)


@pytest.mark.parametrize("wrong", [-100, -1, 5, 2**40])
def test_labels_that_are_no_class_are_refused_with_the_option_that_ignores_them(wrong: int) -> None:
    z, w = models((2, 3, 5))
    labels = np.zeros((2, 3), np.int64)
    labels[1, 1:] = wrong
    message = f"labels: 2 of 6 labels outside 0 to 4, first {wrong} at index (1, 1);"
    with pytest.raises(DomainError, match=re.escape(message)) as raised:
        compare(z, w, labels=labels)
    assert str(raised.value).endswith(f"--ignore-value {wrong}")
    assert compare(z, w, labels=labels, ignore_value=wrong).distributions == 4


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros((4, 5), int), ShapeMismatch, "labels (4, 5): expected (4,)"),
        (np.zeros(5, int), ShapeMismatch, "labels (5,): expected (4,)"),
        (np.array(0), ShapeMismatch, "labels (): expected (4,)"),
        (np.zeros(4), FormatError, "labels: float64, expected integer labels"),
        (np.zeros(4, bool), FormatError, "labels: bool, expected integer labels"),
    ],
)
def test_labels_of_another_shape_or_kind_are_refused(
    labels: AnyArray, error: type[KldivError], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        compare(*models((4, 5)), labels=labels)


def test_the_longer_one_is_cut_where_that_was_asked_for() -> None:
    z, w = models((40, 9))
    w = np.concatenate([w, np.full((40, 3), -20.0)], axis=1)
    labels = labels_for(z)
    for reference, candidate in ((z, w), (w, z)):
        found = compare(reference, candidate, trim_axis=True, labels=labels)
        assert repr(numbers(found)) == repr(
            numbers(compare(reference[:, :9], candidate[:, :9], labels=labels))
        )
        assert found.shape == (40, 9)
        assert {found.reference.shape, found.candidate.shape} == {(40, 9), (40, 12)}


@pytest.mark.parametrize(
    ("reference", "candidate", "hint"),
    [
        ((4, 5), (4, 6), "axis 1 has 6 and 5 entries, is one padded? --trim-axis cuts it to 5"),
        ((4, 5), (3, 5), ""),
        ((4, 5), (4, 5, 1), ""),
    ],
)
def test_shapes_that_differ_are_refused_by_name(
    reference: tuple[int, ...], candidate: tuple[int, ...], hint: str
) -> None:
    with pytest.raises(ShapeMismatch) as raised:
        compare(np.zeros(reference), np.zeros(candidate))
    message = str(raised.value)
    assert message.startswith(f"candidate candidate {candidate} and reference reference {reference}: ")
    assert hint in message


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (np.zeros((4, 5)), np.zeros(5)),
        (np.zeros((4, 5)), np.zeros((1, 5))),
        (np.zeros(4, int), np.zeros((4, 5))),
    ],
)
def test_of_shapes_that_differ_only_options_that_there_are_are_named(
    reference: AnyArray, candidate: AnyArray
) -> None:
    with pytest.raises(ShapeMismatch) as raised:
        compare(reference, candidate)
    assert set(re.findall(r"--[\w-]+", str(raised.value))) <= {"--trim-axis", "--axis", "--labels"}


def test_an_array_without_an_axis_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="0 dimensions, expected an axis of classes"):
        compare(np.float64(1), np.float64(2))
    with pytest.raises(AxisError, match="axis 2 is out of range for 2 dimensions"):
        compare(*models((4, 5)), axis=2)


def test_distributions_beyond_the_limit_are_refused_as_an_axis_that_is_none() -> None:
    long = np.zeros((1, (4 << 20) + 1), np.int8)
    message = "^axis 1: distributions of 4194305 classes, expected at most 4194304; .*--axis"
    with pytest.raises(UsageError, match=message):
        compare(long, long)


# The worst, and blocks of dependent ones


def test_the_worst_are_those_of_the_largest_kl_with_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    z, w = models((6, 7, 5))
    p, q = np.moveaxis(log_softmax(z, 1), 1, -1), np.moveaxis(log_softmax(w, 1), 1, -1)
    kl = (np.exp(p) * (p - q)).sum(-1)
    order = np.argsort(-kl, axis=None)[:8]
    for limit in (1 << 20, 0):
        monkeypatch.setattr("kldiv_cli.comparison.LIMIT", limit)
        worst = compare(z, w, axis=1, worst=8).worst
        assert [item.index for item in worst] == [np.unravel_index(i, kl.shape) for i in order]
        assert [item.value for item in worst] == pytest.approx(kl.ravel()[order], rel=1e-12)
    assert compare(z, w).worst == ()
    assert len(compare(z, w, axis=1, worst=99).worst) == 30


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_dependent_ones_have_the_error_of_their_blocks_means(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("kldiv_cli.comparison.LIMIT", limit)
    z, w = models((120, 6))
    p, q = log_softmax(z, -1), log_softmax(w, -1)
    means = (np.exp(p) * (p - q)).sum(-1).reshape(-1, 8).mean(1)
    blocks = compare(z, w, blocks_of=8).kl.blocks
    assert blocks is not None
    assert (blocks.of, blocks.blocks) == (8, 15)
    assert blocks.standard_error == pytest.approx(means.std(ddof=1) / math.sqrt(15), rel=1e-11)


# Misuse


def options_shown(findings: tuple[Finding, ...]) -> dict[str, Any]:
    """The options that messages say, as arguments."""
    told: dict[str, Any] = {}
    for finding in findings:
        for name, value in re.findall(r"--((?:reference|candidate)-are|axis) ([\w-]+)", finding.message):
            if name != "axis":
                told[name.replace("-", "_")] = value
            elif re.fullmatch(r"-?\d+", value):
                told["axis"] = int(value)
    return told


def is_right(actual: str, said: str) -> bool:
    """Log-probabilities are logits of themselves."""
    return actual == said or (actual, said) == ("log-probs", "logits")


def wrong_spaces() -> list[tuple[str, str, str, str]]:
    """What both are and what they are said to be, one of them or both wrongly, but never wrongly probs."""
    return [
        (*are, *said)
        for are, said in itertools.product(PAIRS, PAIRS)
        if not all(map(is_right, are, said))
        and all(s != "probs" or a == "probs" for a, s in zip(are, said, strict=True))
    ]


def assert_mended(z: Array, w: Array, are: tuple[str, str], said: tuple[str, str]) -> None:
    reference, candidate = in_space(are[0], z), in_space(are[1], w)
    options: dict[str, Any] = {"reference_are": said[0], "candidate_are": said[1]}
    wrong = compare(reference, candidate, **options)
    assert wrong.findings
    mended = compare(reference, candidate, **(options | options_shown(wrong.findings)))
    assert mended.findings == ()
    assert mended.kl.mean == pytest.approx(compare(z, w).kl.mean, rel=1e-11)


@pytest.mark.parametrize(("reference", "candidate", "reference_said", "candidate_said"), wrong_spaces())
def test_following_what_is_said_of_wrong_spaces_gives_the_right_number(
    reference: str, candidate: str, reference_said: str, candidate_said: str
) -> None:
    assert_mended(*models((64, 20)), (reference, candidate), (reference_said, candidate_said))


@pytest.mark.parametrize("are", ["logits", "log-probs"])
@pytest.mark.parametrize("role", [0, 1])
def test_following_what_is_said_of_no_probabilities_gives_the_right_number(are: str, role: int) -> None:
    actual, said = ["logits", "logits"], ["logits", "logits"]
    actual[role], said[role] = are, "probs"
    assert_mended(*models((64, 20)), (actual[0], actual[1]), (said[0], said[1]))


@pytest.mark.parametrize(("reference", "candidate"), [p for p in PAIRS if p != ("logits", "logits")])
def test_following_what_is_said_of_another_axis_gives_the_right_number(
    reference: str, candidate: str
) -> None:
    z, w = models((64, 20))
    z, w = z.T, w.T
    given = [in_space(space, values, 0) for space, values in ((reference, z), (candidate, w))]
    options: dict[str, Any] = {"reference_are": reference, "candidate_are": candidate}
    wrong = compare(*given, **options)
    finding = found_of(wrong, "wrong-axis")
    assert "outputs are normalised along axis 0, not along axis 1" in finding.message
    mended = compare(*given, **(options | options_shown(wrong.findings)))
    assert mended.findings == ()
    assert mended.kl.mean == pytest.approx(compare(z, w, axis=0).kl.mean, rel=1e-11)


def all_findings() -> list[Finding]:
    z, w = models((64, 20))
    found: list[Finding] = []
    for are, said in itertools.product(PAIRS, PAIRS):
        reference, candidate = in_space(are[0], z), in_space(are[1], w)
        found += compare(reference, candidate, reference_are=said[0], candidate_are=said[1]).findings
    return found


def test_findings_are_in_the_words_of_a_comparison() -> None:
    z, w = models((64, 20), spread=4)
    findings = all_findings()
    findings += compare(z, z).findings + compare(z, np.roll(w, 3, 0)).findings
    for finding in findings:
        for text in (finding.message, finding.option or ""):
            assert not re.search("predictions|targets?|log-softmax|log-target", text), text
        assert "predictions" not in finding.id
        assert "targets" not in finding.id


def test_ids_of_findings_are_in_the_words_of_a_comparison() -> None:
    assert not [finding.id for finding in all_findings() if "target" in finding.id]


def test_options_of_findings_can_be_given_as_they_are() -> None:
    z, w = models((64, 20))
    finding = found_of(compare(z, w, candidate_are="log-probs"), "candidate-unnormalised")
    assert finding.option in ("--candidate-are logits", "--candidate-are logits --axis 1")


@pytest.mark.parametrize("space", SPACES)
def test_padding_that_counts_is_told_apart(space: str) -> None:
    z, w = (in_space(space, values) for values in models((64, 20)))
    filling = 0.0 if space != "log-probs" else -100.0
    w[5] = w[9] = filling
    finding = found_of(compare(z, w, reference_are=space, candidate_are=space), "candidate-padding")
    assert (finding.count, finding.place, finding.option) == (2, (5,), "--mask FILE")
    mask = np.ones(64, bool)
    mask[[5, 9]] = False
    assert compare(z, w, reference_are=space, candidate_are=space, mask=mask).findings == ()


@pytest.mark.parametrize("space", ["log-probs", "probs"])
def test_padding_of_the_reference_is_left_out_with_a_mask(space: str) -> None:
    z, w = (in_space(space, values) for values in models((64, 20)))
    z[5] = -100
    finding = found_of(compare(z, w, reference_are=space, candidate_are=space), "reference-padding")
    assert finding.option == "--mask FILE"


def test_rows_in_another_order_are_detected(rng: np.random.Generator) -> None:
    z, w = models((200, 20), spread=4, change=0.3)
    order = rng.permutation(200)
    finding = found_of(compare(z, w[order]), "misaligned")
    assert "candidate outputs and reference outputs agree on the top class in" in finding.message
    assert finding.severity == "warning"
    assert compare(z[order], w[order]).findings == ()


def test_half_precision_is_noted() -> None:
    z, w = models((64, 20), change=0.01)
    finding = found_of(compare(z.astype("f2"), w.astype("f2")), "low-precision")
    assert finding.severity == "note"


def test_numbers_do_not_depend_on_what_is_said() -> None:
    z, w = models((64, 20))
    p, q = softmax(z, -1), softmax(w, -1)
    found = compare(p, q)
    assert_numbers(found, expected(log_softmax(p, -1), log_softmax(q, -1)), rel=1e-9)
    assert ids(found) == ["softmax-of-probs", "softmax-of-reference-probs"]
