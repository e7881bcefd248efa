"""The code goes in, and finished runs; the references, tables, printed outputs and pictures of docs/ come out.

    python docs/generate.py                    # what is derived from the code; `make docs` runs it
    python docs/generate.py --run DATA         # runs every command that a page shows with its output, then --results
    python docs/generate.py --results DIR …    # tables and pictures of docs/results.md, from folders with a report.json

A block ```console holds commands (`$ …`) and what they printed. `--run` runs them in folders of build/docs, on the
models of models/ and the `.npz` files of the folder DATA, and writes down what they print now; with pages named after
it (`--run DATA -- docs/data.md`), only theirs.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import os
import pty
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import click

from edgeopt.advising import RULES
from edgeopt.advising import SOURCES as SOURCES_CITED
from edgeopt.choices import Key, keys
from edgeopt.cli import COMMANDS, cli
from edgeopt.cli.targets import size_in_words
from edgeopt.data import SOURCES
from edgeopt.data.labels import KINDS
from edgeopt.errors import EdgeoptError, in_keys
from edgeopt.files import atomic_write
from edgeopt.machine import Machine
from edgeopt.plain import from_plain, to_plain
from edgeopt.recipe import BudgetKeys, Recipe, packaged
from edgeopt.report import Report, faster, headline, read_report, smaller
from edgeopt.report.schema import reference_page
from edgeopt.report.words import ABSENT, Numbers, ratio, significance, whole
from edgeopt.runtimes import ALIASES, RUNTIMES
from edgeopt.schemes import SCHEMES
from edgeopt.steps import DEFAULTS, TrainedStep, Training
from edgeopt.targets import TARGETS, Target, how
from edgeopt.techniques import TECHNIQUES
from edgeopt.vocabulary import Property, Variant

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "edgeopt"
WORKSPACE = ROOT / "build" / "docs"
# What is written by hand, but for blocks.
PAGES = (
    "README.md",
    "docs/getting-started.md",
    "docs/results.md",
    "docs/data.md",
    "docs/loading.md",
    "docs/schemes.md",
    "docs/compression.md",
    "docs/repair.md",
    "docs/choosing.md",
    "docs/language-models.md",
    "docs/streaming.md",
    "docs/tasks.md",
    "docs/recipes.md",
    "docs/budgets.md",
    "docs/tune.md",
    "docs/runtimes.md",
    "docs/android.md",
    "docs/web.md",
    "docs/targets.md",
    "docs/microcontrollers.md",
    "docs/evaluate-benchmark-compare.md",
    "docs/report.md",
    "docs/python.md",
    "docs/make.md",
    "docs/troubleshooting.md",
    "docs/architecture.md",
    "CONTRIBUTING.md",
)
# The runs that docs/results.md is made of; the first is the demo's.
RUNS = {
    "demo": "models/digits.keras --data digits",
    "spoken": "models/ds_cnn_fsdd.keras --data fsdd_logmel.npz",
    "photos": "models/resnet8_cifar.keras --data cifar10_jpeg_12k.npz",
}
# What the commands of the pages expect in the folder they are called in.
LINKED = ("models", "calibration_data", "tests", "edgeopt")
COLUMNS = 100
PICTURE_WIDTH, PICTURE_HEIGHT, PICTURE_COLOURS = 1200, 1625, 48
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def derived() -> dict[Path, str]:
    """Returns every page that the code decides, wholly or in blocks, with its text as it should be."""
    pages = {
        DOCS / "reference" / "commands.md": commands_page(),
        DOCS / "recipe-keys.md": recipe_keys_page(),
        DOCS / "report-schema.md": reference_page(),
    }
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        for block, make in BLOCKS.items():
            text = with_block(text, "generated", block, make) if _marker("generated", block) in text else text
        pages[ROOT / name] = text
    return pages


# --- tables from the code --------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Returns the reference of the command line."""
    context = click.Context(cli, info_name="edgeopt")
    parts = [
        "# Commands",
        "<!-- Written by docs/generate.py from edgeopt/cli: edit the help texts there. -->",
        "`edgeopt COMMAND --help` says the same. Exit status: see [errors](../troubleshooting.md#exit-status).",
        table(("command", "does"), ([f"[`{name}`](#edgeopt-{name})", _summary(name)] for name in COMMANDS)),
    ]
    for name in COMMANDS:
        parts += _command_parts(_command(name), click.Context(_command(name), context, name), "##")
    return "\n\n".join(parts) + "\n"


