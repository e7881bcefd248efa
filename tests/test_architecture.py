"""Modules import only leftward along the flow, siblings never, and heavy packages through one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edgeopt"

# From left to right; a module may import what stands to its left, and inside a package its own modules.
FLOW: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("chance", "files", "imports", "native_log", "places", "progress", "user_code", "units", "windows"),
    ("frameworks", "workers", "showing", "trust"),
    ("vocabulary", "plain"),
    ("choices", "data", "schemes", "tflite", "machine", "prospects", "statistics", "front"),
    ("graph", "steps", "tasks", "c99", "formats"),
    ("keras_bridge", "delegates", "runtimes", "compilers", "training", "shrinking", "fake_quantization"),
    ("metrics", "targets", "repairing", "equalizing"),
    ("doctor", "rounding"),
    ("loading",),
    ("conversion", "evaluation", "benchmarking", "parity", "inspection", "drawing", "exporters"),
    ("techniques", "comparison", "language", "torch_import"),
    ("advice", "recipe", "workshop", "report", "store", "fidelity"),
    ("plan", "outlook", "recommendation"),
    ("workspace",),
    ("carry_out", "sensitivities"),
    (
        "measuring",
        "advising",
    ),
    ("ladder",),
    ("pipeline",),
    ("search",),
    ("api", "makefile"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(FLOW) for name in names}
HEAVY = {
    "tensorflow",
    "tf_keras",
    "keras",
    "tensorflow_model_optimization",
    "ai_edge_litert",
    "tflite_runtime",
    "tflite_micro",
    "optuna",
    "sqlalchemy",
    "ray",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _unit(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(tree: ast.AST) -> list[tuple[str, bool]]:
    """Returns every imported dotted name, with whether it is at the top of the module and outside TYPE_CHECKING."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found.extend((f"{base}.{alias.name}", top) for alias in node.names)
        inside = top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree, True)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_leftward(path: Path) -> None:
    unit = _unit(path)
    if unit == "__init__":
        return
    assert unit in LEVEL, f"{unit} has no place in the flow"
    for name, _ in _imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] != "edgeopt" or len(parts) < 2 or parts[1] == "__version__":
            continue
        target = parts[1]
        if target == unit:
            continue
        assert LEVEL[target] < LEVEL[unit], f"{unit} imports {target}, which does not stand to its left"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_come_through_one_door(path: Path) -> None:
    for name, _ in _imports(ast.parse(path.read_text())):
        assert name.split(".")[0] not in HEAVY, f"{path.name} imports {name}; frameworks.load does that"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from edgeopt.cli import cli, COMMANDS\n"
        "try: cli.main(['--help'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'numpy', 'scipy', 'rich', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "optimize" in done.stdout


def test_every_level_is_there() -> None:
    there = {_unit(path) for path in MODULES} - {"__init__"}
    assert there <= set(LEVEL)
