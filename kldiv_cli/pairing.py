"""Which arrays belong together, and the ``kldiv compute`` or ``kldiv compare`` line for them."""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from kldiv_cli.inspection import Inspection
from kldiv_cli.likeness import Likeness, Space, Traits
from kldiv_cli.sources import parse_address

__all__ = ["Suggestion", "suggest"]

_RANKS: Final[dict[Space, int]] = {"logits": 0, "log-probs": 1, "probs": 2, "labels": 3, "binary": 3}
"""Of two arrays the one with the lower rank is the prediction."""
_TARGETS: Final = 3
"""What has this rank is never a prediction."""

_CONSIDERED: Final = 1000
"""Pairs that fit, among which those that are shown are chosen."""

_PREDICTION_NAMES: Final = frozenset(
    {"student", "pred", "preds", "predicted", "prediction", "predictions", "output", "outputs", "out"}
    | {"logits", "quant", "quantized", "quantised", "candidate", "new", "test", "approx", "q"}
    | {"int8", "int4", "fp8", "fp4", "nf4", "q8", "q4", "awq", "gptq", "pruned", "distilled", "finetuned"}
)
_TARGET_NAMES: Final = frozenset(
    {"teacher", "target", "targets", "label", "labels", "truth", "true", "gt", "gold", "ref", "reference"}
    | {"base", "baseline", "original", "orig", "expected", "full", "old", "p", "y"}
    | {"fp32", "f32", "float32", "fp64", "float64"}
)


class Suggestion(NamedTuple):
    """A pair, and the options of `kldiv compute` or `kldiv compare` for it."""

    predictions: str
    """For `compare` the candidate."""
    targets: str
    """For `compare` the reference."""
    options: tuple[str, ...]
    verb: Literal["compute", "compare"] = "compute"

    @property
    def command(self) -> str:
        """The line, ready for a shell."""
        pair = (self.predictions, self.targets)
        addresses = map(_unlike_an_option, pair if self.verb == "compute" else reversed(pair))
        return shlex.join(("kldiv", self.verb, *addresses, *self.options))


class _Array(NamedTuple):
    """An array that looks like something that can be compared."""

    address: str
    shape: tuple[int, ...]
    likeness: Likeness
    traits: Traits

    @property
    def rank(self) -> int:
        return _RANKS[self.likeness.space]


def suggest(
    inspections: Sequence[Inspection], *, most: int, extra: tuple[str, ...] = ()
) -> tuple[list[Suggestion], bool]:
    """Up to `most` pairs that fit, and whether there are more; `extra` options go to all of them.

    Those of unlike arrays come first.
    """
    arrays = _comparable(inspections)
    pairs = itertools.chain(_pairs(arrays, alike=False), _pairs(arrays, alike=True))
    fitting = (suggestion for pair in pairs if (suggestion := _suggestion(*pair)) is not None)
    found = list(itertools.islice(fitting, max(most + 1, _CONSIDERED)))
    chosen = [suggestion._replace(options=suggestion.options + extra) for suggestion in _spread(found, most)]
    return chosen, len(found) > most


def _spread(found: list[Suggestion], most: int) -> list[Suggestion]:
    """No array's second line as predictions before every other's first; what is chosen keeps its order."""
    turns: Counter[str] = Counter()
    order: list[tuple[int, int]] = []
    for place, suggestion in enumerate(found):
        order.append((turns[suggestion.predictions], place))
        turns[suggestion.predictions] += 1
    return [found[place] for place in sorted(place for _, place in sorted(order)[:most])]


def _comparable(inspections: Sequence[Inspection]) -> list[_Array]:
    """Each array once; not those whose names a terminal would not show as they are."""
    return list(
        {
            i.address: _Array(i.address, i.shape, i.likeness, i.traits)
            for i in inspections
            if i.shape is not None and i.likeness is not None and i.traits is not None
            if i.likeness.space in _RANKS and i.address.isprintable()
        }.values()
    )


def _pairs(arrays: list[_Array], *, alike: bool) -> Iterator[tuple[_Array, _Array]]:
    """Pairs of equal shapes, each once, and pairs of which the second lacks one dimension of the first."""
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, array in enumerate(arrays):
        places[array.shape].append(place)
    for place, array in enumerate(arrays):
        shape = array.shape
        shorter = {shape[:axis] + shape[axis + 1 :] for axis in range(len(shape))}
        partners = [other for other in places[shape] if other > place]
        partners += [other for less in shorter for other in places.get(less, ())]
        for other in sorted(partners):
            if (array.rank == arrays[other].rank) == alike:
                yield array, arrays[other]


def _suggestion(first: _Array, second: _Array) -> Suggestion | None:
    options = _compare_options(first, second)
    if options is not None:
        candidate, reference = _by_name(second, first)
        return Suggestion(candidate.address, reference.address, options, "compare")
    predictions, targets = _in_roles(first, second)
    if predictions.rank == _TARGETS:
        return None
    if predictions.shape == targets.shape:
        options = _binary_options(predictions, targets) or _options(predictions, targets)
    else:
        options = _label_options(predictions, targets)
    return None if options is None else Suggestion(predictions.address, targets.address, options)