def _command_parts(command: click.Command, context: click.Context, heading: str) -> Iterator[str]:
    """Yields what is said about a command, and then about the commands below it."""
    prose, example = _help(command)
    yield from (f"{heading} {context.command_path}", prose, f"```sh\n{example}\n```")
    yield f"Usage: `{' '.join([context.command_path, *command.collect_usage_pieces(context)])}`"
    rows = [_option(option, command) for option in command.params if isinstance(option, click.Option)]
    if rows:
        yield table(("option", "default", "meaning"), rows)
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from _command_parts(below, click.Context(below, context, name), f"{heading}#")


def recipe_keys_page() -> str:
    """Returns the reference of recipe keys."""
    parts = [
        "# Recipe keys",
        "<!-- Written by docs/generate.py from the dataclasses of edgeopt/recipe.py, steps.py and techniques/. -->",
        "How to write one: [recipes](recipes.md). A key that is not listed here is refused. A key of `training` may\n"
        "stand in any step as well: the step has the last word, then the recipe, then what a technique asks for.",
        "## Of a recipe",
        _keys_table(keys(Recipe)),
        "## budgets",
        _keys_table(keys(BudgetKeys)),
        "## training",
        _keys_table(keys(Training), vars(DEFAULTS)),
    ]
    shared = {key.name for key in keys(Training)}
    for row in TECHNIQUES.values():
        own = [key for key in keys(row.step) if key.name not in shared]
        parts += [f"## {row.name}", row.summary, _keys_table(own)]
        if issubclass(row.step, TrainedStep):
            asked = ", ".join(f"`{name}: {value}`" for name, value in row.step.defaults.said().items())
            parts.append(f"And the keys of [training](#training){f', by default {asked}' * bool(asked)}.")
    return "\n\n".join(parts) + "\n"


def _keys_table(found: Iterable[Key], defaults: Mapping[str, object] | None = None) -> str:
    rows = []
    for key in found:
        default = key.default if defaults is None else defaults[key.name]
        written = "" if default is None or default == () or dataclasses.is_dataclass(default) else to_plain(default)
        shown = f"[{', '.join(written)}]" if isinstance(written, list) else str(written).lower().replace("{}", "")
        rows.append([f"`{key.name}`", f"`{shown}`" if shown else "", _allowed(key), in_keys(key.option.help)])
    return table(("key", "default", "value", "meaning"), rows)


def _allowed(key: Key) -> str:
    """Returns in words what may stand behind a key."""
    kinds = {int: "whole number", float: "number", str: "text", bool: "true or false", tuple: "list"}
    kind = typing.get_origin(key.type) or key.type
    words = kinds.get(kind, "keys and values")
    if key.option.choices:
        words = f"{'list of ' * (kind is tuple)}{', '.join(f'`{choice}`' for choice in key.option.choices)}"
    elif words == "keys and values" and key.option.metavar:
        words = f"`{{{key.option.metavar.replace('=', ': ')}}}`"
    elif key.option.metavar:
        words = f"{'list of ' * (kind is tuple)}`{key.option.metavar}`"
    return f"{words}, {key.option.limits}" if key.option.limits else words


def recipes_table() -> str:
    """Returns the recipes that ship with edgeopt."""
    rows = (
        [f"[`{name}`](../edgeopt/recipes/{name}.yaml)", ", ".join(step.technique for step in r.steps), r.summary]
        for name, r in packaged().items()
    )
    return table(("recipe", "steps", "for"), rows)


