"""What the tests of comparisons share: spaces, how data is cut, and every number by NumPy and SciPy."""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from scipy.special import entr, log_softmax, rel_entr

from kldiv_cli.comparison import Comparison
from kldiv_cli.estimates import Estimate, Share
from kldiv_cli.statistics import Statistics

AnyArray = npt.NDArray[Any]
Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

SPACES = ("logits", "log-probs", "probs")
QUANTILES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
BUCKETS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


def in_space(space: str, logits: AnyArray, axis: int = -1) -> Array:
    """The distributions that logits stand for, in any space."""
    wide = np.asarray(logits, np.float64)
    if space == "logits":
        return wide
    logs = np.asarray(log_softmax(wide, axis))
    return logs if space == "log-probs" else np.exp(logs)


@contextlib.contextmanager
def cutting(*, segment: int = 4096, piece: int = 1 << 17, block: int = 1 << 16) -> Iterator[None]:
    """Make small arrays take the paths of large ones; only `segment` makes a difference."""
    sizes = {"SEGMENT": segment, "PIECE": piece, "_SMALLEST_BLOCK": block, "_LARGEST_BLOCK": block}
    import kldiv_cli.comparison  # all that the sizes are imported to

    assert kldiv_cli.comparison
    with contextlib.ExitStack() as stack:
        for name, loaded in list(sys.modules.items()):
            if name.startswith("kldiv_cli"):
                for size in sizes.keys() & vars(loaded).keys():
                    stack.enter_context(mock.patch.object(loaded, size, sizes[size]))
        yield


# By NumPy and SciPy


