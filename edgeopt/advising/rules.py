"""What is known of a model goes in; the rule that speaks of each step comes out. The rules are one literal table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgeopt.advising.facts import Known

Verdict = Literal["do", "try", "skip", "unknown"]
DO: Verdict = "do"
TRY: Verdict = "try"
SKIP: Verdict = "skip"
UNKNOWN: Verdict = "unknown"


@dataclass(frozen=True)
class Cited:
    """A public document, and what it says."""

    says: str
    url: str


SOURCES: dict[str, Cited] = {
    "litert": Cited(
        "int8 after training: MobileNetV2 71.8 to 71.26 % (ImageNet, top 1)",
        "https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/model_optimization",
    ),
    "collapse": Cited(
        "int8 ruins EfficientNet and MobileNetV3 after training",
        "https://github.com/tensorflow/tensorflow/issues/55660",
    ),
    "equalization": Cited(
        "MobileNetV2 with one scale a layer: 0.1 % becomes 70 % and more by equalization, 71.2 % with corrected biases",
        "https://arxiv.org/abs/1906.04721",
    ),
    "adaround": Cited(
        "MobileNetV2 with weights of 4 bits, rounded by what layers compute: 69.25 % of 71.72 %",
        "https://arxiv.org/abs/2004.10568",
    ),
    "gptq": Cited(
        "weights are rounded one after another, each making up for those before", "https://arxiv.org/abs/2210.17323"
    ),
    "awq": Cited(
        "a few channels of a language model's activations are far larger: scaled, their weights lose less in few bits",
        "https://arxiv.org/abs/2306.00978",
    ),
    "qat": Cited(
        "trained with simulated int8: MobileNetV1 71.03 to 71.06 %, MobileNetV2 70.77 to 70.01 %",
        "https://www.tensorflow.org/model_optimization/guide/quantization/training",
    ),
    "channels": Cited("channels go whose loss the next layer can make up for", "https://arxiv.org/abs/1707.06342"),
    "distillation": Cited("a small network learns from a large one's answers", "https://arxiv.org/abs/1503.02531"),
    "not-smaller": Cited("a pruned file is no smaller", "https://github.com/tensorflow/model-optimization/issues/722"),
    "not-faster": Cited("nor faster", "https://github.com/tensorflow/model-optimization/issues/173"),
    "sparsity": Cited(
        "half of the weights zero: InceptionV3 78.1 to 78.0 %, MobileNetV1 71.04 to 70.84 %",
        "https://www.tensorflow.org/model_optimization/guide/pruning",
    ),
    "clustering": Cited(
        "MobileNetV1 with 32 clusters: 70.98 to 69.4 %, 14.97 to 4.43 MB zipped",
        "https://www.tensorflow.org/model_optimization/guide/clustering",
    ),
    "duplicates": Cited("channels alike may be merged without data", "https://arxiv.org/abs/1507.06149"),
}


@dataclass(frozen=True)
class Rule:
    """What is advised of a step under a condition.

    Attributes:
        step: a scheme or a technique; "*" for every one.
        verdict: "do" (it will bring something), "try" (it may, at a price), "skip", or "unknown".
        when: whether it holds; the first of a step's rules that does speaks.
        condition: the same in words.
        why: in words; {names} are facts.
        cites: keys of SOURCES.
        also: facts that are added where they are known.
    """

    step: str
    verdict: Verdict
    when: Callable[[Known], bool]
    condition: str
    why: str
    cites: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


def _always(known: Known) -> bool:
    return True


def _impossible(step: str) -> Callable[[Known], bool]:
    return lambda known: known.prospects[step].possible is False


def _no_samples(known: Known) -> bool:
    return not known.has("samples")


def _wanting(known: Known) -> bool:
    """Whether a target has no room for the model, or is not known to take it."""
    return known.facts["fits"].value is False


# Steps in the order in which they are taken; the rows of a step, the first that holds speaks.
RULES: tuple[Rule, ...] = (
    Rule(
        "*",
        SKIP,
        lambda k: k.has("quantized"),
        "the file is quantized already",
        "{quantized}: start from the float model that it was made of",
    ),
    Rule("shrink", SKIP, _impossible("shrink"), "it cannot be done here", "{trainable}"),
    Rule(
        "shrink",
        SKIP,
        _no_samples,
        "there are no samples",
        "channels are chosen and layers re-fitted on samples, and {samples}",
        ("channels",),
    ),
    Rule(
        "shrink",
        DO,
        lambda k: _wanting(k) and k.has("training"),
        "the target has no room, and there is a training set",
        "{fits}; only fewer channels make flash, RAM and time smaller at once; {training}",
        ("channels",),
    ),
    Rule(
        "shrink",
        TRY,
        _wanting,
        "the target has no room, and there is no training set",
        "{fits}; without a training set layers are re-fitted only (`--epochs 0`), for small cuts; {rank}",
        ("channels",),
    ),
    Rule(
        "shrink",
        TRY,
        lambda k: k.has("training") and (k.over("duplicates", 0.1) or k.over("dead", 0.02) or k.under("rank", 0.6)),
        "there is a training set, and weights are redundant",
        "{rank}, {duplicates}, {dead}: there may be room for half the work; {training}",
        ("channels", "duplicates"),
    ),
    Rule(
        "shrink",
        TRY,
        lambda k: k.has("training"),
        "there is a training set",
        "{rank}, {duplicates}: the weights alone do not say that channels can go: expect to pay in points; {busiest}",
        ("channels", "duplicates"),
    ),
    Rule(
        "shrink",
        SKIP,
        _always,
        "there is no training set",
        "{training}, and a cut without recovery costs points; {rank}",
        ("channels",),
    ),
    Rule("distill", SKIP, _impossible("distill"), "it cannot be done here", "{trainable}"),
    Rule(
        "distill",
        TRY,
        lambda k: _wanting(k) and k.has("training"),
        "the target has no room, and there is a training set",
        "{fits}; a student goes further than a cut, and needs more epochs; {training}",
        ("distillation",),
    ),
    Rule("distill", SKIP, lambda k: not k.has("training"), "there is no training set", "{training}", ("distillation",)),
    Rule(
        "distill",
        SKIP,
        _always,
        "nothing asks for so small a model",
        "`shrink` starts nearer to the model and needs fewer epochs; {largest}",
        ("distillation", "channels"),
    ),
    Rule(
        "prune", TRY, lambda k: k.has("sparsity"), "the target gains by zeros", "{sparsity}; {zeros} now", ("sparsity",)
    ),
    Rule(
        "prune",
        SKIP,
        _always,
        "nothing is known to gain by zeros",
        "a pruned file is as large as before, and runtimes multiply with zeros too; {sparsity}; {pointwise}",
        ("not-smaller", "not-faster"),
    ),
    Rule("cluster", TRY, lambda k: k.has("clusters"), "the target gains by few values", "{clusters}", ("clustering",)),
    Rule(
        "cluster",
        SKIP,
        _always,
        "nothing is known to gain by few values",
        "the file stays as large, only compressed downloads gain; {clusters}",
        ("clustering",),
    ),
    Rule("equalize", SKIP, _impossible("equalize"), "it cannot be done here", "{trainable}; {unevenness}"),
    Rule(
        "equalize",
        DO,
        lambda k: k.target is not None and k.target.best_scheme == "int8-per-tensor",
        "the target knows one scale a layer",
        "one scale a layer is what it has; {unevenness}; {depthwise}",
        ("equalization",),
    ),
    Rule(
        "equalize",
        TRY,
        lambda k: k.over("unevenness", 100.0),
        "channels differ a hundredfold in range",
        "{unevenness}, which also spreads what layers hand on; {int8_error}",
        ("equalization",),
    ),
    Rule(
        "equalize",
        SKIP,
        _always,
        "channels are alike enough",
        "every channel has a scale of its own in int8, and {unevenness}",
        ("equalization",),
    ),
    Rule("awq", SKIP, _impossible("awq"), "it cannot be done here", "{trainable}; {attention}"),
    Rule("awq", SKIP, _no_samples, "there are no samples", "what weights meet is measured on samples, and {samples}"),
    Rule(
        "awq",
        TRY,
        lambda k: k.has("attention"),
        "the model attends",
        "{attention}; for weights of few bits in groups (`int4-block32`), without labels",
        ("awq",),
    ),
    Rule("awq", SKIP, _always, "the model does not attend", "{attention}, and it is for language models", ("awq",)),
    Rule("qat", SKIP, _impossible("qat"), "it cannot be done here", "{trainable}"),
    Rule("qat", SKIP, lambda k: not k.has("training"), "there is no training set", "{training}", ("qat",)),
    Rule(
        "qat",
        UNKNOWN,
        lambda k: k.unknown("int8_loses"),
        "what int8 loses is not known",
        "it wins back what int8 loses, and {int8_loses}",
        ("qat",),
    ),
    Rule(
        "qat",
        TRY,
        lambda k: k.has("int8_loses"),
        "int8 loses, and there is a training set",
        "{int8_drop}, {int8_error}: repair first, which takes seconds; what is left training wins back; {training}",
        ("qat",),
    ),
    Rule(
        "qat",
        SKIP,
        _always,
        "int8 loses nothing",
        "it wins back what int8 loses, and {int8_loses}: {int8_error}",
        ("qat",),
    ),
    Rule("int8", SKIP, _impossible("int8"), "there cannot be such a file", "{float32}"),
    Rule("int8", SKIP, lambda k: k.facts["takes_int8"].value is False, "the target refuses it", "{takes_int8}"),
    Rule(
        "int8",
        UNKNOWN,
        _no_samples,
        "there are no samples",
        "some hundred inputs without labels set its ranges, and {samples}; {int8_bytes}; {smooth}",
        ("litert", "collapse"),
    ),
    Rule(
        "int8",
        DO,
        lambda k: k.has("int8_loses"),
        "it loses",
        "{int8_bytes}, but {int8_drop}, {int8_error}: mend it (below); {depthwise}, {smooth}",
        ("collapse",),
        also=("fits", "latency"),
    ),
    Rule(
        "int8",
        DO,
        _always,
        "it loses nothing that shows",
        "{int8_bytes}; {int8_drop}; {int8_error}",
        ("litert",),
        also=("fits", "latency"),
    ),
    Rule("calibrate", SKIP, _no_samples, "there are no samples", "ranges are chosen on samples, and {samples}"),
    Rule(
        "calibrate",
        UNKNOWN,
        lambda k: k.unknown("int8_loses"),
        "what int8 loses is not known",
        "{int8_loses}; `edgeopt repair` keeps it only where it is shown to help",
    ),
    Rule(
        "calibrate",
        DO,
        lambda k: k.has("int8_loses"),
        "int8 loses",
        "{int8_drop}, {int8_error}; seconds, no labels, kept only where it is shown to help; {smooth}",
        ("collapse",),
    ),
    Rule("calibrate", SKIP, _always, "int8 loses nothing", "{int8_loses}: {int8_error}"),
    Rule(
        "correct-bias",
        SKIP,
        _no_samples,
        "there are no samples",
        "what rounding shifts is measured on samples, and {samples}",
    ),
    Rule(
        "correct-bias",
        UNKNOWN,
        lambda k: k.unknown("int8_loses"),
        "what int8 loses is not known",
        "{int8_loses}; `edgeopt repair` keeps it only where it is shown to help",
    ),
    Rule(
        "correct-bias",
        DO,
        lambda k: k.has("int8_loses"),
        "int8 loses",
        "{int8_drop}, {int8_error}; most is shifted in depthwise layers: {depthwise}",
        ("equalization",),
    ),
    Rule("correct-bias", SKIP, _always, "int8 loses nothing", "{int8_loses}: {int8_error}"),
    Rule("int4", SKIP, _impossible("int4"), "there cannot be such a file", "{float32}"),
    Rule("int4", SKIP, lambda k: k.facts["takes_int4"].value is False, "the target refuses it", "{takes_int4}"),
    Rule(
        "int4",
        SKIP,
        lambda k: k.over("graph", 0.7),
        "most of the int8 file are no weights",
        "{graph}, which fewer bits leave as they are",
    ),
    Rule(
        "int4",
        UNKNOWN,
        lambda k: k.unknown("int4_error"),
        "what it loses is not known",
        "{int4_error}; {graph}",
        ("adaround",),
    ),
    Rule(
        "int4",
        TRY,
        lambda k: k.over("int4_error", 25.0),
        "four bits leave 25 dB or more",
        "{int4_error}, next to no loss with `round`; {graph}; smaller, and slower on CPUs with XNNPACK",
        ("adaround", "gptq"),
    ),
    Rule(
        "int4",
        TRY,
        lambda k: k.over("int4_error", 15.0) and k.has("training"),
        "four bits leave 15 dB or more, and there is a training set",
        "{int4_error}: some points, which training with four bits (`qat --weight-bits 4`) wins back; {training}",
        ("adaround",),
    ),
    Rule(
        "int4",
        SKIP,
        _always,
        "four bits lose too much",
        "{int4_error}, which is too little in all layers at once; `mixed` spares the worst",
        ("adaround",),
    ),
    Rule(
        "round", SKIP, _no_samples, "there are no samples", "integers are chosen on samples, and {samples}", ("gptq",)
    ),
    Rule(
        "round",
        TRY,
        lambda k: k.over("int4_error", 15.0) and k.facts["takes_int4"].value is not False and not k.over("graph", 0.7),
        "int4 may do",
        "it is what int4 needs: {int4_error}; seconds a layer, no labels",
        ("adaround", "gptq"),
    ),
    Rule(
        "round",
        SKIP,
        _always,
        "int4 is not advised",
        "of 8 bits with a scale for each channel there is next to nothing to win back, and of fewer bits: {int4_error}",
        ("gptq",),
    ),
    Rule(
        "mixed",
        SKIP,
        _no_samples,
        "there are no samples",
        "what each layer loses is measured on samples, and {samples}",
    ),
    Rule("mixed", SKIP, lambda k: k.facts["takes_int4"].value is False, "the target refuses four bits", "{takes_int4}"),
    Rule(
        "mixed",
        SKIP,
        lambda k: k.over("graph", 0.7),
        "most of the int8 file are no weights",
        "{graph}, which fewer bits leave as they are",
    ),
    Rule(
        "mixed",
        TRY,
        lambda k: k.under("int4_error", 25.0),
        "four bits lose in all layers at once",
        "{int4_error} in all layers at once: eight where it hurts; {graph}",
        ("gptq",),
    ),
    Rule("mixed", UNKNOWN, lambda k: k.unknown("int4_error"), "what four bits lose is not known", "{int4_error}"),
    Rule(
        "mixed",
        SKIP,
        _always,
        "four bits do for all layers",
        "{int4_error} in all layers at once: there is no need to choose",
        ("gptq",),
    ),
    Rule("int16x8", SKIP, _impossible("int16x8"), "there cannot be such a file", "{float32}"),
    Rule("int16x8", SKIP, _no_samples, "there are no samples", "its ranges are set on samples, and {samples}"),
    Rule("int16x8", SKIP, lambda k: k.facts["takes_wide"].value is False, "the target refuses it", "{takes_wide}"),
    Rule(
        "int16x8",
        TRY,
        lambda k: k.has("int8_loses"),
        "int8 loses",
        "{int8_drop}, {int8_error}: where repair is not enough, at the price of speed; {takes_wide}",
    ),
    Rule("int16x8", SKIP, _always, "int8 loses nothing", "slower than int8, and {int8_loses}: {int8_error}"),
    Rule("dynamic", SKIP, _impossible("dynamic"), "there cannot be such a file", "{float32}"),
    Rule(
        "dynamic", SKIP, lambda k: k.facts["takes_dynamic"].value is False, "the target refuses it", "{takes_dynamic}"
    ),
    Rule("dynamic", DO, _no_samples, "there are no samples", "{samples}, and it needs none; {depthwise}", ("litert",)),
    Rule(
        "dynamic",
        SKIP,
        _always,
        "there are samples",
        "int8 computes in integers throughout, and {samples}; {depthwise}",
    ),
    Rule("float16", SKIP, _impossible("float16"), "there cannot be such a file", "{float32}"),
    Rule(
        "float16", SKIP, lambda k: k.facts["takes_float16"].value is False, "the target refuses it", "{takes_float16}"
    ),
    Rule(
        "float16",
        DO,
        lambda k: k.target is not None and k.target.best_scheme == "float16",
        "it is what the target is best at",
        "{takes_float16}",
    ),
    Rule(
        "float16",
        SKIP,
        _always,
        "nothing asks for it",
        "twice int8's bytes and no faster on a CPU; {float32}, {int8_bytes}",
    ),
)


def steps() -> tuple[str, ...]:
    """Returns the steps that rules speak of, in their order."""
    return tuple(dict.fromkeys(rule.step for rule in RULES if rule.step != "*"))


def rule_for(step: str, known: Known) -> Rule:
    """Returns the first rule of a step that holds."""
    return next(rule for rule in RULES if rule.step in ("*", step) and rule.when(known))
