"""An operator with weights goes in; the matrices that it multiplies come out: [groups, rows, columns].

CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED are one thing here: output channel g * rows + r is row r of group g, and
its columns meet what one window of group g's input channels holds. A depthwise convolution has a group per channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeopt.tflite.model import Operator, Subgraph, Tensor
from edgeopt.windows import missing_for_same

# They pass a matrix for each output channel, and nothing else, over their inputs.
LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Layout:
    """How weights and inputs of an operator lie as matrices.

    Attributes:
        groups, rows, columns: of the matrices.
        shape: of the weights as stored.
        window: height and width of a filter; None for FULLY_CONNECTED.
        depthwise: channels are the last axis of the weights, not the first.
        strides, dilation: along height and width.
        same: the input is padded with zeros, real ones, so that strides alone decide the output's size.
    """

    groups: int
    rows: int
    columns: int
    shape: tuple[int, ...]
    window: tuple[int, int] | None = None
    depthwise: bool = False
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    same: bool = False

    @property
    def axis(self) -> int:
        """The axis of the stored weights along which output channels lie."""
        return len(self.shape) - 1 if self.depthwise else 0

    def matrix(self, weights: np.ndarray) -> np.ndarray:
        """Returns stored weights as [groups, rows, columns]."""
        return np.moveaxis(weights, self.axis, 0).reshape(self.groups, self.rows, self.columns)

    def stored(self, matrix: np.ndarray) -> np.ndarray:
        """Returns the inverse of `matrix`."""
        rest = tuple(n for axis, n in enumerate(self.shape) if axis != self.axis)
        return np.moveaxis(matrix.reshape(self.groups * self.rows, *rest), 0, self.axis)

    def positions(self, shape: tuple[int, ...]) -> int:
        """Returns at how many places of a sample's input the matrices are applied."""
        if self.window is None:
            return max(1, math.prod(shape[1:]) // self.columns)
        return math.prod(self._sizes(shape[1:3]))

    def patches(self, inputs: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        """Returns what the matrices are multiplied with, float32 [groups, samples * places, columns].

        Args:
            inputs: real values [N, ...]; padding is 0.0, which is what the zero point stands for.
            places: which of a sample's positions, int [places]; all where None.
        """
        count = len(inputs)
        if self.window is None:
            rows = inputs.reshape(count, -1, self.columns)
            rows = rows if places is None else rows[:, places]
            return np.ascontiguousarray(rows.reshape(1, -1, self.columns), np.float32)
        size = self._sizes(inputs.shape[1:3])
        padded = np.pad(inputs, ((0, 0), *self._padding(inputs.shape[1:3]), (0, 0)))
        extent = tuple(d * (k - 1) + 1 for k, d in zip(self.window, self.dilation))
        windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(1, 2))  # type: ignore[call-overload]  # NumPy stubs know one axis
        (sy, sx), (dy, dx) = self.strides, self.dilation
        windows = windows[:, ::sy, ::sx, :, ::dy, ::dx][:, : size[0], : size[1]]  # [N, oh, ow, C, kh, kw]
        y, x = np.divmod(np.arange(math.prod(size)) if places is None else places, size[1])
        taken = windows[:, y, x]  # [N, places, C, kh, kw]
        each = taken.reshape(count, len(y), self.groups, -1, *self.window)
        ordered = each.transpose(2, 0, 1, 4, 5, 3)
        return np.ascontiguousarray(ordered.reshape(self.groups, count * len(y), self.columns), np.float32)

    def results(self, outputs: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        """Returns an operator's outputs [N, ..., channels] as [groups, samples * places, rows]."""
        flat = outputs.reshape(len(outputs), -1, self.groups, self.rows)
        flat = flat if places is None else flat[:, places]
        return flat.reshape(-1, self.groups, self.rows).transpose(1, 0, 2)

    def _sizes(self, sizes: tuple[int, ...]) -> tuple[int, int]:
        assert self.window is not None
        extent = [d * (k - 1) + 1 for k, d in zip(self.window, self.dilation)]
        if self.same:
            height, width = (-(-n // s) for n, s in zip(sizes, self.strides))
        else:
            height, width = (max(0, (n - e) // s + 1) for n, e, s in zip(sizes, extent, self.strides))
        return height, width

    def _padding(self, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
        assert self.window is not None
        if not self.same:
            return [(0, 0), (0, 0)]
        extent = [d * (k - 1) + 1 for k, d in zip(self.window, self.dilation)]
        missing = [missing_for_same(n, e, s) for n, e, s in zip(sizes, extent, self.strides)]
        return [(m // 2, m - m // 2) for m in missing]


def layout(graph: Subgraph, operator: Operator, weights: Tensor) -> Layout | None:
    """Returns how an operator's weights and inputs line up; None where it is no such operator."""
    given = graph.operand(operator, 0)
    if operator.name not in LINEAR or given is None:
        return None
    shape, options = weights.shape, operator.options
    if operator.name == "FULLY_CONNECTED":
        return Layout(1, shape[0], shape[1], shape) if len(shape) == 2 else None
    if len(shape) != 4 or len(given.shape) != 4:
        return None
    channels = given.shape[3]
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    outputs = shape[3] if depthwise else shape[0]
    groups = channels if depthwise else channels // max(1, shape[3])
    if not groups or outputs % groups or (not depthwise and groups * shape[3] != channels):
        return None
    return Layout(
        groups=groups,
        rows=outputs // groups,
        columns=shape[1] * shape[2] * (1 if depthwise else shape[3]),
        shape=shape,
        window=(shape[1], shape[2]),
        depthwise=depthwise,
        strides=(options["stride_h"], options["stride_w"]),
        dilation=(options["dilation_h_factor"], options["dilation_w_factor"]),
        same=options["padding"] == "SAME",
    )
