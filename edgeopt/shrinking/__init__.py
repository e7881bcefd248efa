"""Structured pruning as such: a model goes in; its groups of channels, what they are worth and smaller models come out.

`Channels` finds what must go together, `Chooser` decides what goes under a budget, `Refitter` makes up for it on
samples, `shrink` cuts it out, and `masked` is what the result is proven against: the model with those channels switched
off.
"""

from __future__ import annotations

from edgeopt.shrinking.blocks import Block, blocks, drop
from edgeopt.shrinking.budget import Sensitivity
from edgeopt.shrinking.channels import CHANNELS, HEADS, Channels, Cost, Cut, Group
from edgeopt.shrinking.choosing import BLOCKS, TRIES, Chooser, Chosen
from edgeopt.shrinking.joints import joints
from edgeopt.shrinking.masks import masked
from edgeopt.shrinking.probing import Probe
from edgeopt.shrinking.refitting import Refitted, Refitter
from edgeopt.shrinking.surgery import shrink

__all__ = [
    "BLOCKS",
    "CHANNELS",
    "HEADS",
    "TRIES",
    "Block",
    "Channels",
    "Chooser",
    "Chosen",
    "Cost",
    "Cut",
    "Group",
    "Probe",
    "Refitted",
    "Refitter",
    "Sensitivity",
    "blocks",
    "drop",
    "joints",
    "masked",
    "shrink",
]
