"""The options that say what is computed, for every command that computes pairs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kldiv_cli.cli import options

if TYPE_CHECKING:
    from kldiv_cli.sources import Inputs
    from kldiv_cli.spec import Spec

__all__ = ["COMPUTATION", "arguments_of", "given", "inputs_of", "spec_of", "takes_computation"]

_OPTIONS: Final[dict[str, tuple[Any, Any]]] = {
    "loss": (options.LossNames, None),
    "log_softmax": (options.LogSoftmax, None),
    "predictions_are": (options.PredictionsAre, None),
    "targets_are": (options.TargetsAre, None),
    "log_target": (options.LogTarget, False),
    "axis": (options.Axis, None),
    "weight": (options.Weight, None),
    "pos_weight": (options.PosWeight, None),
    "temperature": (options.Temperature, None),
    "zero_policy": (options.ZeroPolicyName, None),
    "broadcast": (options.Broadcast, False),
    "by_target": (options.ByTarget, False),
    "mask": (options.Mask, None),
    "ignore_value": (options.IgnoreValue, None),
    "trim_axis": (options.TrimAxis, False),
    "quantiles": (options.Quantiles, None),
    "worst": (options.WorstCount, 0),
    "blocks_of": (options.BlocksOf, None),
    "allow_external": (options.AllowExternal, False),
}
COMPUTATION: Final = tuple(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    for name, (annotation, default) in _OPTIONS.items()
)

Command = TypeVar("Command", bound=Callable[..., Any])


def takes_computation(command: Command) -> Command:
    """Put these options in the place of a command's ``**computation``."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    arguments = [p for p in own if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    others = [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
    together = signature.replace(parameters=(*arguments, *COMPUTATION, *others))
    command.__signature__ = together  # type: ignore[attr-defined]
    return command


def arguments_of(computation: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `evaluate` that the options stand for."""
    arguments = {name: value for name, value in computation.items() if value is not None}
    if "loss" in arguments:
        arguments["loss"] = tuple(name.value for name in arguments["loss"])
    return arguments | {"quantiles": options.parse_numbers("quantiles", computation["quantiles"])}


def spec_of(computation: Mapping[str, Any], *, top1: bool = False) -> Spec:
    """What the options ask to be computed."""
    from kldiv_cli import arguments

    return arguments.spec_of({**arguments_of(computation), "top1": top1})


def inputs_of(predictions: str, targets: str, computation: Mapping[str, Any]) -> Inputs:
    """Open the files that the options name."""
    from kldiv_cli.api import open_inputs
    from kldiv_cli.arguments import files_of

    allow_external = computation["allow_external"]
    return open_inputs(predictions, targets, **files_of(computation), allow_external=allow_external)


def given(computation: Mapping[str, Any]) -> list[str]:
    """The options that are not at their defaults."""
    return [name for name, (_, default) in _OPTIONS.items() if computation[name] != default]
