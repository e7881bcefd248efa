"""A model and a scheme go in, a verified `.tflite` file comes out."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeopt import data as datasets
from edgeopt import files, formats, parity, targets
from edgeopt.api.models import as_path
from edgeopt.api.sizes import Sized, in_several_sizes
from edgeopt.carry_out import BASELINE, carry_out, promised
from edgeopt.compilers import (
    CALIBRATED,
    CALIBRATIONS,
    COMPILERS,
    Compiler,
    compile_content,
    maker_of,
    require,
    starts_from,
)
from edgeopt.conversion import ConvertOptions
from edgeopt.data import Dataset
from edgeopt.errors import ConfigError, ConversionError, suggestion
from edgeopt.formats import FORMATS
from edgeopt.formats.onnx import NEWEST_OPSET, OLDEST_OPSET, OPSET, oldest_release, opset_for
from edgeopt.measuring import held_against_float, settled_by, tried_on_runtimes
from edgeopt.recipe import Recipe
from edgeopt.runtimes import Request, main_for, parse, releases
from edgeopt.runtimes.samples import FREE_SIZE
from edgeopt.schemes import scheme as scheme_named
from edgeopt.showing.values import Shown
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.reader import read, read_once
from edgeopt.tflite.stream import Stream, stream_of
from edgeopt.vocabulary import Budgets, Fidelity, RuntimeResult, Scheme, Shape, TensorSpec, Variant
from edgeopt.workspace import Conditions, Workspace


@dataclass(frozen=True)
class Conversion(Shown):
    """A converted file and what was verified of it.

    Attributes:
        inputs, outputs: as the file declares them, with scales and zero points.
        minimum_runtime: the oldest TensorFlow Lite release that loads it, "" for what a compiler made.
        float_operators: operators that compute in floats in a file that should hold integers only.
        runtimes: where it was run, and whether the results agree with LiteRT's built-in kernels.
        notes: what was done to the model on the way.
        target: what it costs on the device asked for.
        fidelity: how faithful it is to the float model; None without data, and for float32 that reads whole samples.
        stream: how the file reads a sample step by step; None where it takes it whole.
        signatures: of a file that takes several sizes, each; what stands above is then of the first.
    """

    file: Path
    scheme: str
    sha256: str
    size_bytes: int
    gzip_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    minimum_runtime: str
    float_operators: tuple[str, ...]
    runtimes: tuple[RuntimeResult, ...]
    notes: tuple[str, ...]
    target: targets.Assessment | None = None
    fidelity: Fidelity | None = None
    stream: Stream | None = None
    signatures: tuple[Sized, ...] = ()


def convert(
    model: Any,
    output: Path | str,
    *,
    scheme: str = "float32",
    keep_8bit: Sequence[str] = ("auto",),
    data: Any = None,
    runtimes: Sequence[str] = (),
    target: str | None = None,
    calibration: str = "",
    metric: str | None = None,
    tasks: Mapping[str, str] | None = None,
    opset: int = 0,
    tune_s: float = 0,
    output_name: str | None = None,
    batch_size: int | None = 1,
    shapes: Mapping[str, Shape] | Sequence[Mapping[str, Shape]] | None = None,
    stream: int | None = None,
    time_axis: int = 1,
    custom_objects: Path | None = None,
    trust: bool = False,
    force: bool = False,
) -> Conversion:
    """Writes `model` as a `.tflite`, `.onnx` or `.so` in one scheme, and verifies the file by running it.

    With data it is held against the float model, too: `problems` of its `fidelity` are what it is shown to have lost.

    Args:
        model: a path, or a Keras model at hand.
        output: the file to write; its suffix says the format.
        scheme: name of a row of SCHEMES.
        keep_8bit: layers that keep int8 weights in schemes below eight bits: "auto" (the first, the last, depthwise and
            small ones), "none", or names and globs.
        data: a Dataset, or what `edgeopt.load_data` takes; calibrates integer schemes and feeds the verification.
        runtimes: promises, as "tflite-runtime==2.14": the file loads and computes correctly there.
        target: a name of `targets.TARGETS` or a data file of one's own. Its runtimes are promises too, the file has to
            fit, and where it has a compiler what is written is what that makes of it.
        calibration: how ONNX Runtime sets the ranges of int8, one of CALIBRATIONS; the `.tflite`'s if "".
        metric, tasks, output_name: how both are scored; see `Conditions`.
        opset: the operator set of an `.onnx`; 0 for the newest that all of `runtimes` know, and 17 at most.
        tune_s: seconds in which faster code for a `.so` is searched for, by timing it on this machine.
        batch_size: first dimension of the inputs; None leaves it free.
        shapes: sizes that the model leaves free, by input, with the batch first; "" names the only input. What is not
            said is as the data are. Several such make a file with a signature for each, "size_64x64", which share
            their weights; the data are brought to each of the sizes, see `data.sizes`.
        stream: the file reads so many frames at a time and remembers what it needs of those before, 0 for as few as
            the model's strides allow; None for a file that reads whole samples. Its `fidelity` is then to the model
            that does.
        time_axis: of the frames, the batch is 0.
        custom_objects, trust: see `loading.load_model`.
        force: overwrite `output`.

    Raises:
        ConfigError: a name is none, or the target cannot compute with what the scheme makes.
        ConversionError: the converter refused, or the file does not keep a promise; nothing is left at `output`.
        ModelError: it does not fit the target; nothing is left at `output`.
        UnavailableError: what makes files of that format is not installed.
    """
    wanted, output = scheme_named(scheme), Path(output)
    files.require_free(output, force=force)
    if shapes is not None and not isinstance(shapes, Mapping):
        if len(shapes) > 1:
            _require_plain(output, target, stream)
            options = ConvertOptions(batch_size=None, custom_objects=custom_objects, trust=trust)
            with as_path(model) as path:
                return in_several_sizes(
                    path,
                    output,
                    shapes,
                    data=None if data is None else datasets.load(data),
                    scheme=wanted.name,
                    options=options,
                    one=lambda size, own, file: convert(
                        path,
                        file,
                        scheme=scheme,
                        keep_8bit=keep_8bit,
                        data=own,
                        runtimes=runtimes,
                        metric=metric,
                        tasks=tasks,
                        output_name=output_name,
                        batch_size=batch_size,
                        shapes=size,
                        custom_objects=custom_objects,
                        trust=trust,
                    ),
                )
        shapes = shapes[0] if shapes else {}
    device = None if target is None else targets.target(target)
    translator = _translator(output, wanted, device)
    if stream is not None and translator is not None:
        raise ConfigError(f"Expected a .tflite as what reads step by step, got {output}. Try {output.stem}.tflite.")
    if translator is not None:
        require(translator)
    if device is not None:
        targets.refuse_scheme(device, wanted)
    _require_calibration(calibration, translator, wanted, has_data=data is not None)
    opset = _opset(opset, translator, runtimes)
    _require_tuning(tune_s, translator, device)
    conditions = Conditions(
        metric=metric,
        output_name=output_name,
        tasks=tasks or {},
        batch_size=batch_size,
        shapes=shapes or {},
        stream=stream,
        time_axis=time_axis,
        calibration=calibration,
        processor="" if device is None else device.processor,
        opset=opset,
        tune_s=tune_s,
        custom_objects=custom_objects,
        trust=trust,
    )
    if translator is not None and (given := _converted(model, translator)) is not None:
        told = conditions.compiling
        return _translated(given, translator, output, wanted, data=data, runtimes=runtimes, told=told)
    made_as = starts_from(translator, wanted.name, calibration=calibration) if translator else wanted.name
    recipe = Recipe(
        schemes=(made_as,), keep_8bit=tuple(keep_8bit), budgets=Budgets(runtimes=tuple(runtimes)), target=target
    )
    # What a target's runtimes run is no code of a processor's own.
    promises = promised(replace(recipe, target=None) if translator else recipe)
    dataset = None if data is None else datasets.load(data)
    with (
        as_path(model) as path,
        tempfile.TemporaryDirectory(prefix="edgeopt-") as folder,
        Workspace(path, dataset, Path(folder), conditions) as workspace,
    ):
        summary, warnings = workspace.summary, workspace.warnings
        outcome = carry_out(recipe, workspace)
        variant = outcome.variants[-1]
        if translator is not None and variant.error is None:
            variant = workspace.compiled(variant, translator, wanted.name)
        if variant.error is not None:
            raise ConversionError(variant.error)
        references = {variant.name: outcome.variants[0]} if wanted.name != BASELINE else {}
        (variant,) = tried_on_runtimes(
            workspace, [variant], promises, references={} if stream is not None else references, everywhere=False
        )
        made = Path(folder) / str(variant.file)
        facts = formats.facts(made)
        if broken := [row for row in variant.runtimes if row.status == "failed" or row.matches_reference is False]:
            raise ConversionError(_broken_promises(broken, made.name, output, facts.inputs))
        if dataset is not None:
            if stream is not None:
                whole = _whole(path, dataset, Path(folder), conditions)
                references = {variant.name: whole}
                said = f"{facts.macs:,} MACs a step, {whole.macs or 0:,} for each sample that is read whole"
                variant = replace(variant, notes=(*variant.notes, said))
            (variant,) = held_against_float(workspace, [variant], references)
            if variant.fidelity is not None:
                warnings = settled_by(variant.fidelity.reference_metric, workspace, workspace.compared_on, warnings)
        with files.atomic_path(output) as temporary:
            shutil.copyfile(made, temporary)
            found = None if device is None or translator else _made_for(device, read_once(made), temporary)
            content = temporary.read_bytes()
    compiler = COMPILERS[device.compiler] if device is not None and device.compiler else None
    compiled = (
        (f"verified before {compiler.title} compiled it: what its file computes, only the device can show",)
        if compiler
        else ()
    )
    return Conversion(
        output,
        wanted.name,
        files.sha256(output),
        len(content),
        files.gzip_size(content),
        facts.inputs,
        facts.outputs,
        "" if compiler or facts.runtime is None else facts.runtime.version,
        _counted(facts.float_operators) if wanted.needs_calibration else (),
        variant.runtimes,
        (*summary.notes, *variant.notes, *warnings, *compiled, *(facts.notes if translator else ())),
        found,
        variant.fidelity,
        None if stream is None else stream_of(read(content)),
    )


def _require_plain(output: Path, target: str | None, stream: int | None) -> None:
    """Raises ConfigError where what is asked for takes one size alone."""
    said = {
        f"-o {output}": output.suffix != ".tflite",
        f"--target {target}": target is not None,
        "--stream": stream is not None,
    }
    if given := [option for option, is_said in said.items() if is_said]:
        raise ConfigError(
            f"Expected a .tflite of several sizes without a target or steps, got {given[0]}. Try --shape once for it."
        )


def _whole(model: Path, data: Dataset, folder: Path, conditions: Conditions) -> Variant:
    """Returns the float file of a model that reads whole samples."""
    with Workspace(model, data, folder, replace(conditions, stream=None)) as workspace:
        found = workspace.converted(workspace.original, BASELINE)
    if found.error is not None:
        raise ConversionError(found.error)
    return found


def _translator(output: Path, scheme: Scheme, device: targets.Target | None) -> Compiler | None:
    """Returns what makes the format that a file's suffix names out of a `.tflite`; None for that itself.

    Raises:
        ConfigError: there is no such format, or not in this scheme, or not for the target.
    """
    form = next((row for row in FORMATS.values() if row.suffix == output.suffix), None)
    if form is None:
        known = " or ".join(row.suffix for row in FORMATS.values())
        raise ConfigError(f"Expected an output file ending in {known}, got {output}. Try {output.stem}.tflite.")
    found = maker_of(form.name)
    if found is None:
        return None
    if device is not None and not ("processor" in found.settings and device.processor):
        raise ConfigError(
            f"Expected a .tflite for the target {device.name}, got {output}. Try {output.stem}.tflite, or no --target."
        )
    if scheme.name not in found.sources:
        raise ConfigError(
            f"Expected a scheme that {form.suffix} files can be in, {', '.join(found.sources)}, got {scheme.name}. "
            f"Try --scheme int8, or -o {output.stem}.tflite."
        )
    return found


def _require_calibration(calibration: str, translator: Compiler | None, scheme: Scheme, *, has_data: bool) -> None:
    """Raises ConfigError where ranges cannot be found anew for the file that is asked for."""
    if not calibration:
        return
    if calibration not in CALIBRATIONS:
        known = ", ".join(CALIBRATIONS)
        raise ConfigError(f"Expected one of {known}, got {calibration!r}.{suggestion(calibration, CALIBRATIONS)}")
    if translator is None or "calibration" not in translator.settings or scheme.name != CALIBRATED or not has_data:
        raise ConfigError(
            f"Expected an .onnx in {CALIBRATED} and data to find its ranges anew ({calibration}), got another. "
            f"Try -o FILE.onnx --scheme {CALIBRATED} --data DATA."
        )


def _opset(asked: int, translator: Compiler | None, runtimes: Sequence[str]) -> int:
    """Returns the operator set of an `.onnx`, 0 for other files.

    Raises:
        ConfigError: one is asked for that ours cannot be in.
    """
    if translator is None or "opset" not in translator.settings:
        if asked:
            raise ConfigError("Expected an .onnx with an operator set, got another file. Try -o FILE.onnx.")
        return 0
    if asked and not OLDEST_OPSET <= asked <= NEWEST_OPSET:
        raise ConfigError(
            f"Expected an operator set from {OLDEST_OPSET} to {NEWEST_OPSET}, got {asked}. Try --opset {OPSET}, which "
            f"onnxruntime {oldest_release(OPSET, 0)} and later load."
        )
    return asked or opset_for(releases(map(parse, runtimes), form="onnx"))


def _require_tuning(seconds: float, translator: Compiler | None, device: targets.Target | None) -> None:
    """Raises ConfigError where code cannot be tuned: it is timed on this machine."""
    if seconds and (translator is None or "tune" not in translator.settings):
        raise ConfigError("Expected a .so of TVM's to tune, got another file. Try -o FILE.so, or no --tune.")
    if seconds and device is not None:
        raise ConfigError(
            f"Expected code for this machine to tune, as it is timed here, got the target {device.name}. Try no --tune."
        )


def _converted(model: Any, translator: Compiler) -> Path | None:
    """Returns the path of a model that is a converted file already, which a translator takes as it is; else None."""
    path = Path(model) if isinstance(model, (str, Path)) else None
    if path is None or not path.is_file() or not formats.is_converted(path):
        return None
    form = formats.format_of(path).name
    # A float .tflite can still be brought to any scheme.
    if form not in translator.takes or (form == "tflite" and not formats.facts(path).is_quantized):
        return None
    return path


def _translated(
    source: Path,
    translator: Compiler,
    output: Path,
    scheme: Scheme,
    *,
    data: Any,
    runtimes: Sequence[str],
    told: Mapping[str, str],
) -> Conversion:
    """Writes what a compiler makes of a converted file as it is, and verifies it against that file.

    Raises:
        ConfigError: it should be brought to a scheme, but has one.
        ConversionError: see `convert`.
    """
    if scheme.name != BASELINE:
        raise ConfigError(
            f"Expected a model to bring to {scheme.name}, got {source}, a converted file, whose numbers stay what they "
            "are. Try without --scheme, or from the model that it was made of."
        )
    settings = {name: told.get(name, "") for name in translator.settings}
    part = None if data is None else datasets.load(data).calibration
    with files.atomic_path(output) as temporary:
        temporary.write_bytes(compile_content(source.read_bytes(), translator, settings).content)
        facts = formats.facts(temporary)
        requests = [parse(text) for text in runtimes] or [Request(main_for(facts.format))]
        rows = parity.check(temporary, requests, part, source=source)
        if broken := [row for row in rows if row.status == "failed" or row.matches_reference is False]:
            raise ConversionError(_broken_promises(broken, temporary.name, output, facts.inputs))
        content = temporary.read_bytes()
    return Conversion(
        output,
        facts.computes,
        files.sha256(output),
        len(content),
        files.gzip_size(content),
        facts.inputs,
        facts.outputs,
        "",
        (),
        rows,
        facts.notes,
    )


def _made_for(target: targets.Target, model: TFLiteModel, file: Path) -> targets.Assessment:
    """Compiles `file` in place where the target has a compiler, and returns what it costs there.

    Raises:
        ConversionError: the target refuses the file.
        ModelError: it does not fit.
    """
    if refusals := targets.refusal(target, model):
        raise ConversionError(
            f"Expected a file that {target.name} runs, got one that it refuses: {'; '.join(refusals)}. "
            f"Try --scheme {target.best_scheme}."
        )
    compiled = targets.compiled_for(target, file.read_bytes())
    found = targets.assess(target, model, compiled=compiled)
    room = found.fit
    targets.require_fit(target, flash_bytes=room.flash_bytes, ram_bytes=room.ram_bytes, peak=room.peak)
    if compiled is not None:
        files.atomic_write(file, compiled.content)
    return found


def _counted(names: Sequence[str]) -> tuple[str, ...]:
    """Returns ("ADD", "ADD", "MEAN") as ("2 ADD", "MEAN")."""
    return tuple(f"{count} {name}" if count > 1 else name for name, count in Counter(names).items())


def _broken_promises(rows: Sequence[RuntimeResult], made: str, output: Path, inputs: Sequence[TensorSpec]) -> str:
    """Returns what to say of them; the file was called `made` when it was tried."""
    told = "; ".join(
        f"{row.name} {row.version}: "
        + (row.reason.rstrip(".") or f"it runs, but its results are off by {row.max_difference:.2g} of their spread")
        for row in rows
    ).replace(made, output.name)
    if free := next((spec for spec in inputs if None in spec.shape[1:]), None):
        sizes = ",".join(str(size or (1 if number == 0 else "N")) for number, size in enumerate(free.shape))
        return (
            f"{output.name} was not written, as it does not run in sizes of {FREE_SIZE}, which it leaves free: {told}. "
            f"Try --shape {free.name}={sizes}, or --data, whose sizes are taken."
        )
    return f"{output.name} was not written: {told}. Try another --scheme, or a newer runtime."
