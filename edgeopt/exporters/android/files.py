"""The files of an Android project: a Source and settings go in, a Project comes out."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt import delegates
from edgeopt.exporters import streaming
from edgeopt.exporters.android import COMPILED_MODEL_SDK, Android, layout, notes, rendering
from edgeopt.exporters.android.layout import LITERT_BEFORE, MODULE, Classes
from edgeopt.exporters.contract import Project, Source
from edgeopt.exporters.edges import picture
from edgeopt.exporters.names import camel
from edgeopt.exporters.shipped import Golden
from edgeopt.exporters.shipped import golden as golden_of
from edgeopt.tflite import metadata

# What the generated classes fill and read: as floats, from which integers are made by scale, or by rounding.
SUPPORTED = ("float32", "int8", "uint8", "int16", "int32", "int64", "bool")
# What Kotlin's TensorBuffer reads and writes.
_KOTLIN_TYPES = ("float32", "int8", "int32", "bool")
_CLASSES = Classes(
    "README.md.j2",
    "model/Model.java.j2",
    "model/SelfTest.java.j2",
    "model/OnDevice.java.j2",
    "app/MainActivity.java.j2",
)


def project(source: Source, settings: Android) -> Project:
    """Returns the project around `source`; raises as `android.project`."""
    remembers = streaming.remembers(source, streaming=settings.streaming)
    golden = golden_of(source, settings.io, supported=SUPPORTED)
    note, remarks = notes.note(source, golden.model)
    content = metadata.with_note(golden.content, note)
    types = {spec.dtype for spec in (*golden.inputs, *golden.outputs)}
    # CompiledModel opens no variable tensors, and has no way back to what variables start with.
    kotlin = settings.min_sdk >= COMPILED_MODEL_SDK and types <= set(_KOTLIN_TYPES) and not remembers
    values = {
        **_values(source, settings, golden, kotlin=kotlin),
        "remembers": remembers,
        "streaming": settings.streaming,
    }
    templates = dict(layout.templates(_CLASSES, values))
    if kotlin:
        templates[f"{layout.sources(values)}/{values['compiled']}.kt"] = "model/CompiledModel.kt.j2"
    if source.stream is not None:
        templates[f"{layout.sources(values)}/{values['carrier']}.java"] = "model/Stream.java.j2"
    made = {path: rendering.render(template, values) for path, template in templates.items()}
    assets = f"{MODULE}/src/main/assets/{source.name}"
    return Project(
        {**made, f"{assets}.tflite": content, f"{assets}.golden": golden.packed},
        facts={
            "model_bytes": len(content),
            "inputs_and_outputs": ", ".join(sorted(types)),
            **({"classes": len(source.classes)} if source.classes else {}),
            "self_test_samples": len(source.samples),
            "litert": values["litert"],
        },
        notes=(*_notes(source, settings, types, remembers=remembers), *remarks),
        next_steps=layout.next_steps(settings),
    )


def _values(source: Source, settings: Android, golden: Golden, *, kotlin: bool) -> dict[str, object]:
    """Returns what the templates are filled with."""
    base = camel(source.name).removesuffix("Model")
    # CompiledModel is LiteRT's.
    base = f"My{base}" if base in ("", "Compiled") else base
    return {
        **layout.values(source, settings, model=f"{base}Model", test=f"{base}SelfTest"),
        "compiled": f"{base}CompiledModel",
        "stream": source.stream,
        "places": None if source.stream is None else streaming.places(source.stream, source.model),
        "carrier": f"{base}Stream",
        "kotlin": kotlin,
        # LiteRT 2 has taken delegates out of its Interpreter.
        "delegates": settings.min_sdk < COMPILED_MODEL_SDK,
        "classes": source.classes,
        "preprocessing": source.preprocessing,
        "picture": picture(source, golden.model),
        "inputs": golden.inputs,
        "outputs": golden.outputs,
        "golden": golden,
        "left": delegates.left(golden.model, "gpu"),
    }


def _notes(source: Source, settings: Android, types: set[str], *, remembers: bool) -> Iterator[str]:
    if not source.from_data:
        yield "the self-test runs on generated inputs; --data DATA takes real ones"
    for spec in source.model.inputs:
        if None in spec.shape[1:]:
            sizes = " x ".join("?" if size is None else str(size) for size in spec.shape)
            yield f"free sizes of {spec.name!r}, {sizes}, are fixed as the file stores them: better convert fixed ones"
    if "int8" in types:
        yield "MediaPipe Tasks refuses int8 inputs; --io uint8 or --io float32 gives it a file that it takes"
    if settings.min_sdk < COMPILED_MODEL_SDK:
        yield f"below API level {COMPILED_MODEL_SDK} there is LiteRT {LITERT_BEFORE}: its Interpreter and delegates"
    elif odd := ", ".join(sorted(types - set(_KOTLIN_TYPES))):
        missing = "no CompiledModel class was written, and the model runs on the CPU; --io float32 brings it"
        yield f"Kotlin's TensorBuffer has no {odd}: {missing}"
    elif remembers:
        yield "LiteRT's CompiledModel refuses or never forgets what a model remembers: no class for it was written"
    if remembers and not settings.streaming:
        yield "each call starts from the state of the file, as it was measured; --streaming keeps it until reset()"
