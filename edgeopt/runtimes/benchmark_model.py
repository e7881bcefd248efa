"""What LiteRT's program benchmark_model printed goes in, latencies, memory, delegation and a profile come out.

Every layout that its builds have printed: with and without `INFO: `, with and without percentiles, `curr=V(all same)`,
profiles as a table or as CSV.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeopt.errors import ModelError
from edgeopt.vocabulary import Latency, OperatorTime

_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"
_TIMINGS = re.compile(rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}")
_RUNS = re.compile(r"\bcount=([0-9]+) (.*curr=[0-9].*)")
_FIELD = re.compile(rf"([a-z0-9]+)={_NUMBER}")
_REPLACED = re.compile(r"Replacing ([0-9]+) out of ([0-9]+) node\(s\) with delegate \((\w+)\)")
_APPLIED = re.compile(r"model graph will (not )?be (completely |partially )?executed by the delegate")
_MEMORY = (
    re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}"),
    re.compile(rf"emory footprint.*\(MB\): init={_NUMBER} overall={_NUMBER}"),
)
_PROFILE = "Operator-wise Profiling Info"
_MEGABYTE = 2**20
_SHOWN_LINES = 3


@dataclass(frozen=True)
class Printed:
    """What one run printed.

    Attributes:
        latency: p50 is the median; p90 and p99 are bounds from above, of p95 and of the slowest run.
        delegates: delegate to the share of operators that it took.
        applied: how far the delegate that was asked for runs the model, "completely", "partially" or "not"; "" untold.
        operators: in the order they ran, with the mean of their times.
    """

    latency: Latency
    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    delegates: dict[str, float]
    applied: str
    operators: tuple[OperatorTime, ...]
    notes: tuple[str, ...]


def parse(text: str, *, threads: int) -> Printed:
    """Returns what `text` says.

    Raises:
        ModelError: it tells no times: the program refused the model, or died; the message holds its last words.
    """
    timings = _TIMINGS.search(text)
    runs = _RUNS.findall(text[: timings.start()] if timings else "")
    if timings is None or not runs:
        raise ModelError(f"benchmark_model gave no times: {_last_words(text)}. Try another build of it, or the file.")
    count, rest = runs[-1]
    operators = tuple(_profile(text))
    latency, note = _latency(int(count), dict(_FIELD.findall(rest)), threads)
    return Printed(
        latency,
        float(timings[1]) / 1e3,
        float(timings[2]) / 1e3,
        _memory(text),
        {name: int(taken) / int(all_) for taken, all_, name in reversed(_REPLACED.findall(text)) if int(all_)},
        (applied[1] or applied[2] or "").strip() if (applied := _APPLIED.search(text)) else "",
        operators,
        (note, *(("times of operators are means",) if operators else ())),
    )


def _latency(runs: int, fields: dict[str, str], threads: int) -> tuple[Latency, str]:
    """Returns the latency from microseconds, and what stands in it for what is not printed."""
    same = float(fields["curr"])
    least, most = float(fields.get("min", same)) / 1e3, float(fields.get("max", same)) / 1e3
    if "median" in fields:
        median, high = float(fields["median"]) / 1e3, float(fields["p95"]) / 1e3
        note = "p90 is benchmark_model's p95, p99 its slowest run: it prints no others"
    else:
        median, high = float(fields.get("avg", same)) / 1e3, most
        note = "this benchmark_model prints no percentiles: p50 is the mean, p90 and p99 the slowest run"
    return Latency(median, high, most, runs, threads, least), note


def _memory(text: str) -> int | None:
    found = next((match for pattern in _MEMORY if (match := pattern.search(text))), None)
    return None if found is None else int(float(found[found.lastindex or 1]) * _MEGABYTE)


def _profile(text: str) -> Iterator[OperatorTime]:
    """Yields the rows of the table in the order of the run, of the timed runs."""
    lines = text[text.index(_PROFILE) :].splitlines() if _PROFILE in text else []
    columns: list[str] = []
    for line in lines:
        if not columns:
            columns = _columns(line)
            continue
        row = dict(zip(columns, _values(line, columns)))
        if not row:
            return
        kind, name = row["node type"], row["name"].rpartition(":")[0] or row["name"]
        share = float(row["%"].rstrip("%")) / 100
        delegated = "Delegate" in kind or "Delegate" in name
        yield OperatorTime(kind, name.strip("[]"), share, float(row["avg ms"]) * 1e3, delegated)


def _columns(line: str) -> list[str]:
    if "[node type]" in line:
        return [cell.strip(" []").lower() for cell in line.strip().split("\t")]
    return [cell.strip().replace("_", " ").lower() for cell in line.split(",")] if "node type," in line else []


def _values(line: str, columns: Sequence[str]) -> Sequence[str]:
    """Returns the cells of a row, none where the table has ended; kinds and names hold commas themselves."""
    if "\t" in line:
        cells = [cell.strip() for cell in line.strip().split("\t")]
        return cells if len(cells) == len(columns) else ()
    row = re.fullmatch(rf"(.*?)((?:,\s*[0-9.]+%?){{{len(columns) - 2}}}),\s*(.*)", line.strip())
    return () if row is None else (row[1], *(cell.strip() for cell in row[2].split(",")[1:]), row[3])


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-_SHOWN_LINES:]).rstrip(".") or "it printed nothing"
