"""`python -m bench` runs every benchmark and renews docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path

from bench import conversion, evaluation, memory, startup, training
from edgeopt import files, machine

SECTIONS = {
    "Start-up": startup,
    "Conversion": conversion,
    "Evaluation": evaluation,
    "Memory": memory,
    "Training": training,
}


def main() -> None:
    """Prints each table as it is ready, and writes all of them."""
    described = machine.describe()
    page = [
        "# Benchmarks",
        "Written by `make bench`: each beside what one would do by hand, in the same run. "
        "Medians; ratios are taken round by round.",
        f"{described.describe()}",
    ]
    for title, module in SECTIONS.items():
        intro = (module.__doc__ or "").strip()
        page.append(f"## {title}\n\n{intro}\n\n{module.section()}")
        print(page[-1], end="\n\n", flush=True)
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions().items())
    page.append(f"Versions: {versions}.")
    files.atomic_write(Path(__file__).parents[1] / "docs" / "benchmarks.md", "\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()