def _in_roles(first: _Array, second: _Array) -> tuple[_Array, _Array]:
    """The prediction and the target: by what they look like, else by their names, else as they come."""
    if len(first.shape) != len(second.shape):
        return (first, second) if len(first.shape) > len(second.shape) else (second, first)
    return min((first, second), (second, first), key=lambda pair: _doubt(*pair))


def _doubt(predictions: _Array, targets: _Array) -> tuple[int, bool, int]:
    """How little speaks for these roles; the lesser of two is believed."""
    exact = predictions.traits.kind != "f" and targets.traits.kind == "f"
    return predictions.rank - targets.rank, exact, _name_score(targets) - _name_score(predictions)


def _name_score(array: _Array) -> int:
    """Above 0 for a name that is given to predictions, below 0 for one of targets."""
    address = parse_address(array.address)
    file = re.split(r"[/\\]", address.path)[-1]
    for name in (address.dataset or "", file):
        words = {*re.findall(r"[a-z]+", name.lower()), *re.findall(r"[a-z]+\d+", name.lower())}
        score = sum((word in _PREDICTION_NAMES) - (word in _TARGET_NAMES) for word in words)
        if score:
            return score
    return 0


def _by_name(predictions: _Array, targets: _Array) -> tuple[_Array, _Array]:
    """The same two, the other way round where their names say so."""
    swapped = _name_score(predictions) < _name_score(targets)
    return (targets, predictions) if swapped else (predictions, targets)


def _compare_options(first: _Array, second: _Array) -> tuple[str, ...] | None:
    """For two models' outputs: of one shape, alike, and normalised along the same axis or not at all."""
    likeness = first.likeness
    if first.shape != second.shape or likeness != second.likeness:
        return None
    if likeness.space == "logits":
        return ()
    whole = first.traits.kind != "f" or second.traits.kind != "f"
    if likeness.axis is None or likeness.space not in ("probs", "log-probs") or whole:
        return None
    said = ("--reference-are", likeness.space, "--candidate-are", likeness.space)
    return (*said, *_of_axis(likeness.axis, first))


def _options(predictions: _Array, targets: _Array) -> tuple[str, ...] | None:
    """For KL of arrays of one shape that are normalised along the same axis."""
    axis = targets.likeness.axis
    of_targets: dict[Space, tuple[str, ...]] = {
        "probs": (),
        "log-probs": ("--log-target",),
        "logits": ("--targets-are", "logits"),
    }
    if targets.likeness.space not in of_targets or (axis is None and targets.likeness.space != "logits"):
        return None
    described = of_targets[targets.likeness.space]
    if predictions.likeness.space == "logits":
        return ("--log-softmax", str(-1 if axis is None else axis), *described)
    if axis is None or predictions.likeness.axis != axis:
        return None
    return (*_of_normalized(predictions), *described)


def _label_options(predictions: _Array, labels: _Array) -> tuple[str, ...] | None:
    """For KL of predictions and classes along the axis that the labels lack."""
    if labels.traits.kind not in "iu" or labels.rank != _TARGETS:
        return None
    shape = predictions.shape
    lacking = [axis for axis in range(len(shape)) if shape[:axis] + shape[axis + 1 :] == labels.shape]
    of_logits = predictions.likeness.space == "logits"
    axis = lacking[-1] if of_logits else predictions.likeness.axis
    if axis not in lacking:
        return None
    ignored = _ignored(labels, shape[axis])
    if ignored is None:
        return None
    said = ("--log-softmax", str(axis)) if of_logits else _of_normalized(predictions)
    return (*said, "--targets-are", "labels", *ignored)


def _ignored(labels: _Array, classes: int) -> tuple[str, ...] | None:
    """What says which value stands for no class, if one does; None for what are no labels of so many classes.

    0 and 1 beside more than two classes are a mask. Only one above the last class is no value to be
    ignored: there classes were counted from 1.
    """
    found = labels.traits
    if found.lowest is None or found.highest is None:
        return None
    if labels.likeness.space == "binary" and classes > 2:
        return None
    if found.lowest >= 0 and found.highest < classes:
        return ()
    if found.second_lowest is None or found.second_highest is None:
        return None
    if found.lowest < 0 <= found.second_lowest and found.highest < classes:
        return ("--ignore-value", str(found.lowest))
    if found.lowest >= 0 and found.second_highest < classes < found.highest:
        return ("--ignore-value", str(found.highest))
    return None


def _binary_options(predictions: _Array, targets: _Array) -> tuple[str, ...] | None:
    """For BCE: of targets that are 0, 1 or between and normalised along no axis."""
    of_one = targets.likeness.axis is None and targets.likeness.space in ("probs", "binary")
    if not of_one or targets.traits.nan:
        return None
    if predictions.likeness.space == "logits":
        return ("--loss", "bce", "--predictions-are", "logits")
    if predictions.likeness == Likeness("probs") and not predictions.traits.nan:
        return ("--loss", "bce")
    return None


def _of_normalized(predictions: _Array) -> tuple[str, ...]:
    """What says that predictions are normalised already, and along which axis if not the last."""
    space = ("--predictions-are", "probs") if predictions.likeness.space == "probs" else ()
    return (*space, *_of_axis(predictions.likeness.axis, predictions))


def _of_axis(axis: int | None, array: _Array) -> tuple[str, ...]:
    return () if axis == len(array.shape) - 1 else ("--axis", str(axis))


def _unlike_an_option(address: str) -> str:
    return f"./{address}" if address.startswith("-") else address
