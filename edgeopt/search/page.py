"""What a search found goes in; a page with its Pareto plot, its front and all its trials comes out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from edgeopt.report import figures, words
from edgeopt.report.render import framed, render_page
from edgeopt.report.words import ABSENT, Numbers, whole
from edgeopt.search.result import Tuned, headline, on_target, recipe_words
from edgeopt.search.sampling import SAMPLERS
from edgeopt.search.study import Trial
from edgeopt.vocabulary import Artifact, Budgets, Variant

_ENDED = {
    "trials": "It made as many trials as it was asked for.",
    "time": "Its time was over.",
    "space": "Every recipe that was found in the space was tried.",
    "interrupted": "It was interrupted; the same command goes on.",
}
_AIMS = {"quality": "a better score", "size": "a smaller file", "latency": "a shorter time", "ram": "less RAM"}


def render(tuned: Tuned) -> str:
    """Returns the page."""
    report = tuned.report
    numbers = Numbers.of(report)
    context = {
        "report": report,
        "words": words,
        "numbers": numbers,
        "headline": headline(tuned),
        "ended": _ENDED[tuned.ended],
        "sampler": f"{tuned.sampler} ({SAMPLERS[tuned.sampler].summary})",
        "aims": [_AIMS[name] for name in tuned.objectives],
        "obstacle": tuned.obstacle,
        "scatter": _scatter(tuned),
        "front": [_point(tuned, numbers, number) for number in range(len(tuned.front))],
        "tuning": report.data is not None and bool(report.data.samples.get("tuning")),
        "has_latency": any(report.latency(v) for v in report.variants) and "target ms" not in on_target(tuned),
        "further": list(on_target(tuned)),
        "trials": [_trial(one, numbers) for one in tuned.trials if one.outcome.state not in ("again", "impossible")],
        "impossible": Counter(t.outcome.words for t in tuned.trials if t.outcome.state == "impossible").most_common(),
        "study": tuned.study,
        "storage": tuned.storage,
    }
    return render_page("study.html.j2", context)


def notebook(tuned: Tuned) -> str:
    """Returns the page for the output of a notebook's cell."""
    return framed(render(tuned), "edgeopt search")


def _point(tuned: Tuned, numbers: Numbers, position: int) -> dict[str, Any]:
    point = tuned.front[position]
    variant = tuned.variant(point)
    metric, latency = variant.metric, tuned.report.latency(variant)
    return {
        "number": point.number,
        "best": variant.name == tuned.report.best,
        "size": whole(variant.size_bytes),
        "tuning": _score(point.measured.metric, numbers),
        "validation": ABSENT if metric is None else _score(metric, numbers),
        "change": numbers.change(variant.drop),
        "latency": numbers.time(latency.p50, unit=False) if latency else ABSENT,
        "further": [told(point) for told in on_target(tuned).values()],
        "recipe": recipe_words(point.recipe),
        "file": point.file,
    }


def _score(metric: Any, numbers: Numbers) -> str:
    return f"{numbers.metric(metric.value)} ({numbers.interval(metric)})"


def _trial(trial: Trial, numbers: Numbers) -> dict[str, Any]:
    outcome = trial.outcome
    found = outcome.measured
    return {
        "number": trial.number,
        "state": {"stopped": "given up"}.get(outcome.state, outcome.state),
        "size": ABSENT if found is None else whole(int(found.costs["size"].value)),
        "metric": ABSENT if found is None else numbers.metric(found.metric.value),
        "seconds": f"{outcome.seconds:,.1f}",
        "recipe": recipe_words(trial.recipe),
        "why": "; ".join(
            filter(None, (outcome.words, *(found.notes if found else ()), *(found.problems if found else ())))
        ),
    }


def _scatter(tuned: Tuned) -> figures.Scatter | None:
    """Returns sizes against the scores that trials were compared by, the front's points with their numbers."""
    report = tuned.report
    number = {point.trial: str(point.number) for point in tuned.front}
    best = next((str(p.number) for p in tuned.front if p.variant == report.best), None)
    variants = []
    for trial in tuned.trials:
        found = trial.outcome.measured
        if found is None or trial.outcome.state not in ("done", "stopped"):
            continue
        file = Artifact("tflite", "", found.sha256, int(found.costs["size"].value), 0)
        name = number.get(trial.number, f"trial {trial.number}: {recipe_words(trial.recipe)}")
        variants.append(Variant(name, trial.recipe["schemes"][0], (file,), metric=found.metric, drop=found.drop))
    budgets = Budgets(max_size_bytes=int(tuned.limits["size"])) if "size" in tuned.limits else Budgets()
    tried = replace(report, variants=tuple(variants), baseline=None, best=best, budgets=budgets, steps=())
    plot = figures.size_scatter(tried, named=set(number.values()))
    if plot is None:
        return None
    marks = [
        replace(m, role=m.role if m.role == "best" else "kept" if m.name in number.values() else "broken")
        for m in plot.marks
    ]
    return replace(plot, marks=marks)
