"""What `pip install` puts in place: every file of the package, and not one warning on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_package_is_built_whole_and_without_a_warning(tmp_path: Path) -> None:
    """Templates, kernels, recipes, targets and styles are data in folders that are no packages."""
    commands = ["-q", "egg_info", "--egg-base", str(tmp_path), "build", "--build-base", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", "from setuptools import setup; setup()", *commands],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "edgeopt." not in done.stdout + done.stderr
    there = {p.relative_to(ROOT) for p in (ROOT / "edgeopt").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    built = {p.relative_to(tmp_path / "lib") for p in (tmp_path / "lib").rglob("*") if p.is_file()}
    assert there == built
