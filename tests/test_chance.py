"""Seeds of single draws: the same for the same purpose, others for others."""

from __future__ import annotations

import itertools

from edgeopt.chance import generator, seed_for


def test_every_purpose_has_a_seed_of_its_own() -> None:
    keys = list(itertools.product(range(20), ("order", "augmentation"), range(20)))
    seeds = [seed_for(seed, purpose, epoch) for seed, purpose, epoch in keys]
    assert len(set(seeds)) == len(keys)
    assert seeds == [seed_for(seed, purpose, epoch) for seed, purpose, epoch in keys]
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_generator_follows_from_the_same() -> None:
    assert generator(3, "a").integers(1 << 30) == generator(3, "a").integers(1 << 30)
    assert generator(3, "a").integers(1 << 30) != generator(3, "b").integers(1 << 30)
