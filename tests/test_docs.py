"""The docs: what is generated is current, what is shown parses, what is linked exists, what is code runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import numpy as np
import pytest

from edgeopt.cli import COMMANDS, cli
from edgeopt.report import Report
from edgeopt.report.model import ModelFacts
from edgeopt.vocabulary import Artifact, Budgets, Difference, Latency, MetricValue, RuntimeResult, Variant

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for folder in (".", "docs", "docs/reference", "models", "calibration_data")
    for path in (ROOT / folder).glob("*.md")
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FORBIDDEN = (
    "/work",
    "/tmp",
    "shared/",
    "pypi.org",
    "pythonhosted.org",
    "npmjs",
    "proxy.golang",
    "crates.io",
    "site-packages",
)
# Other programs of this checkout whose options the pages mention.
PROGRAMS = (
    "bench/compression.py",
    "models/training.py",
    "models/mobilenet_v2.py",
    "calibration_data/make.py",
    "docs/generate.py",
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def shown_commands(page: Path, generate: ModuleType) -> Iterator[list[str]]:
    """Yields the arguments of each edgeopt command that a page shows."""
    lines = [command.partition("<<'EOF'")[0] for body in blocks(page, "console") for command in generate.shown_in(body)]
    for body in blocks(page, "sh"):
        lines += body.replace("\\\n", " ").splitlines()
    for line in lines:
        words = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars="();<>|&")
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                completes = any("_EDGEOPT_COMPLETE=" in w for w in command)  # asks for a shell's own code, bare
                if not completes and "edgeopt" in (Path(w).name for w in command[:3]):
                    yield command[[Path(w).name for w in command].index("edgeopt") + 1 :]
                command = []
            else:
                command.append(word)


def options_of(command: click.Command) -> set[str]:
    """Its own, and those of its subcommands."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    own = {spelling for option in command.params for spelling in (*option.opts, *option.secondary_opts)}
    return own.union(*map(options_of, below))


# --- generated -------------------------------------------------------------------------------------------------------


def test_what_is_generated_is_current(generate: ModuleType) -> None:
    stale = [name_of(path) for path, text in generate.derived().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"{', '.join(stale)}: try `make docs`"


def test_every_generated_block_is_on_some_page(generate: ModuleType) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"<!-- generated: ([a-z ]+) -->", text)) == set(generate.BLOCKS)
    assert len(re.findall(r"<!-- (?:generated|result): ", text)) - text.count("<!-- end -->") == 1  # CONTRIBUTING's …


def test_every_page_with_printed_output_can_be_renewed(generate: ModuleType) -> None:
    assert {name_of(page) for page in PAGES if blocks(page, "console")} <= set(generate.PAGES)


def test_a_printed_block_is_renewed(generate: ModuleType, tmp_path: Path) -> None:
    # Two streams keep their order only where there is time between them.
    command = "$ echo one \\\n    two; sleep 1; echo three >&2\n"
    here = "$ cat <<'EOF'\n$ four\nEOF\n"
    page = f"# x\n```console\n{command}stale\n{here}```\nkept\n"
    lines = [*command.splitlines(), "one two", "three", *here.splitlines(), "$ four"]
    assert generate.renewed(page, tmp_path) == "# x\n```console\n" + "\n".join(lines) + "\n```\nkept\n"


def test_a_result_tells_what_was_measured_and_what_failed(generate: ModuleType) -> None:
    from edgeopt import machine

    def variant(name: str, size: int, accuracy: float, p50: float, drop: Difference | None) -> Variant:
        latency = Latency(p50, 2 * p50, 3 * p50, 100, 1)
        runtimes = (RuntimeResult("litert", latency_ms=latency), RuntimeResult("tflm", status="failed", reason="no"))
        metric = MetricValue("top1", accuracy, accuracy - 0.01, accuracy + 0.01, 500, True, True)
        artifact = Artifact("tflite", name, "0" * 64, size, size - 1)
        return Variant(name, name, (artifact,), metric=metric, drop=drop, runtimes=runtimes)

    rows = (
        variant("float32", 4 * 1000, 0.9, 2.0, None),
        variant("int8", 1000, 0.85, 1.0, Difference(100 * (0.9 - 0.85), 0.001)),
        Variant("int16x8", "int16x8", error="refused"),
    )
    report = Report(
        "0.1.0",
        "2026-01-01T00:00:00+00:00",
        ModelFacts("m.keras"),
        variants=rows,
        baseline="float32",
        best="int8",
        budgets=Budgets(max_drop=7.0),
        machine=machine.describe().to_plain(),
        versions={"numpy": "1.26.4"},
        warnings=("it was noisy",),
    )
    text = generate.result(report)
    for words in (
        "| **int8** | 1,000 | 999 | 4.0× | 85.0 % (84.0 to 86.0) | −5.0 (worse, p=0.001) | 1.00 [2.00] | 2.0× | tflm |",  # noqa: RUF001
        "| int16x8 | not made: refused |",
        "`--max-drop 7`",
        "Note: it was noisy.",
        "500 samples; timed over 100 runs",
        machine.describe().cpu,
        "numpy 1.26.4",
    ):
        assert words in text
    page = "a\n<!-- result: demo -->\nold\n<!-- end -->\nb\n<!-- result: other -->\nold\n<!-- end -->\n"
    renewed = generate.with_block(page, "result", "demo", lambda: "new")
    assert renewed == page.replace("old", "\nnew\n", 1)


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_an_example_that_parses_and_a_place_in_the_docs(name: str, generate: ModuleType) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    prose, example = generate._help(command)
    assert prose.endswith((".", ":")), "help texts are sentences"
    assert f"edgeopt {name}" in example
    for line in example.splitlines() if "$(shell" not in example else ():
        require_it_parses(shlex.split(line)[1:])
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name} has no help"
            assert "\x1e" not in parameter.help, "other settings are spoken as options"
    by_hand = [page for page in PAGES if page.parent.name != "reference"]
    assert any(f"edgeopt {name}" in page.read_text(encoding="utf-8") for page in by_hand)