def techniques_table() -> str:
    """Returns the techniques in the order in which they combine."""
    rows = (
        [f"[`{row.name}`](recipe-keys.md#{row.name})", row.summary, _listed(row.ensures), _listed(row.keeps)]
        for row in TECHNIQUES.values()
    )
    return table(("technique", "does", "the model then is", "keeps what is"), rows)


def _listed(properties: Iterable[Property]) -> str:
    return ", ".join(sorted(prop.value for prop in properties))


def schemes_table() -> str:
    """Returns the schemes: what is stored, what computes, what goes in."""
    rows = (
        [f"`{s.name}`", s.weights, s.activations, s.inputs, _yes(s.needs_calibration), s.summary]
        for s in SCHEMES.values()
    )
    return table(("scheme", "weights", "arithmetic", "inputs, outputs", "calibration data", "what it is"), rows)


def runtimes_table() -> str:
    """Returns the runtimes: kernels, delegates, threads."""
    rows = (
        [f"`{r.name}`", _aliases(r.name), r.summary, r.family, _yes("threads" in r.can), _yes("delegates" in r.can)]
        for r in RUNTIMES.values()
    )
    return table(("`--runtime`", "also", "what it is", "kernels", "threads", "external delegates"), rows)


def devices_table() -> str:
    """Returns the targets: memories, runtimes and how a latency is found."""
    rows = (
        [
            f"`{t.name}`",
            t.summary,
            t.board,
            size_in_words(t.flash_bytes),
            size_in_words(t.ram_bytes),
            ", ".join(f"`{name}`" for name in t.runtimes),
            f"`{t.best_scheme}`",
            how(t) or ABSENT,
        ]
        for t in TARGETS.values()
    )
    return table(("`--target`", "what it is", "whose memories", "flash", "RAM", "runtimes", "scheme", "latency"), rows)


def device_keys_table() -> str:
    """Returns the keys of a target's data file."""
    return _keys_table(keys(Target))


def sources_table() -> str:
    """Returns the kinds of data."""
    rows = (
        [source.name, source.summary, " ".join(f"`{suffix}`" for suffix in source.suffixes)]
        for source in SOURCES.values()
    )
    return table(("kind", "what to write after `--data`", "endings"), rows)


def labels_table() -> str:
    """Returns the kinds of labels."""
    return table(("`--labels`", "labels are"), ([f"`{name}`", what] for name, what in KINDS.items()))


def metrics_table() -> str:
    """Returns the metrics."""
    from edgeopt.metrics import METRICS

    rows = (
        [f"`{m.name}`", m.summary, "higher" if m.higher_is_better else "lower", "points" if m.is_share else "per cent"]
        for m in METRICS.values()
    )
    return table(("`--metric`", "what it is", "better", "losses are told in"), rows)


def tasks_table() -> str:
    """Returns the tasks."""
    from edgeopt.tasks import TASKS

    def called(*names: str) -> str:
        return ", or ".join(f"`{name}`" for name in names if name) or "given"

    rows = (
        [
            f"`{row.name}`",
            row.summary,
            row.labels,
            called(row.loss, row.one_unit_loss) if row.loss or row.name == "detection" else "its teacher's",
            called(row.metric, row.unlabelled_metric, row.uneven_metric),
        ]
        for row in TASKS.values()
    )
    return table(("`--task`", "what it is", "labels", "own loss", "own metric"), rows)


def formats_table() -> str:
    """Returns the formats of models."""
    from edgeopt.loading.formats import FORMATS

    rows = (
        [f"`{name}`", what, " ".join(f"`{ending}`" for ending in endings if ending) or "a folder"]
        for name, (what, endings) in FORMATS.items()
    )
    return table(("format", "what it is", "usual ending"), rows)


def errors_table() -> str:
    """Returns the errors that are the user's to mend."""
    rows = ([f"`{e.__name__}`", str(e.exit_code), str(e.__doc__)] for e in EdgeoptError.__subclasses__())
    return table(("exception", "exit status", "means"), rows)


