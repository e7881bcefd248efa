"""`edgeopt cluster`."""

from __future__ import annotations

from edgeopt.cli.techniques import technique_command

command = technique_command(
    "cluster",
    """Cluster a model: let the weights of a layer share a few values, so that the file compresses.

    \b
      edgeopt cluster model.keras --data data.npz -o clustered.keras --clusters 16
    """,
)
