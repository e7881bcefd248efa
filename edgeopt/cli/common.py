"""Options that mean the same everywhere, and the one way results and progress reach the terminal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from edgeopt import progress, showing
from edgeopt.errors import ConfigError, EdgeoptError, suggestion
from edgeopt.plain import to_plain
from edgeopt.runtimes import ALIASES, RUNTIMES
from edgeopt.schemes import SCHEMES
from edgeopt.showing.safe import visible_lines
from edgeopt.tasks import TASKS, task
from edgeopt.tasks.losses import by_output

if TYPE_CHECKING:
    from edgeopt.data import Dataset
    from edgeopt.recipe import Recipe
    from edgeopt.runtimes import Delegate
    from edgeopt.targets import Assessment
    from edgeopt.vocabulary import Fidelity, MetricValue, RuntimeResult, TensorSpec

Function = TypeVar("Function", bound=Callable[..., Any])

# Tables in files and pipes are as wide as they need to be, within reason.
_PIPE_COLUMNS = 160

DATA_HELP = (
    "FILE.npz, a folder of images in class folders, FILE.csv, FILE.tfrecord, package.module:function, "
    "or a name: digits, mnist, cifar10 …"
)


class Named(click.Choice):
    """One of some names; the nearest is suggested for any other."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(list(names))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            near = suggestion(str(value), self.choices)
            known = "" if near.startswith(" Known") else f" Known: {', '.join(self.choices)}."
            self.fail(f"there is none called {value!r}.{near}{known}", param, ctx)
        return str(value)


def completed(names: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], Any]:
    """Returns what completes an option in a shell: one of `names`, or a file where none begins so."""

    def complete(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in names() if name.startswith(begun)]
        return found or [CompletionItem(begun, type="file")]

    return complete


def _targets() -> Iterable[str]:
    from edgeopt.targets import TARGETS

    return TARGETS


def _sources() -> Iterable[str]:
    from edgeopt.data import SOURCES

    return (name for source in SOURCES.values() for name in source.names)


