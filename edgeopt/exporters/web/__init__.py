"""A `.tflite` for the web: the model and what it sees or hears go in, a static page that tests itself comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.choices import Choices, option
from edgeopt.errors import ConfigError, setting

if TYPE_CHECKING:
    from edgeopt.exporters.contract import Project, Source


@dataclass(frozen=True, kw_only=True)
class Web(Choices):
    """What may be said of a page.

    Attributes:
        input: what its user gives: "auto" is a picture where the input is one, as for Android, and numbers elsewhere.
        peak: the raw value of white in a picture, 255 if None, or of the loudest sample of a sound, 1 if None.
        sample_rate: of the sound that the model was trained on, in Hz.
        features: what the model takes of a sound, as tf.signal computes it.
        window_ms, hop_ms, mel_low, mel_high, mel_bands, spectrum, log: of the features; the input's shape says how many
            frames and bands, or coefficients, there are. `mel_high` is half the sample rate if None.
        litert_js: a node_modules folder with LiteRT.js, which is copied; `npm install` gets it later if None.

    Raises:
        ConfigError: a sound without its sample rate, or mel bands that it does not hold.
    """

    input: str = option(
        "auto", "What the page takes; auto sees pictures.", choices=("auto", "picture", "sound", "numbers")
    )
    peak: float | None = option(
        None, "Raw value of white, 255 if not given, or of the loudest sound, 1 if not given.", above=0
    )
    sample_rate: int | None = option(None, "Of the sound, in Hz.", low=3000, high=192_000)
    features: str = option("waveform", "What the model takes of a sound.", choices=("waveform", "log-mel", "mfcc"))
    window_ms: float = option(30.0, "Of one frame of the features.", above=0, high=1000)
    hop_ms: float = option(20.0, "From one frame to the next.", above=0, high=1000)
    mel_low: float = option(20.0, "Where the mel bands begin, in Hz.", low=0)
    mel_high: float | None = option(None, "Where they end; half the sample rate if not given.", above=0)
    mel_bands: int = option(40, "That MFCCs are made of; of log-mel the input's shape says it.", low=2, high=512)
    spectrum: str = option("magnitude", "What the bands add up.", choices=("magnitude", "power"))
    log: str = option("ln", "Of the bands.", choices=("ln", "log10", "db"))
    litert_js: str | None = option(
        None, "A node_modules folder with @litertjs/core, copied into the page.", metavar="DIR"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input != "sound":
            return
        if self.sample_rate is None:
            raise ConfigError(
                f"Expected the sample rate of the sound that the model was trained on, got none. "
                f"Try {setting('sample_rate', 16000)}."
            )
        if not self.mel_low < (self.mel_high or self.sample_rate / 2) <= self.sample_rate / 2:
            raise ConfigError(
                f"Expected mel bands between 0 and {self.sample_rate / 2:g} Hz, half the sample rate, got "
                f"{self.mel_low:g} to {self.mel_high or self.sample_rate / 2:g}. Try {setting('mel_low', 20)}."
            )


def project(source: Source, settings: Web) -> Project:
    """Returns the page around `source`.

    Raises:
        ConfigError: the input is not what `settings` says, or `litert_js` holds no LiteRT.js of the right version.
        ModelError: LiteRT.js cannot fill an input or read an output, or the model remembers its last call.
        UnavailableError: LiteRT, which computes the golden outputs, is not installed.
    """
    from edgeopt.exporters.web.files import project as made

    return made(source, settings)