def targets_table() -> str:
    """Returns the targets of the Makefile."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    found = (re.fullmatch(r"([a-z-]+):[^#]*## (.*)", line) for line in lines)
    return table(("target", "does"), ([f"`make {m[1]}`", m[2]] for m in found if m))


def modules_table() -> str:
    """Returns the parts of the package in the order in which they may import, with their first lines."""
    rows = []
    for level, units in enumerate(_flow(), start=1):
        for unit in units:
            file = next((f for f in (PACKAGE / f"{unit}.py", PACKAGE / unit / "__init__.py") if f.is_file()), None)
            if file is not None:
                docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
                rows.append([str(level), f"`{unit}{'/' * (file.name == '__init__.py')}`", docstring.partition("\n")[0]])
    return table(("level", "module", "what enters and what leaves"), rows)


def _flow() -> tuple[tuple[str, ...], ...]:
    """Returns FLOW of the test that enforces it."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    values = (
        node.value for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "FLOW"
    )
    return ast.literal_eval(next(value for value in values if value is not None))


def rules_table() -> str:
    """Returns the rules that advice goes by."""
    verdicts = {"do": "do it", "try": "worth trying", "skip": "leave it", "unknown": "not known"}
    rows = (
        [
            "all" if rule.step == "*" else f"`{rule.step}`",
            rule.condition,
            verdicts[rule.verdict],
            re.sub(r"\{(\w+)\}", r"*{\1}*", rule.why),
            ", ".join(rule.cites),
        ]
        for rule in RULES
    )
    return table(("step", "when", "advice", "because", "cites"), rows)


def cited_table() -> str:
    """Returns the documents that advice cites."""
    return table(("cited as", "says"), ([name, f"[{one.says}]({one.url})"] for name, one in SOURCES_CITED.items()))


BLOCKS: dict[str, Callable[[], str]] = {
    "rules": rules_table,
    "sources": cited_table,
    "schemes": schemes_table,
    "recipes": recipes_table,
    "techniques": techniques_table,
    "runtimes": runtimes_table,
    "targets": devices_table,
    "target keys": device_keys_table,
    "data sources": sources_table,
    "labels": labels_table,
    "tasks": tasks_table,
    "metrics": metrics_table,
    "formats": formats_table,
    "errors": errors_table,
    "make targets": targets_table,
    "modules": modules_table,
}


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def _help(command: click.Command) -> tuple[str, str]:
    """Returns the prose of a command's help, and its example."""
    prose, _, rest = inspect.cleandoc(command.help or "").partition("\b\n")
    code = [line for line in rest.splitlines() if line.startswith("  ")]
    paragraphs = [*prose.split("\n\n"), *(line for line in rest.splitlines() if line not in code)]
    return "\n\n".join(" ".join(p.split()) for p in paragraphs if p.strip()), "\n".join(c.strip() for c in code)


def _summary(name: str) -> str:
    return _command(name).get_short_help_str(limit=1000)


def _option(option: click.Option, command: click.Command) -> list[str]:
    context = click.Context(command)
    record = option.get_help_record(context)
    assert record is not None
    spelling, meaning = record
    extra = option.get_help_extra(context)
    meaning = re.sub(r"\s*\[[^\[\]]*\]$", "", meaning) if extra else meaning
    default = "required" if "required" in extra else f"`{extra['default']}`" if "default" in extra else ""
    return [f"`{spelling}`", default, meaning]


