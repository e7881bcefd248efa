"""`edgeopt --help` and `edgeopt inspect FILE.tflite` beside `python -c "import tensorflow"`, as whole processes."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from bench import common


def section(*, repeats: int = 5) -> str:
    """Returns the table of this benchmark as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        model = common.reference_model(Path(folder), "resnet8")
        file = Path(folder) / "resnet8.tflite"
        common.in_turn({"convert": [*common.EDGEOPT, "convert", str(model), "-o", str(file), "--force"]}, repeats=0)
        commands = {
            "`edgeopt --help`": [*common.EDGEOPT, "--help"],
            "`edgeopt inspect resnet8.tflite`": [*common.EDGEOPT, "inspect", str(file)],
            '`python -c "import tensorflow"`': [sys.executable, "-c", "import tensorflow"],
        }
        seconds = common.in_turn(commands, repeats=repeats)
    rows = [[name, f"{statistics.median(values):.2f}"] for name, values in seconds.items()]
    return common.markdown(["command", "seconds"], rows)


if __name__ == "__main__":
    print(section())
