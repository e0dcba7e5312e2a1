"""Every option, once: its name, type, help, and how its text becomes a value."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final, Literal

import typer

from kldiv_cli.errors import UsageError

__all__ = [
    "Allow",
    "AllowExternal",
    "AllowUnmatched",
    "Axis",
    "BaselineArgument",
    "BaselineFile",
    "BlocksOf",
    "Broadcast",
    "ByTarget",
    "Candidate",
    "CandidateAre",
    "ClassAxis",
    "Debug",
    "Distributions",
    "DistributionsOfPairs",
    "DryRun",
    "Exact",
    "FailFast",
    "Files",
    "First",
    "Floor",
    "Force",
    "ForceReports",
    "FormatName",
    "Full",
    "FullBatch",
    "FullReport",
    "Github",
    "GroupBy",
    "IgnoreValue",
    "JournalFile",
    "Json",
    "Junit",
    "Labels",
    "Limits",
    "LogSoftmax",
    "LogTarget",
    "LossName",
    "LossNames",
    "MapSlice",
    "MarkdownFile",
    "Mask",
    "MaskOfDistributions",
    "Memory",
    "Output",
    "OutputDtype",
    "OutputOfPairs",
    "PairName",
    "PairOrSuite",
    "PairPattern",
    "PosWeight",
    "Precision",
    "Predictions",
    "PredictionsAre",
    "PredictionsOfPairs",
    "ProgressBar",
    "Quantiles",
    "Reduce",
    "ReductionName",
    "ReductionOfPairs",
    "Reference",
    "ReferenceAre",
    "ResultsFile",
    "Runs",
    "Second",
    "Sigmas",
    "SizeAverage",
    "StatisticNames",
    "Strict",
    "Targets",
    "TargetsAre",
    "TargetsOfPair",
    "TargetsOfPairs",
    "Temperature",
    "Top1",
    "TopK",
    "TrimAxis",
    "Weight",
    "Workers",
    "WorstCount",
    "Yes",
    "ZeroPolicyName",
    "parse_numbers",
]

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes from ``64MiB``, ``64M`` (the same) or ``67108864``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(text) > 99:
        raise typer.BadParameter(f"{text!r}: expected a size like 64MiB")
    return int(float(match["number"]) * _UNITS[match["unit"].lower()])


def parse_numbers(option: str, text: str | None) -> list[float]:
    """Numbers between commas, none of nothing; Typer itself would parse each item of a list."""
    try:
        return [float(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        raise UsageError(f"{option} {text!r}: expected numbers such as 0.25,0.75") from None


# What is compared

Predictions = Annotated[
    str,
    typer.Argument(
        metavar="PREDICTIONS",
        help="Model outputs: FILE, FILE::DATASET or FILE::DATASET[0:1000]; FILE may be an s3://, gs:// or "
        "https:// address.",
        show_default=False,
    ),
]
Targets = Annotated[
    str,
    typer.Argument(metavar="TARGETS", help="What they should be, likewise.", show_default=False),
]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="REFERENCE",
        help="The outputs of the model before: FILE, FILE::DATASET or FILE::DATASET[0:1000].",
        show_default=False,
    ),
]
Candidate = Annotated[
    str,
    typer.Argument(metavar="CANDIDATE", help="Those of the model after, likewise.", show_default=False),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Class indices, of the shape without the axis: adds cross-entropy, perplexity, accuracy.",
    ),
]
AllowExternal = Annotated[
    bool,
    typer.Option("--allow-external", help="Let HDF5 follow links and storage into other files."),
]

# What is computed


class LossName(StrEnum):
    """An Enum because Typer takes no list of literals."""

    KL = "kl"
    BCE = "bce"


LossNames = Annotated[
    list[LossName],
    typer.Option(
        "--loss",
        help="KL(targets ‖ predictions) or binary cross-entropy; give both for both in one pass.  "
        "[default: kl]",
        show_default=False,
    ),
]
LogSoftmax = Annotated[
    int | None,
    typer.Option(
        "--log-softmax",
        metavar="AXIS",
        help="Predictions are logits: take log-softmax over AXIS first.",
    ),
]
PredictionsAre = Annotated[
    Literal["log-probs", "probs", "logits"] | None,
    typer.Option(
        "--predictions-are",
        help="What the predictions are. Default: log-probs for kl, probs for bce. "
        "Logits: for kl their log-softmax is taken, bce is BCE with logits.",
    ),
]
TargetsAre = Annotated[
    Literal["probs", "log-probs", "logits", "labels"] | None,
    typer.Option(
        "--targets-are",
        help="What the targets are. Default: probs. Labels are class indices along the axis.",
    ),
]
LogTarget = Annotated[
    bool, typer.Option("--log-target", help="Targets are log-probs, by PyTorch's name for it.")
]
Axis = Annotated[
    int | None,
    typer.Option("--axis", metavar="AXIS", help="Distribution axis.  [default: -1]", show_default=False),
]
ReferenceAre = Annotated[
    Literal["logits", "log-probs", "probs"],
    typer.Option("--reference-are", help="What the reference's outputs are."),
]
CandidateAre = Annotated[
    Literal["logits", "log-probs", "probs"],
    typer.Option("--candidate-are", help="What the candidate's outputs are."),
]
ClassAxis = Annotated[int, typer.Option("--axis", metavar="AXIS", help="The axis of classes.")]
TopK = Annotated[
    int,
    typer.Option(
        "--top-k",
        metavar="K",
        min=1,
        help="Also count how often the reference's top class is among the candidate's K.",
    ),
]
Weight = Annotated[
    str | None,
    typer.Option("--weight", metavar="FILE", help="Factors for bce, broadcast to the predictions."),
]
PosWeight = Annotated[
    str | None,
    typer.Option(
        "--pos-weight",
        metavar="FILE",
        help="Factors for the positive part of bce with logits, broadcast.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        metavar="T",
        help="Divide logits by this. The loss is not multiplied by its square.",
    ),
]
Mask = Annotated[
    str | None,
    typer.Option(
        "--mask",
        metavar="FILE",
        help="1 (or true) where something counts, else 0: of the shape without the axis, or of one that "
        "broadcasts to it all. The divisors follow.",
    ),
]
MaskOfDistributions = Annotated[
    str | None,
    typer.Option(
        "--mask",
        metavar="FILE",
        help="1 (or true) where something counts, else 0: of the shape without the axis. The divisors "
        "follow.",
    ),
]
IgnoreValue = Annotated[
    float | None,
    typer.Option(
        "--ignore-value",
        metavar="X",
        help="Leave out where the label, or the target, has this value, such as -100.",
        show_default=False,
    ),
]
TrimAxis = Annotated[
    bool,
    typer.Option(
        "--trim-axis",
        help="Cut the longer of both along the axis: for padded vocabularies.",
    ),
]
ZeroPolicyName = Annotated[
    Literal["limit", "torch"],
    typer.Option(
        "--zero-policy",
        help="What 0 times infinity is: 0, its limit, or nan as in PyTorch.  [default: limit]",
        show_default=False,
    ),
]
Broadcast = Annotated[
    bool,
    typer.Option("--broadcast", help="Let predictions and targets of different shapes broadcast."),
]
ByTarget = Annotated[
    bool,
    typer.Option("--by-target", help="Count and mean loss where the target is 1, 0 and between."),
]

# What is shown

ReductionName = Annotated[
    Literal["none", "sum", "mean", "batchmean", "distmean"] | None,
    typer.Option(
        "--reduction",
        help="Show this one only; none is the per-element map. "
        "distmean: sum over the axis, mean over the rest. Default: all scalars side by side.",
    ),
]
ReductionOfPairs = Annotated[
    Literal["none", "sum", "mean", "batchmean", "distmean"] | None,
    typer.Option(
        "--reduction",
        help="Show this one only; not none, for maps are written by --output. "
        "distmean: sum over the axis, mean over the rest. Default: all scalars side by side.",
    ),
]
SizeAverage = Annotated[
    bool | None,
    typer.Option(
        "--size-average/--no-size-average",
        help="PyTorch 0.4's flag; wins over --reduction.",
        show_default=False,
    ),
]
Reduce = Annotated[
    bool | None,
    typer.Option(
        "--reduce/--no-reduce",
        help="PyTorch 0.4's flag; wins over --reduction.",
        show_default=False,
    ),
]
MapSlice = Annotated[
    str | None,
    typer.Option(
        "--map-slice",
        metavar="SLICE",
        help="Show this part of the map, such as '0,:,3:5' (with --reduction none).",
    ),
]
Full = Annotated[
    bool, typer.Option("--full", help="Show all of the map rather than its edges (with --reduction none).")
]
FormatName = Annotated[
    Literal["auto", "table", "plain", "json", "jsonl", "csv", "md"],
    typer.Option("--format", help="auto: a table on a terminal, plain in a pipe."),
]
Json = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
Precision = Annotated[
    int | None,
    typer.Option(
        "--precision",
        metavar="DIGITS",
        min=1,
        max=17,
        help="Significant digits to show. Default: 6 in tables, else all.",
    ),
]

Quantiles = Annotated[
    str | None,
    typer.Option(
        "--quantiles",
        metavar="Q,...",
        help="More quantiles for the statistics, such as 0.25,0.75.",
        show_default=False,
    ),
]
WorstCount = Annotated[
    int,
    typer.Option(
        "--worst",
        metavar="N",
        min=0,
        help="List the N worst, of the largest loss.",
        show_default=False,
    ),
]
BlocksOf = Annotated[
    int | None,
    typer.Option(
        "--blocks-of",
        metavar="K",
        min=2,
        help="K consecutive losses depend on each other (tokens of a text): a second standard error "
        "is taken from the means of such blocks.",
        show_default=False,
    ),
]
Top1 = Annotated[
    bool, typer.Option("--top1", help="Count how often the top class is the target's, or the label (kl).")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if there is a warning.")]

# What is written

Output = Annotated[
    str | None,
    typer.Option("--output", metavar="FILE", help="Write the per-element map to map.npy or map.h5::/name."),
]
OutputDtype = Annotated[
    Literal["float16", "float32", "float64"] | None,
    typer.Option("--output-dtype", help="Dtype of the map written. Default: float64."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace the output file, with all that is in it, if it exists.")
]

Distributions = Annotated[
    str | None,
    typer.Option(
        "--distributions",
        metavar="FILE",
        help="Write the loss of each distribution to file.npy or file.h5::/name (kl).",
    ),
]

# What it is held to

PairOrSuite = Annotated[
    str | None,
    typer.Argument(
        metavar="PREDICTIONS|SUITE",
        help="Model outputs: FILE, FILE::DATASET or FILE::DATASET[0:1000]; or alone, a suite of pairs in "
        "TOML. Default: pyproject.toml, for its [tool.kldiv].",
        show_default=False,
    ),
]
TargetsOfPair = Annotated[
    str | None,
    typer.Argument(metavar="[TARGETS]", help="What they should be, likewise.", show_default=False),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="LIMIT",
        help="What a statistic is held to, such as 'p99 < 0.05' or 'distmean < baseline * 1.1'; "
        "may be given several times.",
        show_default=False,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="FINDING",
        help="Let a finding pass, by its id, such as identical; may be given several times.",
        show_default=False,
    ),
]
BaselineFile = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        metavar="FILE",
        help="Numbers that were accepted, from kldiv baseline record. Default: what the suite says.",
        show_default=False,
    ),
]
PairName = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="What the pair is called in the baseline and in reports. Default: the name of the file.",
        show_default=False,
    ),
]
PairPattern = Annotated[
    str | None,
    typer.Option(
        "--pair",
        metavar="PATTERN",
        help="Only the suite's pairs of such names: conv1, or 'conv*'.",
        show_default=False,
    ),
]
Junit = Annotated[
    str | None,
    typer.Option("--junit", metavar="FILE", help="Also write JUnit XML, a test case a pair."),
]
MarkdownFile = Annotated[
    str | None,
    typer.Option("--markdown", metavar="FILE", help="Also write Markdown, for a pull request."),
]
Github = Annotated[
    bool,
    typer.Option(
        "--github",
        help="Also annotate the GitHub Actions run, and add to its step summary.",
    ),
]
FullReport = Annotated[bool, typer.Option("--full", help="Show all pairs, not only the worst.")]
ForceReports = Annotated[
    bool, typer.Option("--force", help="Replace what is no report where --junit or --markdown write.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Update without asking.")]
Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Baseline files, each recorded from another run of the same thing.",
        show_default=False,
    ),
]
BaselineArgument = Annotated[str, typer.Argument(metavar="FILE", help="A baseline file.", show_default=False)]
Sigmas = Annotated[
    float,
    typer.Option(
        "--sigmas",
        metavar="K",
        help="Standard deviations between the mean of the runs and the limit.",
    ),
]
Floor = Annotated[
    float,
    typer.Option(
        "--floor",
        metavar="SHARE",
        help="At least this share of the mean is left as room, however equal the runs are.",
    ),
]
StatisticNames = Annotated[
    list[str] | None,
    typer.Option(
        "--statistic",
        metavar="NAME",
        help="What to limit; may be given several times. Default: distmean (bce: mean), p99 and top1.",
        show_default=False,
    ),
]

# How it runs

Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Threads. Default: one a processor, as far as the memory goes. Changes no bit of the result.",
        show_default=False,
    ),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=parse_size,
        help="Memory for blocks in all, such as 64MiB; with --scheduler for each thread of the cluster.  "
        "[default: 64MiB; 32MiB]",
        show_default=False,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Run on the Dask cluster of this scheduler: HOST:PORT, or the file that it wrote. Its workers "
        "must see the files at the same paths. Changes no bit of the result.",
        show_default=False,
    ),
]
ProgressBar = Annotated[
    bool | None,
    typer.Option(
        "--progress/--no-progress",
        help="Progress bar on stderr, if that is a terminal. Default: for large files.",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

# What is inspected

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="Files, or parts of them: FILE::DATASET, FILE::GROUP or FILE::DATASET[0:1000].",
        show_default=False,
    ),
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Read all of every array rather than a sample of the large ones.")
]

# Many pairs

First = Annotated[
    str | None,
    typer.Argument(
        metavar="[FIRST]",
        help="A suite (.toml), a table of pairs (.csv, .jsonl, or - for stdin); or a directory, a file or a "
        "quoted pattern of predictions. What is at a URL is not listed: name each object in a table.",
        show_default=False,
    ),
]
Second = Annotated[
    str | None,
    typer.Argument(
        metavar="[SECOND]",
        help="The directory or file of targets. After a pattern {stem} is the name of each match, and {path} "
        "its path below the pattern's directory, both without the ending; in --mask and weights too, and "
        "there for two directories as well.",
        show_default=False,
    ),
]
PredictionsOfPairs = Annotated[
    str | None,
    typer.Option(
        "--predictions",
        metavar="PATTERN",
        help="Files of predictions, such as 'out/*.npy'; with --group-by the dataset in each group.",
        show_default=False,
    ),
]
TargetsOfPairs = Annotated[
    str | None,
    typer.Option(
        "--targets",
        metavar="ADDRESS",
        help="Their targets, such as 'ref/{stem}.npy'; with --group-by the dataset in each group.",
        show_default=False,
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="PATTERN",
        help="Groups, or datasets, of one HDF5 file or of two, such as '/layer*'. --mask and weights may "
        "name a dataset in each group, or have {group} in an address.",
        show_default=False,
    ),
]
AllowUnmatched = Annotated[
    bool, typer.Option("--allow-unmatched", help="Leave out what has no partner, and say so.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the pairs, and compute nothing.")]
FullBatch = Annotated[bool, typer.Option("--full", help="List all pairs in a table, however many there are.")]
ResultsFile = Annotated[
    str | None,
    typer.Option(
        "--results",
        metavar="FILE",
        help="Also write all results to a .jsonl, .csv or .parquet file, which appears when the run ends.",
        show_default=False,
    ),
]
JournalFile = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="FILE",
        help="Write each pair down as it is done; run again, it does what is missing, changed or failed.",
        show_default=False,
    ),
]
FailFast = Annotated[
    bool,
    typer.Option("--fail-fast", help="Stop at the first pair that fails; what was done until then is told."),
]
OutputOfPairs = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Write each pair's map, to a name with {pair} in it: 'maps/{pair}.npy'.",
    ),
]
DistributionsOfPairs = Annotated[
    str | None,
    typer.Option(
        "--distributions",
        metavar="FILE",
        help="Write each pair's losses of distributions, likewise.",
    ),
]
WorkersOfPairs = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Processes. Default: one a processor, as far as the memory goes. Changes no bit of the result.",
        show_default=False,
    ),
]
ProgressOfPairs = Annotated[
    bool | None,
    typer.Option(
        "--progress/--no-progress",
        help="Show on stderr what is going on, if that is a terminal. Default: unless results appear there.",
        show_default=False,
    ),
]
ForceOfPairs = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace files of maps, losses and results that exist; those of the same --journal are anyway.",
    ),
]