def require_it_parses(arguments: list[str]) -> None:
    try:
        name, command, rest = cli.resolve_command(click.Context(cli), list(arguments))
        assert command is not None
        command.make_context(name, rest, parent=click.Context(cli, info_name="edgeopt"))
    except click.exceptions.Exit:
        pass  # --help, --version
    except click.BadParameter as error:
        if "does not exist" not in error.message:  # files of the page's own story are not here
            raise


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_shown_parses(page: Path, generate: ModuleType) -> None:
    # Shown for the message they give.
    mistakes = {"optmize": "No command is called 'optmize'", "int9": "int9"}
    for arguments in shown_commands(page, generate):
        mistake = next((word for word in mistakes if word in arguments), None)
        if mistake is None:
            require_it_parses(arguments)
        else:
            with pytest.raises(click.UsageError, match=mistakes[mistake]):
                require_it_parses(arguments)


def test_commands_are_found_on_pages(generate: ModuleType) -> None:
    shown = [arguments for page in PAGES for arguments in shown_commands(page, generate)]
    assert {arguments[0] for arguments in shown} >= set(COMMANDS) - {"view", "makefile"}
    with pytest.raises(click.NoSuchOption, match="--max-dorp"):
        require_it_parses(["optimize", "m.keras", "--data", "digits", "-o", "x", "--max-dorp", "1"])
    with pytest.raises(click.MissingParameter, match="data"):
        require_it_parses(["evaluate", "m.tflite"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_option_mentioned_is_one(page: Path) -> None:
    commands = [cli.get_command(click.Context(cli), name) for name in COMMANDS]
    known = {spelling for command in commands if command is not None for spelling in options_of(command)}
    others = "".join((ROOT / program).read_text(encoding="utf-8") for program in PROGRAMS)
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for code in re.findall(r"`([^`\n]+)`", prose):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code):
            assert option in known | {"--help"} or f'"{option}"' in others, f"{option} in `{code}`"


# --- links, words, code ----------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Returns what GitHub calls the headings of a page."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} on {name_of(page)}"
        if anchor:
            assert anchor in anchors(there), f"{target} on {name_of(page)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_speak_of_the_project_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not [word for word in FORBIDDEN if word in text]
    assert "Traceback" not in text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles(page: Path) -> None:
    for number, body in enumerate(blocks(page, "python"), start=1):
        compile(body, f"{name_of(page)}, block {number}", "exec")


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 300_000, name_of(picture)


@pytest.fixture(scope="module")
def model_and_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the `model.keras` and `data.npz` of the pages: a softmax regression fitted to the digits."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    from edgeopt.frameworks import load

    folder = tmp_path_factory.mktemp("docs")
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    fitted = LogisticRegression(max_iter=500).fit(x[:1200], y[:1200])
    keras = load("keras")
    dense = keras.layers.Dense(10, activation="softmax")
    model = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), dense])
    dense.set_weights([fitted.coef_.T, fitted.intercept_])
    model.save(folder / "model.keras")
    x = x.reshape(-1, 8, 8, 1)
    np.savez(folder / "data.npz", x_train=x[:1200], y_train=y[:1200], x_test=x[1200:], y_test=y[1200:])
    return folder


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_runs(model_and_data: Path) -> None:
    printed = run_python("\n".join(blocks(ROOT / "README.md", "python")), model_and_data)
    assert "that keep every budget" in printed
    assert (model_and_data / "out" / "best.tflite").stat().st_size > 1000
    assert (model_and_data / "out" / "report.html").is_file()
    # What docs/getting-started.md shows for the app runs on that file.
    (snippet,) = blocks(ROOT / "docs" / "getting-started.md", "python")
    assert "array([[" in run_python(snippet, model_and_data)


@pytest.mark.slow
def test_the_python_page_runs(model_and_data: Path) -> None:
    printed = run_python("\n".join(blocks(ROOT / "docs" / "python.md", "python")), model_and_data)
    for words in (
        "float16",
        "{'calibration': 160, 'training': 160, 'tuning': 0, 'validation': 40}",
        "Quantization(scales=",
    ):
        assert words in printed
