"""Writes a report as files: a report and a folder go in; report.json, report.md and report.html lie in it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edgeopt.files import atomic_write
from edgeopt.report import fidelity, figures, heat, parts, verdict, words
from edgeopt.report.model import Report, from_json, to_json
from edgeopt.schemes import SCHEMES
from edgeopt.vocabulary import DEFAULT_MAX_DROP, Budgets, LayerError, StepRecord, Variant

if TYPE_CHECKING:
    from jinja2 import Environment

_WORST_SHOWN = 5
# More promises than these are folded away, where all are kept.
_FEW_PROMISES = 8


def write_report(report: Report, folder: Path) -> tuple[Path, Path, Path]:
    """Writes report.json, report.md and report.html into `folder` and returns their paths.

    The same report gives the same bytes, and so does the one read back from report.json.

    Raises:
        ConfigError: the folder cannot be written.
    """
    plain = to_json(report)
    report = from_json(plain)
    contents = {
        "report.json": json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "report.md": render_markdown(report),
        "report.html": render_html(report),
    }
    for name, content in contents.items():
        atomic_write(folder / name, content)
    json_file, markdown_file, html_file = (folder / name for name in contents)
    return json_file, markdown_file, html_file


def render_html(report: Report) -> str:
    """Returns the report as one HTML page that needs no other file."""
    return render_page("report.html.j2", _context(report))


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """Returns a page of templates/ that looks and sorts as the report does, and needs no other file."""
    import markupsafe

    script = resources.files("edgeopt.report").joinpath("templates", "report.js").read_text(encoding="utf-8")
    # The page runs this script and no other: what a name from a model brings stays text.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _environment("html").get_template(template)
    return page.render(context, script=markupsafe.Markup(script), script_hash=f"sha256-{digest}")


def render_notebook(report: Report) -> str:
    """Returns the report for the output of a notebook's cell."""
    return framed(render_html(report), "edgeopt report")


def framed(page: str, title: str) -> str:
    """Returns a page in a frame of its own, for the output of a notebook's cell: neither can change the other."""
    style = "width: 100%; height: 45rem; border: 0"
    return (
        f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts allow-popups" style="{style}" '
        f'title="{title}"></iframe>'
    )


def render_markdown(report: Report) -> str:
    """Returns the report in GitHub-flavoured Markdown."""
    text = _environment("markdown").get_template("report.md.j2").render(_context(report))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


class _Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


@lru_cache(maxsize=2)
def _environment(kind: str) -> Environment:
    import jinja2

    is_html = kind == "html"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgeopt.report"),
        autoescape=is_html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value passes here, so that no name from a model reaches the page as markup.
        finalize=_without_control_characters if is_html else _escape_markdown,
    )
    environment.filters.update(link=_link, fenced=_fenced, tied=_tied)
    return environment


def _context(report: Report) -> dict[str, Any]:
    """Returns what the templates see: the report, what follows from it, and the functions that word it."""
    chosen = verdict.as_chosen(report)
    kinds, bars = figures.byte_bars(report)
    layers = figures.layer_plot(report)
    scatters = [f for f in (figures.size_scatter(report), figures.latency_scatter(report)) if f]
    return {
        "report": report,
        "numbers": words.Numbers.of(report),
        "words": words,
        "figures": figures,
        "headline": verdict.headline(report),
        "best": report.variant(report.best),
        "baseline": report.variant(report.baseline),
        "budgets": _budgets_in_words(report.budgets, report),
        "broken": {v.name: verdict.broken_budgets(chosen, v) for v in chosen.variants},
        "on_target": {v.name: verdict.on_target(v) for v in report.variants},
        "target_notes": verdict.target_notes(report),
        "smaller": {v.name: verdict.smaller(report, v) for v in report.variants},
        "faster": {v.name: verdict.faster(report, v) for v in report.variants},
        "arithmetic": {v.name: _arithmetic(v) for v in report.variants},
        "gaps": verdict.gaps(report),
        "faithful": [v for v in report.variants if v.fidelity],
        "fidelity": fidelity,
        "scatters": scatters,
        "stages": _stages(report),
        "lost": {
            s.after: words.ended_worse(s, v.metric if (v := report.variant(s.before)) else None) for s in report.steps
        },
        "few": _FEW_PROMISES,
        "step_scheme": next((v.scheme for s in report.steps if (v := report.variant(s.before))), ""),
        "byte_kinds": kinds,
        "byte_bars": bars,
        "layers": layers,
        "tensors": figures.tensor_order(report),
        "sqnr": {v.name: {e.tensor: e.sqnr_db for e in v.layer_errors} for v in report.variants},
        "compared": [v for v in report.variants if v.layer_errors],
        "worst": {v.name: _worst(v) for v in report.variants},
        "delegates": [(v, r) for v in report.variants for r in v.runtimes if r.delegated or r.undelegated],
        "conditions": _conditions(report),
        "recipe": _yaml(report),
        "climb": report.climb,
        "above": verdict.rungs_above(report),
        "aims": words.AIMS,
        "left_out": words.LEFT_OUT,
        "usual_loss": words.Numbers.of(report).allowance(DEFAULT_MAX_DROP),
        "sensitivity": report.sensitivity,
        "heat_svg": heat.svg,
        "heat_cell": heat.cell,
        "parts": parts.parts(report),
        "parts_svg": parts.svg,
        "spreads": parts.spreads(report),
        "spread_svg": parts.spread_svg,
        "several": [variant for variant in report.variants if variant.outputs],
    }


