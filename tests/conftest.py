"""What several test modules need: optional benchmark data beside the checkout, and small real models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of optional real data and models; tests that need it skip without it."""
    folder = Path(os.environ.get("EDGEOPT_SHARED_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"optional benchmark data not found in {folder} (set EDGEOPT_SHARED_DATA)")
    return folder
