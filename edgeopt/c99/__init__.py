"""A TFLiteModel goes in, C99 source files that compute it come out: no allocation, no dependency, the arena planned.

The header of a model called `kws` is its whole interface::

    #include "kws.h"

    #define KWS_INPUTS 1                 /* how many, of each the macros below */
    #define KWS_INPUT_0_TYPE int8_t      /* or uint8_t, int16_t, int32_t, float */
    #define KWS_INPUT_0_SIZE 490         /* elements */
    #define KWS_INPUT_0_BYTES 490
    #define KWS_INPUT_0_SCALE 0.5f       /* real = SCALE * (q - ZERO_POINT); absent where not quantized */
    #define KWS_INPUT_0_ZERO_POINT (-1)
    #define KWS_OUTPUTS 1                /* KWS_OUTPUT_0_TYPE, _SIZE, _BYTES, _SCALE, _ZERO_POINT */
    #define KWS_ARENA_BYTES 9120         /* static memory of the library, inputs and outputs included */

    void *kws_input(int index);          /* where the caller writes an input */
    void kws_invoke(void);               /* computes the outputs; the inputs' memory is used up: write them anew */
    const void *kws_output(int index);   /* where the outputs stand until the next invoke */

`index` counts the model's inputs and outputs from 0 in the order of the file. The arena is a static array of the
library, so one copy of a model runs at a time. Files: `include/<name>.h`, `src/<name>.c`, `src/<name>_weights.c`,
`src/<name>_weights.h`; `include` has to be on the include path.
"""

from __future__ import annotations

from edgeopt.c99.call import Packing
from edgeopt.c99.generation import PACKS, ROUNDINGS, Library, generate, unsupported
from edgeopt.c99.memory import Placement

# Key of `formats.FORMATS`.
TAKES = "tflite"

__all__ = ["PACKS", "ROUNDINGS", "TAKES", "Library", "Packing", "Placement", "generate", "unsupported"]
