"""Processes that take trials, of this machine and of a Ray cluster: whoever dies loses its trial alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import cheap_trials
from edgeopt import data as datasets
from edgeopt.errors import ConfigError, UnavailableError
from edgeopt.search.hands import Hands, Here
from edgeopt.search.on_ray import LOCAL, OnRay
from edgeopt.search.trying import Address, Bench, cores
from edgeopt.search.tuning import Leader
from edgeopt.workspace import Conditions

BENCH = "bench.cheap_trials:Mortal"
Open = Callable[[Path], Hands]


def address(folder: Path) -> Address:
    return Address(Path("model.keras"), datasets.load("digits"), folder, Conditions(), ("quality", "size"))


@pytest.fixture(params=["here", "ray"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """What opens two processes that work in a folder."""
    hands: list[Hands] = []

    def open_them(folder: Path) -> Hands:
        if request.param == "ray":
            pytest.importorskip("ray", reason="install 'edgeopt[ray]'")
            hands.append(OnRay(address(folder), 2, LOCAL, bench=BENCH))
        else:
            hands.append(Here(address(folder), 2, bench=BENCH))
        return hands[-1]

    yield open_them
    for one in hands:
        one.close()


def test_a_process_killed_in_mid_trial_loses_its_trial_alone(opened: Open, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    search = cheap_trials.search(trials=5, recipe={"schemes": ["int4", "int8", "float16", "dynamic", "int16x8"]})
    study = cheap_trials.study(f"sqlite:///{tmp_path / 'study.db'}")
    leader = Leader(search, study, search.space(cheap_trials.DATA), time.monotonic())
    assert leader.lead(opened(folder)) == "trials"
    ended = {(t.recipe["schemes"][0], t.outcome.state) for t in study.trials if t.outcome.state != "again"}
    done = {("int4", "done"), ("int8", "done"), ("dynamic", "done"), ("int16x8", "done")}
    assert ended == done | {("int8", "lost"), ("float16", "failed")}
    (failed,) = (t.outcome.words for t in study.trials if t.outcome.state == "failed")
    assert failed == "Expected another scheme, got float16."
    # It was begun anew in another process.
    assert len(list(folder.glob("int8-*"))) == 2


def test_a_folder_that_a_clusters_machine_does_not_reach_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected .*elsewhere to be a folder that .* reaches too, got none there"):
        Bench(address(tmp_path / "elsewhere")).ready()


def test_a_cluster_that_is_not_there_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"The Ray cluster 127.0.0.1:1 cannot be reached: .* or ray: local"):
        OnRay(address(tmp_path), 1, "127.0.0.1:1")


def test_cores_are_divided_evenly() -> None:
    assert [cores([0, 1, 2, 3], i, 2) for i in range(2)] == [(0, 2), (1, 3)]
    assert [cores([4, 7], i, 3) for i in range(3)] == [(4,), (7,), (4,)]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are shared out on Linux alone")
def test_a_process_keeps_to_its_share_of_the_cores() -> None:
    from edgeopt import workers

    there = os.sched_getaffinity(0)
    if len(there) < 2:
        pytest.skip("there is one core")
    with workers.Worker() as worker:
        worker.call("edgeopt.search.trying:take_share", 1, 2)
        assert worker.call("os:sched_getaffinity", 0) == set(sorted(there)[1::2])