def options(*chosen: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Returns a decorator that adds `chosen` options in the order given."""

    def decorate(function: Function) -> Function:
        for option in reversed(chosen):
            function = option(function)
        return function

    return decorate


def _tasks(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    return {output: task(name).name for output, name in by_output(words, "--task").items()}


def _verbose(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    # Read where frameworks are imported and worker processes are started.
    if wanted:
        os.environ["EDGEOPT_VERBOSE"] = "1"


model_argument = click.argument("model", type=click.Path(path_type=Path))
output_option = click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to write.")
force_option = click.option("--force", is_flag=True, help="Overwrite what is there.")
scoring_options = options(
    click.option(
        "--metric",
        help="top1, f1, auc, mean-iou, map, recall@1, mse, r2, perplexity … or package.module:function; chosen from "
        "model and labels if not given.",
    ),
    click.option(
        "--task",
        "tasks",
        multiple=True,
        callback=_tasks,
        metavar="[OUTPUT=]NAME",
        help=f"What the model is for: {', '.join(TASKS)}; found from model and labels if not given. Repeatable, one an "
        "output.",
    ),
    click.option("--output-name", metavar="NAME", help="Which output is scored, where the model has several."),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
quiet_option = options(
    click.option("--quiet", is_flag=True, help="No progress."),
    click.option(
        "--verbose", is_flag=True, expose_value=False, callback=_verbose, help="Show what the frameworks log."
    ),
)
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
threads_option = click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Of each interpreter."
)
scheme_option = click.option(
    "--scheme", type=Named(SCHEMES), default="float32", show_default=True, help="How numbers are stored."
)
keep_8bit_option = click.option(
    "--keep-8bit",
    multiple=True,
    metavar="auto|none|LAYER",
    help="Repeatable. Layers that keep int8 weights in schemes below eight bits: auto (first, last, depthwise and "
    "small ones), none, or names and globs; auto, or as the recipe says, if not given.",
)

model_options = options(
    click.option(
        "--custom-objects",
        type=click.Path(path_type=Path),
        help="A Python file that defines the model's own layers; it is run.",
    ),
    click.option("--trust", is_flag=True, help="Let code inside the model file run (Lambda layers)."),
)

code_option = click.option(
    "--trust",
    is_flag=True,
    help="Let the code of compiled files run (.so) that edgeopt did not make here; they are remembered.",
)

shape_option = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="[NAME=]N,N,…",
    help="Fixes sizes that the model leaves free, the batch first: 1,64,64,3. As the data are if not given. "
    "Repeatable, one an input.",
)

sizes_option = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="[NAME=]N,N,…",
    help="Fixes sizes that the model leaves free, the batch first: 1,64,64,3. As the data are if not given. "
    "Repeatable, one an input; said twice of an input, the file gets a signature for each size.",
)

signature_option = click.option(
    "--signature", metavar="NAME", help="Of a .tflite that has several, as size_64x64; its main graph's if not given."
)

runtime_option = click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    shell_complete=completed(lambda: RUNTIMES),
    metavar="NAME[==VERSION]",
    help=f"Repeatable. One of {', '.join([*RUNTIMES, *ALIASES])}.",
)

target_option = click.option(
    "--target",
    metavar="NAME|FILE.yaml",
    shell_complete=completed(_targets),
    help="The device it is meant for: one of `edgeopt targets`, or one's own.",
)

one_runtime_option = click.option(
    "--runtime",
    shell_complete=completed(lambda: RUNTIMES),
    metavar="NAME[==VERSION]",
    help=f"One of {', '.join([*RUNTIMES, *ALIASES])}; the main one of the file's format if not given.",
)

delegate_options = options(
    click.option("--delegate", type=click.Path(path_type=Path), help="An external delegate, a shared library."),
    click.option(
        "--delegate-option",
        "delegate_settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Repeatable. One of the delegate's own options.",
    ),
)

preprocessing_options = options(
    click.option("--resize", metavar="HxW", help="Resize images to this height and width."),
    click.option("--scale", metavar="FACTOR", help="Multiply every value by this, e.g. 1/255."),
    click.option("--mean", metavar="M[,M…]", help="Then subtract this, one number or one per channel."),
    click.option("--std", metavar="S[,S…]", help="Then divide by this."),
)


def tokenizer_option(*, required: bool = False) -> Callable[[Function], Function]:
    """Returns the option that names a tokenizer."""
    return click.option(
        "--tokenizer", required=required, metavar="FILE.json|bytes", help="What makes tokens of a text: tokenizer.json."
    )


def data_options(*, required: bool) -> Callable[[Function], Function]:
    """Returns the options that name data, with their preprocessing."""
    return options(
        click.option("--data", required=required, metavar="DATA", shell_complete=completed(_sources), help=DATA_HELP),
        click.option("--train-data", metavar="DATA", help="Training samples, where --data is for validation alone."),
        click.option("--calibration-data", metavar="DATA", help="Samples that set the ranges of integer schemes."),
        click.option(
            "--calibration-samples", type=click.IntRange(1), default=200, show_default=True, help="How many of them."
        ),
        click.option(
            "--labels",
            type=Named(["auto", "classes", "values", "inputs", "none"]),
            default="auto",
            show_default=True,
            help="What labels are: class numbers, values to predict, or the inputs themselves (autoencoders).",
        ),
        click.option("--labels-column", metavar="NAME", help="The column of a CSV file or TFRecord that holds them."),
        click.option("--color", type=Named(["rgb", "grayscale"]), help="How image files are read."),
        tokenizer_option(),
        click.option("--context", type=click.IntRange(1), default=128, show_default=True, help="Tokens a sample."),
        preprocessing_options,
    )


def allow_code(files: Iterable[Path]) -> None:
    """Remembers that the code of compiled files may run."""
    from edgeopt import formats

    for file in files:
        formats.trust_code(file)


def conversion_begins() -> None:
    """Has the process that will convert import TensorFlow while this one reads the data."""
    from edgeopt import workers

    workers.begin("conversion", "edgeopt.conversion.isolation:imported")


def recipe_option(help_text: str) -> Callable[[Function], Function]:
    """Returns the option that names a recipe."""
    return click.option("--recipe", metavar="RECIPE", shell_complete=completed(_recipes), help=help_text)


def _recipes() -> Iterable[str]:
    from edgeopt.recipe import packaged

    return packaged()


def budget_options(*, latency: str) -> Callable[[Function], Function]:
    """Returns the options that bound what a file may lose and take; `latency` says whose it is."""
    return options(
        click.option("--max-drop", type=float, help="Loss allowed against float32: points for shares, else per cent."),
        click.option("--max-size", metavar="SIZE", help="Of the file: 64KB, 1.5MB, 200000 …"),
        click.option("--max-latency", metavar="TIME", help=f"{latency}: 5ms, 800us …"),
        click.option("--max-ram", metavar="SIZE", help="Of the target, for the model alone: 64KB …"),
    )


def data_or_recipe_s(recipe: Recipe | None, *, seed: int, data: str | None, **settings: Any) -> Dataset:
    """Returns the data that the data options describe, or else those that a recipe names.

    Raises:
        ConfigError: neither names any.
    """
    named = recipe.data if recipe is not None and data is None else data
    found = load_data(data=named, seed=seed, **settings)
    if found is None:
        raise ConfigError("Expected --data, or a recipe that names data, got neither. Try --data FILE.npz.")
    return found


def load_data(
    *,
    data: str | None,
    train_data: str | None,
    calibration_data: str | None,
    resize: str | None,
    scale: str | None,
    mean: str | None,
    std: str | None,
    **settings: Any,
) -> Dataset | None:
    """Returns the Dataset that the data options describe, or None where none of them was given."""
    if data is None and calibration_data is None and train_data is None:
        return None
    from edgeopt import data as datasets

    return datasets.load(
        data,
        train=train_data,
        calibration=calibration_data,
        preprocessing=datasets.parse_preprocessing(resize=resize, scale=scale, mean=mean, std=std),
        **settings,
    )


def required_data(**options: Any) -> Dataset:
    """Returns the Dataset of a command whose --data click has made sure of."""
    dataset = load_data(**options)
    assert dataset is not None
    return dataset


def delegate_from(library: Path | None, settings: tuple[str, ...]) -> Delegate | None:
    """Returns the delegate that `--delegate` and its options describe."""
    if library is None:
        if settings:
            raise ConfigError("Expected --delegate FILE.so with --delegate-option, got only the option.")
        return None
    from edgeopt.runtimes import Delegate

    pairs = [setting.partition("=") for setting in settings]
    for key, separator, _ in pairs:
        if not separator or not key:
            raise ConfigError(f"Expected --delegate-option KEY=VALUE, got {key!r}.")
    return Delegate(library, {key: value for key, _, value in pairs})


@contextlib.contextmanager
def spoken_as_options() -> Iterator[None]:
    """Lets the errors of the block speak of options, where these are what was typed, and not of a recipe's keys."""
    try:
        yield
    except EdgeoptError as error:
        error.args = (error.on_command_line,)
        raise


def print_json(result: Any) -> None:
    """Prints one JSON object to standard output."""
    try:
        click.echo(json.dumps(to_plain(result), indent=2, ensure_ascii=False))
    except BrokenPipeError:
        _reader_left()


def console(*, stderr: bool = False) -> Any:
    """Returns a rich console: the words of files and models are plain text, also where the output is no terminal."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            _reader_left()

        def render_str(self, text: str, **options: Any) -> Any:
            # Names from files that anyone may have written move no cursor and set no colour.
            return super().render_str(visible_lines(text), **options)

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else _PIPE_COLUMNS
    return Plain(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def _reader_left() -> NoReturn:
    """Ends as a program does that writes to `head`, which has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def counted(count: int, noun: str) -> str:
    """Returns "1 thread" or "1,797 samples"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def progress_shown(*, quiet: bool) -> contextlib.AbstractContextManager[None]:
    """Shows the news of everything inside the block: one live line on a terminal, seldom a plain one in a pipe."""
    return progress.listening(None) if quiet else showing.shown(console(stderr=True))


def describe_spec(spec: TensorSpec) -> str:
    """Returns name, dtype, shape and quantization of a model's input or output in one line."""
    shape = "x".join("?" if size is None else str(size) for size in spec.shape)
    line = f"{spec.name}: {spec.dtype}[{shape}]"
    if spec.quantization is not None and len(spec.quantization.scales) == 1:
        line += f", real = {spec.quantization.scales[0]:.9g} * (q - {spec.quantization.zero_points[0]})"
    return line


def describe_metric(metric: MetricValue) -> str:
    """Returns a metric with its interval in one line."""
    form = ".2%" if metric.is_share else ".5g"
    interval = f"[{metric.low:{form}}, {metric.high:{form}}]"
    return f"{metric.name} {metric.value:{form}} {interval} on {counted(metric.samples, 'sample')}"


def describe_assessment(found: Assessment) -> str:
    """Returns in words what a file costs on a target."""
    room, time = found.fit, found.estimate
    words = f"{found.target}: {room.flash_bytes:,} bytes of flash, {room.ram_bytes:,} of RAM ({found.memory_how})"
    if time.latency_ms is not None:
        words += f", {time.latency_ms:.3g} ms ({time.how})"
    if (told := found.compiled) is not None:
        words += f", {told.cycles:,} cycles, {told.inferences_per_second:,.0f} inferences a second, "
        words += f"{counted(told.accelerated_operators, 'operator')} on the NPU and {told.cpu_operators} on the CPU"
    return words


def print_problems(console: Any, found: Mapping[str, Fidelity | None]) -> None:
    """Prints what files are shown to have lost against the float model, each loss once, with what mends it.

    Args:
        console: see `console`.
        found: the name of a variant, "" for the only one, to its fidelity.
    """
    from edgeopt.report.fidelity import problem

    names: dict[str, list[str]] = {}
    for name, one in found.items():
        for text in [] if one is None else [problem(told, one) for told in one.problems]:
            names.setdefault(text, []).append(name)
    for text, of in names.items():
        listed = ", ".join(filter(None, of))
        console.print(f"PROBLEM{f' of {listed}' if listed else ''}: {text}", style="bold red")


def describe_runtime(row: RuntimeResult) -> str:
    """Returns in words what a file did on a runtime."""
    if not row.loads:
        return f"{row.status}: {row.reason}"
    words = "runs"
    if row.delegated_share:
        words += f", {row.delegated_share:.0%} of its operators delegated"
        words += f" (not {', '.join(row.undelegated)})" if row.undelegated else ""
    if row.matches_reference is not None:
        words += ", same results" if row.matches_reference else ", DIFFERENT results"
        words += f" (within {row.max_difference:.1e})"
    return f"{words}: {row.reason}" if row.reason else words
