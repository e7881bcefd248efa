"""What may be said about a technique: how it trains, what every step has, and the defaults of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeopt.choices import Choices, keys, option
from edgeopt.errors import setting


@dataclass(frozen=True, kw_only=True)
class Training(Choices):
    """How a model is trained. None means that it was not said: the step, the recipe and the technique's own
    defaults are asked in this order.
    """

    epochs: int | None = option(None, "Passes over the training samples.", low=1, high=100_000)
    batch_size: int | None = option(None, "Samples a training step.", low=1, high=65_536)
    train_samples: int | None = option(
        None, "Train on at most so many of the training samples, evenly of each class; else on all.", low=2
    )
    learning_rate: float | None = option(
        None,
        "The schedule's peak. Where it is not said, short trials choose it around what the technique has by default.",
        above=0.0,
        high=100.0,
        hint="1e-3",
    )
    optimizer: str | None = option(None, "What follows the gradients.", choices=("adam", "adamw", "sgd"))
    decay: str | None = option(
        None, "How the learning rate falls after the warm-up.", choices=("cosine", "linear", "constant")
    )
    warmup: float | None = option(
        None, "Share of all steps over which the learning rate rises.", low=0.0, below=1.0, hint="0.1"
    )
    weight_decay: float | None = option(None, "Decoupled (adamw), on kernels only.", low=0.0)
    loss: tuple[str, ...] | None = option(
        None,
        "What is learned from labels, instead of what the model was compiled with, or its task's own: a Keras loss or "
        "a function f(labels, outputs) that gives a number for each sample; of one output with its name before it, "
        "without it a function gets several outputs at once, as dicts by name.",
        metavar="[OUTPUT=]NAME|module:function",
    )
    class_weight: str | None = option(
        None,
        "How much each class counts: balanced (all the same together), or weights by name or number, 1 if not named; "
        "or a JSON file of such.",
        metavar="balanced|CLASS=N,…|FILE.json",
    )
    label_smoothing: float | None = option(None, "Share of a label's weight spread over all classes.", low=0, below=1)
    augment: str | None = option(
        None,
        "How training samples are varied, masks with their pictures: none, shift, image (flipped and shifted), "
        "spectrogram, or a function f(inputs, labels), or f(inputs, labels, seed), that returns both; auto is image "
        "for pictures in colour where a teacher answers for what is varied, else none.",
        metavar="auto|none|shift|image|spectrogram|module:function",
    )
    patience: int | None = option(
        None, "Stop after so many epochs without a better loss on the tuning samples, and keep the best weights.", low=1
    )
    teacher: str | None = option(
        None,
        "Whom recovery learns from beside the labels: original (the model before any step), none, or a model file.",
        metavar="original|none|FILE",
    )
    temperature: float | None = option(None, "Softens both outputs in distillation.", above=0.0)
    alpha: float | None = option(
        None, "Weight of the teacher in the loss; the labels have the rest. 1 needs no labels.", low=0.0, high=1.0
    )


@dataclass(frozen=True, kw_only=True)
class Untrained(Training):
    """How a step is done that may do without training, where it is asked to."""

    epochs: int | None = option(0, "None.", low=0, high=0)


# Where neither step nor recipe nor technique says anything.
DEFAULTS = Training(
    epochs=10,
    batch_size=64,
    learning_rate=1e-3,
    optimizer="adam",
    decay="cosine",
    warmup=0.05,
    weight_decay=0.0,
    label_smoothing=0.0,
    augment="auto",
    teacher="original",
    temperature=4.0,
    alpha=0.5,
)


@dataclass(frozen=True, kw_only=True)
class Step(Choices):
    """Base of the techniques' choices; `technique` is the key of TECHNIQUES."""

    technique: ClassVar[str]

    max_drop: float | None = option(
        None, "Roll the step back when it loses more than so many points (per cent for errors), beyond chance.", low=0.0
    )
    strict: bool = option(
        False, f"Hold {setting('max_drop')} against the loss as measured, also where chance may explain it."
    )


@dataclass(frozen=True, kw_only=True)
class TrainedStep(Step, Training):
    """Base of the choices of techniques that train; DEFAULTS are the technique's own."""

    defaults: ClassVar[Training] = Training()

    def training(self, recipes: Training | None = None) -> Training:
        """Returns how to train, with nothing left unsaid but `patience` and `train_samples`."""
        kind = Untrained if self.epochs == 0 else Training
        own = kind(**{k.name: getattr(self, k.name) for k in keys(Training)})
        return own.over(recipes or Training()).over(self.defaults).over(DEFAULTS)
