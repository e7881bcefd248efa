"""`python -m bench [SECTION ...]` runs benchmarks, all by default, and renews their sections of docs/benchmarks.md."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bench import conversion, evaluation, memory, startup, training, tune
from edgeopt import files, machine

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
INTRO = """# Benchmarks

Written by `make bench`: each beside what one would do by hand, in the same run. Medians, and
the ratios of these medians. Each section says where and with what it was measured."""
SECTIONS = {
    "Start-up": startup,
    "Conversion": conversion,
    "Evaluation": evaluation,
    "Memory": memory,
    "Training": training,
    "Search": tune,
}


def main() -> None:
    """Prints each table as it is ready, and keeps it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    asked = parser.parse_args().sections or list(SECTIONS)
    if unknown := set(asked) - set(SECTIONS):
        parser.error(f"expected sections of {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}")
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions().items())
    for title in asked:
        # Before the benchmark: its own load is none of the machine's.
        described = machine.describe().describe()
        module = SECTIONS[title]
        text = f"{(module.__doc__ or '').strip()}\n\n{module.section()}\n\n{described}. {versions}."
        print(f"## {title}\n\n{text}\n", flush=True)
        keep(title, text)


def keep(title: str, text: str) -> None:
    """Writes the section into the page, in the place of its last edition."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    kept = dict(re.findall(r"^## (.+)\n\n((?:.*\n)*?)(?=^## |\Z)", page, re.MULTILINE)) | {title: text}
    body = [f"## {name}\n\n{kept[name].strip()}" for name in SECTIONS if name in kept]
    files.atomic_write(PAGE, "\n\n".join([INTRO, *body]) + "\n")


if __name__ == "__main__":
    main()
