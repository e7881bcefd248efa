"""What edgeopt makes of the same: a job as JSON goes in, a file comes out. Beside it stands `bench/by_hand.py`.

    python -m bench.ours '{"model": "model.keras", "data": "data.npz", "output": "out.tflite", "work": "work",
                           "steps": [{"prune": {"sparsity": 0.8}}], "scheme": "int8", "epochs": 6, "augment": "none",
                           "seed": 0}'

Steps that an earlier job did in the same `work` folder are not trained again: pruning for PQAT is pruning alone.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from edgeopt import data as datasets
from edgeopt.carry_out import carry_out
from edgeopt.recipe import Recipe, steps_from
from edgeopt.steps import Training
from edgeopt.workspace import Workspace


def main() -> None:
    """Does the job, and prints which promises were not kept."""
    job = json.loads(sys.argv[1])
    recipe = Recipe(
        steps=steps_from(job["steps"]),
        schemes=(job["scheme"],),
        training=Training(epochs=job["epochs"], augment=job["augment"]),
        seed=job["seed"],
    )
    data, work = datasets.load(job["data"]), Path(job["work"])
    with Workspace(Path(job["model"]), data, work) as workspace:
        outcome = carry_out(recipe, workspace)
    # A step that broke its promise is shown as it is, and not as what came before it.
    wanted = outcome.records[-1].after if outcome.records else job["scheme"]
    shutil.copyfile(work / str(next(v for v in outcome.variants if v.name == wanted).file), job["output"])
    broken = [f"{record.technique}: {record.rolled_back}" for record in outcome.records if record.rolled_back]
    print(json.dumps({"broken": broken}))


if __name__ == "__main__":
    main()
