"""Cross-layer equalization: a model and samples go in; the same function, its channels alike in range, comes out.

One scale for all weights of a layer, as `int8-per-tensor` has it, leaves a channel with small weights few of its 256
values. Where the next layer can make up for it, channels are scaled until all have their share: Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721).
"""

from __future__ import annotations

from edgeopt.equalizing.absorbing import Absorbed, absorb
from edgeopt.equalizing.clipping import Clips, answers, clipping, judged, unclipped
from edgeopt.equalizing.folding import factors, folded
from edgeopt.equalizing.preparing import prepared
from edgeopt.equalizing.scaling import Kernel, Pair, Scaling
from edgeopt.equalizing.solving import Solution, solve, spread, unevenness

__all__ = [
    "Absorbed",
    "Clips",
    "Kernel",
    "Pair",
    "Scaling",
    "Solution",
    "absorb",
    "answers",
    "clipping",
    "factors",
    "folded",
    "judged",
    "prepared",
    "solve",
    "spread",
    "unclipped",
    "unevenness",
]