def _aliases(runtime: str) -> str:
    return ", ".join(f"`{alias}`" for alias, name in ALIASES.items() if name == runtime)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Returns a Markdown table; `align` holds a letter for each column, r for right."""
    rules = ["--:" if side == "r" else ":--" for side in align.ljust(len(header))]
    lines = [header, rules, *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- blocks in pages -------------------------------------------------------------------------------------------------


def with_block(text: str, kind: str, name: str, make: Callable[[], str]) -> str:
    """Returns a page in which the block between its two markers is what `make` gives."""
    pattern = f"({re.escape(_marker(kind, name))}\n).*?(\n<!-- end -->)"
    content = make()
    return re.sub(pattern, lambda match: f"{match[1]}\n{content}\n{match[2]}", text, count=1, flags=re.DOTALL)


def _marker(kind: str, name: str) -> str:
    return f"<!-- {kind}: {name} -->"


# --- results of runs -------------------------------------------------------------------------------------------------


def result(report: Report) -> str:
    """Returns a finished run in Markdown: its outcome, a row for each variant, and what it was measured on."""
    numbers = Numbers.of(report)
    score, change = f"{numbers.metric_name} (95 % interval)", f"against {report.baseline}, {numbers.change_unit}"
    latency = f"{report.runtime}, {numbers.time_unit}: p50 [p90]"
    header = ("variant", "bytes", "gzip", "smaller", score, change, latency, "faster", "fails on")
    timed = [time for v in report.variants if (time := report.latency(v))]
    runs = " to ".join(whole(count) for count in dict.fromkeys(f(time.runs for time in timed) for f in (min, max)))
    samples = {v.metric.samples for v in report.variants if v.metric}
    drop = report.budgets.max_drop
    return "\n\n".join(
        [
            *(f"```sh\n{command}\n```" for command in report.commands),
            table(header, (_row(report, v, numbers) for v in report.variants), " rrrrrrr"),
            f"With {'no budget' if drop is None else f'`--max-drop {drop:g}`'}: {headline(report)}.",
            *(f"Note: {warning}." for warning in report.warnings),
            f"Scored on {' to '.join(map(whole, sorted(samples)))} samples; timed over {runs} "
            f"runs, {timed[0].threads} thread.",
            f"Measured on {from_plain(Machine, dict(report.machine)).describe()}.",
            f"Versions: {', '.join(f'{name} {version}' for name, version in report.versions.items())}.",
        ]
    )


def _row(report: Report, variant: Variant, numbers: Numbers) -> list[str]:
    name = f"**{variant.name}**" if variant.name == report.best else variant.name
    if variant.error is not None:
        return [name, f"not made: {variant.error}", *[""] * 7]
    metric, time = variant.metric, report.latency(variant)
    beyond = f" ({said})" if (said := significance(variant.drop)).startswith(("worse", "better")) else ""
    return [
        name,
        whole(variant.size_bytes),
        whole(variant.gzip_bytes),
        ratio(smaller(report, variant)),
        f"{numbers.metric(metric.value)} ({numbers.interval(metric, unit=False)})" if metric else ABSENT,
        numbers.change(variant.drop) + beyond,
        f"{numbers.time(time.p50, unit=False)} [{numbers.time(time.p90, unit=False)}]" if time else ABSENT,
        ratio(faster(report, variant)),
        ", ".join(row.name for row in variant.runtimes if row.status == "failed" or row.matches_reference is False),
    ]


def write_results(folders: Iterable[Path]) -> None:
    """Renews the tables and pictures of docs/results.md; a block `<!-- result: NAME -->` is for the folder NAME."""
    page = DOCS / "results.md"
    text = page.read_text(encoding="utf-8")
    for folder in (folder for folder in folders if _marker("result", folder.name) in text):
        report = read_report(folder)
        text = with_block(text, "result", folder.name, lambda report=report: result(report))  # type: ignore[misc]
        picture = DOCS / "images" / f"report-{folder.name}.png"
        if not photograph(folder / "report.html", picture):
            print(f"{picture} was not renewed: none of {', '.join(BROWSERS)} is here", file=sys.stderr)
    atomic_write(page, text)


def photograph(page: Path, picture: Path) -> bool:
    """Writes the upper part of an HTML page as a small PNG; False where there is no browser."""
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        return False
    from PIL import Image

    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
        options += " --disable-background-networking --disable-component-update --disable-sync"
        options += f" --user-data-dir={profile} --screenshot={shot} --window-size={PICTURE_WIDTH},{PICTURE_HEIGHT}"
        subprocess.run(
            [browser, *options.split(), page.resolve().as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )
        picture.parent.mkdir(exist_ok=True)
        Image.open(shot).convert("RGB").quantize(PICTURE_COLOURS).save(picture, optimize=True)
    return True


# --- commands and what they print ------------------------------------------------------------------------------------


def run_pages(pages: Sequence[str], data: Path) -> None:
    """Runs what the pages show with its output, and writes down what it prints.

    Every page has a folder of its own, in which the finished RUNS are there already.
    """
    if not pages:
        shutil.rmtree(WORKSPACE, ignore_errors=True)
    sources = [*(ROOT / name for name in LINKED), *data.resolve().glob("*.npz")]
    runs = _linked_folder(WORKSPACE / "runs", sources)
    for name, arguments in RUNS.items():
        if not (runs / name / "report.json").exists():
            print("\n".join(printed(f"edgeopt optimize {arguments} -o {name} --max-drop 1.0", runs)), flush=True)
    finished = [runs / name for name in RUNS if (runs / name).exists()]
    for name in pages or PAGES:
        shutil.rmtree(WORKSPACE / Path(name).stem, ignore_errors=True)
        folder = _linked_folder(WORKSPACE / Path(name).stem, [*sources, *finished])
        page = ROOT / name
        atomic_write(page, renewed(page.read_text(encoding="utf-8"), folder))


def _linked_folder(folder: Path, paths: Iterable[Path]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path)
    return folder


def renewed(text: str, folder: Path) -> str:
    """Returns a page whose ```console blocks show what their commands print in `folder`."""

    def block(match: re.Match[str]) -> str:
        lines = []
        for command in shown_in(match[1]):
            print(f"$ {command}", flush=True)
            lines += [f"$ {command}", *printed(command, folder)]
        return "```console\n" + "\n".join(lines) + "\n```"

    return re.sub(r"^```console\n(.*?)^```", block, text, flags=re.DOTALL | re.MULTILINE)


def shown_in(block: str) -> Iterator[str]:
    """Yields the commands of a console block: a backslash goes on in the next line, `<<'EOF'` until EOF."""
    lines = iter(block.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\") or ("<<'EOF'" in command and not command.endswith("\nEOF")):
                command += "\n" + next(lines)
            yield command


def printed(command: str, folder: Path) -> list[str]:
    """Returns the lines that a command prints to a terminal of COLUMNS columns, standard error among them."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=subprocess.PIPE,
        env=environment,
    )
    os.close(follower)
    assert process.stderr is not None
    output = b"".join(_in_order(leader, process.stderr.fileno()))
    process.wait()
    os.close(leader)
    process.stderr.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode(errors="replace").replace("\r\n", "\n"))
    return [line.rstrip() for line in plain.rstrip().splitlines()]


def _in_order(*streams: int) -> Iterator[bytes]:
    """Yields what comes from the streams, as it comes."""
    with selectors.DefaultSelector() as waiting:
        for stream in streams:
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                try:
                    piece = os.read(key.fd, 1 << 16)
                except OSError:  # how Linux says that nobody writes to a terminal any more
                    piece = b""
                if piece:
                    yield piece
                else:
                    waiting.unregister(key.fd)


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, metavar="DATA", help="run what the pages show; DATA holds the .npz files")
    parser.add_argument("--results", type=Path, nargs="+", metavar="DIR", default=[], help="finished runs")
    parser.add_argument("pages", nargs="*", help="of --run, as docs/data.md; all of them if not given")
    options = parser.parse_args()
    if options.run:
        run_pages(options.pages, options.run)
        options.results += [path.parent for path in sorted((WORKSPACE / "runs").glob("*/report.json"))]
    write_results(options.results)
    for path, text in derived().items():
        atomic_write(path, text)


if __name__ == "__main__":
    main()
