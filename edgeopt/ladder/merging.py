"""What several recipes made of a model goes in; one outcome, each variant once and by its own name, comes out."""

from __future__ import annotations

import itertools
from dataclasses import replace

from edgeopt.carry_out import Outcome
from edgeopt.vocabulary import Variant


def fresh(held: Outcome, made: Outcome) -> Outcome:
    """Returns what of `made` is not in `held`, under names that are free there.

    Recipes that begin alike share their beginning: the same name and content is the same variant. A name that stands
    for another file is numbered.
    """
    names: dict[str, str] = {}
    taken = {variant.name: variant for variant in held.variants}
    for variant in made.variants:
        name = _free(variant, taken)
        names[variant.name] = name
        taken.setdefault(name, replace(variant, name=name))
    known = {variant.name for variant in held.variants}
    records = (
        replace(record, before=names.get(record.before, record.before), after=names.get(record.after, record.after))
        for record in made.records
    )
    old = {(record.before, record.after) for record in held.records}
    return Outcome(
        tuple(variant for name, variant in taken.items() if name not in known),
        tuple(record for record in records if (record.before, record.after) not in old),
        made.notes,
        {names[name]: reference for name, reference in made.references.items() if names.get(name, name) not in known},
    )


def joined(held: Outcome, more: Outcome) -> Outcome:
    """Returns both in one; what `more` says of a variant of the same name takes the place of what was known."""
    found = {variant.name: variant for variant in (*held.variants, *more.variants)}
    return Outcome(
        tuple(found.values()),
        (*held.records, *more.records),
        tuple(dict.fromkeys((*held.notes, *more.notes))),
        {**held.references, **more.references},
    )


def _free(variant: Variant, taken: dict[str, Variant]) -> str:
    stem, suffix = (variant.name.removesuffix(f".{variant.scheme}"), f".{variant.scheme}")
    if stem == variant.name:
        suffix = ""
    for number in itertools.count(1):
        name = variant.name if number == 1 else f"{stem}-{number}{suffix}"
        if name not in taken or (taken[name].sha256 == variant.sha256 and taken[name].error == variant.error):
            return name
    raise AssertionError("unreachable: there are numbers enough")