def row_values(log_p: Array, log_q: Array, top_k: int = 5) -> dict[str, AnyArray]:
    """One value a row, for log-probabilities of the reference and of the candidate."""
    p, q = np.asarray(np.exp(log_p)), np.asarray(np.exp(log_q))
    middle = (p + q) / 2
    top, row = p.argmax(-1), np.arange(len(p))
    return {
        "kl": rel_entr(p, q).sum(-1),
        "kl_reverse": rel_entr(q, p).sum(-1),
        "js": (rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / 2,
        "tv": np.abs(p - q).sum(-1) / 2,
        "entropy_reference": entr(p).sum(-1),
        "entropy_candidate": entr(q).sum(-1),
        "confidence": p.max(-1),
        "delta_p": q[row, top] - p[row, top],
        "same_top": top == q.argmax(-1),
        "in_top_k": (q > q[row, top][:, None]).sum(-1) < top_k,
    }


def label_values(log_p: Array, log_q: Array, labels: AnyArray) -> dict[str, AnyArray]:
    """The same of labels."""
    row, label = np.arange(len(log_p)), labels.astype(np.int64)
    x, y = log_p[row, label], log_q[row, label]
    return {
        "nll_reference": -x,
        "nll_candidate": -y,
        "delta_p_label": np.exp(y) - np.exp(x),
        "correct_reference": log_p.argmax(-1) == label,
        "correct_candidate": log_q.argmax(-1) == label,
    }


def error_of_mean(values: Array) -> float:
    """As llama.cpp has it, from moments: the root of (mean of squares - square of mean) / (n - 1)."""
    variance = float(np.mean(values**2) - np.mean(values) ** 2)
    return float(np.sqrt(max(variance, 0.0) / (values.size - 1)))


def covariance_of_means(a: Array, b: Array) -> float:
    return float((np.mean(a * b) - np.mean(a) * np.mean(b)) / (a.size - 1))


def _spread(name: str, values: Array, *, percentiles: bool = False) -> dict[str, float]:
    """Statistics of one quantity."""
    found = {
        f"{name}.count": values.size,
        f"{name}.mean": values.mean(),
        f"{name}.standard_error": error_of_mean(values),
        f"{name}.minimum": values.min(),
        f"{name}.maximum": values.max(),
    }
    if percentiles:
        found |= {f"{name}.p{100 * q:.12g}": np.quantile(values, q) for q in QUANTILES}
    return found


def _share(name: str, flags: AnyArray) -> dict[str, float]:
    p = flags.mean()
    error = np.sqrt(p * (1 - p) / (flags.size - 1))
    return {f"{name}.count": flags.sum(), f"{name}.share": p, f"{name}.standard_error": error}


def _rms(name: str, values: Array) -> dict[str, float]:
    rms = np.sqrt(np.mean(values**2))
    return {f"{name}.value": rms, f"{name}.standard_error": 0.5 / rms * error_of_mean(values**2)}


def expected(log_p: Array, log_q: Array, labels: AnyArray | None = None, top_k: int = 5) -> dict[str, float]:
    """Every number of a comparison under its path."""
    rows = row_values(log_p, log_q, top_k)
    found: dict[str, float] = {"distributions": len(log_p)}
    for name in ("kl_reverse", "js", "tv", "entropy_reference", "entropy_candidate"):
        found |= _spread(name, rows[name])
    for name in ("kl", "delta_p"):
        found |= _spread(name, rows[name], percentiles=True)
    found |= _rms("delta_p_rms", rows["delta_p"])
    for name in ("same_top", "in_top_k"):
        found |= _share(name, rows[name])
    for k, (low, high) in enumerate(itertools.pairwise(BUCKETS)):
        last = high == 1
        here = (rows["confidence"] >= low) & ((rows["confidence"] < high) | last)
        found |= {f"buckets.{k}.{name}": value for name, value in _bucket(rows, here).items()}
    return found if labels is None else found | _of_labels(log_p, log_q, labels)


def _bucket(rows: Mapping[str, AnyArray], here: AnyArray) -> dict[str, float]:
    count = int(here.sum())
    nan = float("nan")
    if count < 2:
        kl = rows["kl"][here]
        same = rows["same_top"][here]
        return {
            "count": count,
            "kl.value": kl[0] if count else nan,
            "kl.standard_error": nan,
            "same_top.count": same.sum(),
            "same_top.share": float(same[0]) if count else nan,
            "same_top.standard_error": nan,
        }
    kl = rows["kl"][here]
    return {
        "count": count,
        "kl.value": kl.mean(),
        "kl.standard_error": error_of_mean(kl),
        **_share("same_top", rows["same_top"][here]),
    }


def _of_labels(log_p: Array, log_q: Array, labels: AnyArray) -> dict[str, float]:
    """With llama.cpp's formulas for what is computed from two means."""
    rows = label_values(log_p, log_q, labels)
    a, b = rows["nll_reference"], rows["nll_candidate"]
    error_a, error_b, covariance = error_of_mean(a), error_of_mean(b), covariance_of_means(a, b)
    perplexity_a, perplexity_b = np.exp(a.mean()), np.exp(b.mean())
    log_error = np.sqrt(error_a**2 + error_b**2 - 2 * covariance)
    pa, pb = perplexity_a * error_a, perplexity_b * error_b
    found = {
        **_spread("cross_entropy_reference", a),
        **_spread("cross_entropy_candidate", b),
        "perplexity_reference.value": perplexity_a,
        "perplexity_reference.standard_error": pa,
        "perplexity_candidate.value": perplexity_b,
        "perplexity_candidate.standard_error": pb,
        "log_ratio.value": (b - a).mean(),
        "log_ratio.standard_error": log_error,
        "ratio.value": np.exp((b - a).mean()),
        "ratio.standard_error": np.exp((b - a).mean()) * log_error,
        "difference.value": perplexity_b - perplexity_a,
        "difference.standard_error": np.sqrt(pa**2 + pb**2 - 2 * perplexity_a * perplexity_b * covariance),
        "correlation": covariance / (error_a * error_b) if error_a and error_b else math.nan,
        **_spread("delta_p", rows["delta_p_label"], percentiles=True),
        **_rms("delta_p_rms", rows["delta_p_label"]),
        **_share("accuracy_reference", rows["correct_reference"]),
        **_share("accuracy_candidate", rows["correct_candidate"]),
    }
    return {f"with_labels.{name}": value for name, value in found.items()}


# What was told


def numbers(comparison: Comparison) -> dict[str, float]:
    """Every number of the result under its path, as `expected` names them."""
    found: dict[str, float] = {"distributions": comparison.distributions}
    for name in (f.name for f in fields(comparison)):
        found |= _numbers(name, getattr(comparison, name))
    for k, bucket in enumerate(comparison.buckets):
        found[f"buckets.{k}.count"] = bucket.count
        found |= _numbers(f"buckets.{k}.kl", bucket.kl) | _numbers(f"buckets.{k}.same_top", bucket.same_top)
    labels = comparison.with_labels
    if labels is not None:
        for name in (f.name for f in fields(labels)):
            found |= _numbers(f"with_labels.{name}", getattr(labels, name))
    return found


def _numbers(name: str, value: Any) -> dict[str, float]:
    if isinstance(value, Statistics):
        told = value._asdict()
        told |= told.pop("percentiles")
        others = ("of", "exact", "blocks", "histogram")
        return {f"{name}.{key}": told[key] for key in told if key not in others}
    if isinstance(value, (Estimate, Share)):
        return {f"{name}.{key}": item for key, item in value._asdict().items()}
    return {name: value} if name == "with_labels.correlation" else {}


def bits(comparison: Comparison, *, findings: bool = True) -> str:
    """All of a result but where its inputs lie and how they are stored; equal only for equal bits."""
    changes: dict[str, Any] = dict.fromkeys(("reference", "candidate", "labels", "mask"))
    if not findings:
        changes["findings"] = ()
    return repr(replace(comparison, **changes))
