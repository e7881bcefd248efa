"""The pages for who comes from other tools: the counterparts that they show are run, as far as nothing is trained."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import edgeopt
from edgeopt import data
from edgeopt.cli import cli

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("coming-from.md", "coming-from-pytorch.md")
# `edgeopt convert …` in a cell of a table.
SHOWN = re.compile(r"`edgeopt ((?:convert|compare) [^`]+)`")


def shown() -> list[str]:
    text = "".join((DOCS / page).read_text("utf-8") for page in PAGES)
    return sorted(dict.fromkeys(SHOWN.findall(text)), key=lambda command: command.startswith("compare"))


@pytest.fixture(scope="module")
def folder(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages name: a Keras model, its float `.tflite` under both names, and data."""
    made = tmp_path_factory.mktemp("coming_from")
    (made / "model.keras").write_bytes(digits_model.read_bytes())
    edgeopt.convert(digits_model, made / "model.tflite")
    edgeopt.convert(digits_model, made / "model.int8.tflite", scheme="int8", data="digits")
    (made / "net.tflite").write_bytes((made / "model.tflite").read_bytes())
    part = data.load("digits").validation
    batch = next(iter(part.batches(len(part))))
    (x,) = batch.inputs.values()
    np.savez(made / "data.npz", x=x, y=np.asarray(batch.labels))
    return made


def run(command: str, folder: Path) -> Result:
    words = [str(folder / word) if Path(word).suffix else word for word in shlex.split(command)]
    force = ["--force"] if command.startswith("convert") else []
    return CliRunner().invoke(cli, [*words, *force])


def test_pages_show_some() -> None:
    assert len(shown()) >= 7


@pytest.mark.parametrize("command", shown())
def test_what_stands_beside_another_tools_call_does_it(command: str, folder: Path) -> None:
    done = run(command, folder)
    assert done.exit_code == 0, done.output