def _stages(report: Report) -> list[tuple[str, Variant, StepRecord | None]]:
    """Returns the model as it came and after each step: label, variant that was measured, and the step."""
    first = next((v for step in report.steps if (v := report.variant(step.before))), None)
    found: list[tuple[str, Variant, StepRecord | None]] = [] if first is None else [("as it came", first, None)]
    for step in report.steps:
        if after := report.variant(step.after):
            label = f"{step.technique} ({step.variant})" if step.variant else step.technique
            # A ladder's steps begin at several models.
            found.append((after.name if report.climb else label, after, step))
    return found


def _budgets_in_words(budgets: Budgets, report: Report) -> list[str]:
    numbers = words.Numbers.of(report)
    told = []
    if budgets.max_drop is not None:
        told.append(numbers.lost(f"at most {numbers.allowance(budgets.max_drop)}"))
    if budgets.max_size_bytes is not None:
        told.append(f"takes at most {words.whole(budgets.max_size_bytes)} bytes")
    if budgets.max_latency_ms is not None:
        told.append(
            f"takes at most {verdict.latency_in_words(report, budgets.max_latency_ms)} "
            + (f"on {report.target}" if report.bounds_target else f"(median) on {report.runtime}")
        )
    if budgets.max_ram_bytes is not None:
        told.append(f"takes at most {words.whole(budgets.max_ram_bytes)} bytes of RAM on {report.target}")
    if report.target is not None:
        told.append(f"fits {report.target}")
    return [*told, *(f"runs on {name}" for name in budgets.runtimes)]


def _arithmetic(variant: Variant) -> str:
    """Returns what is stored and what computes, by the scheme."""
    scheme = SCHEMES.get(variant.scheme)
    name = "" if variant.scheme == variant.name else f"{variant.scheme}: "
    if scheme is None:
        return variant.scheme if name else ""
    computed = "activations quantized at each inference" if scheme.dynamic else f"{scheme.activations} arithmetic"
    return f"{name}{scheme.weights} weights, {computed}"


def _worst(variant: Variant) -> list[LayerError]:
    """Returns the noisiest tensors, worst first."""
    measured = [e for e in variant.layer_errors if words.decibel(e.sqnr_db) != words.ABSENT]
    return sorted(measured, key=lambda e: e.sqnr_db)[:_WORST_SHOWN]


def _conditions(report: Report) -> list[str]:
    """Returns the different ways in which latencies were measured: "200 runs, 1 thread"."""
    latencies = [r.latency_ms for v in report.variants for r in v.runtimes if r.latency_ms]
    pairs = sorted({(t.runs, t.threads) for t in latencies})
    return [f"{words.whole(n)} runs on {k} thread{'' if k == 1 else 's'}" for n, k in pairs]


def _yaml(report: Report) -> str:
    import yaml

    recipe = to_json(report)["recipe"]
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100).strip() if recipe else ""


def _link(path: str) -> str:
    """Returns `path` as an address relative to the report; what looks like a scheme stays a file's name."""
    return "./" + quote(path)


def _tied(text: str) -> str:
    """Returns `text` with numbers and their per-cent signs kept on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _without_control_characters(value: Any) -> Any:
    if type(value) is not str:
        return value
    return "\n".join(words.visible(line) for line in value.split("\n"))


def _escape_markdown(value: Any) -> Any:
    if isinstance(value, _Markdown) or not isinstance(value, str):
        return value
    escaped = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", words.visible(re.sub(r"\s", " ", value)))
    return _Markdown(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _fenced(text: str, language: str = "") -> str:
    """Returns `text` as a code block whose fence is longer than any run of backticks inside."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return _Markdown(f"{fence}{language}\n{_without_control_characters(text)}\n{fence}")
