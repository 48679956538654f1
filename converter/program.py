"""The program: detect, read, translate, trace, plan, check losses, write, verify, publish."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from converter import formats, runnable, selection
from converter.comparison import Difference, compare
from converter.config_values import check_applicable, with_config_values
from converter.dialects import canonical
from converter.dialects.keras import is_model as is_keras_model
from converter.dialects.keras import with_settings
from converter.dialects.optimizer.semantics import said_of
from converter.dialects.wrappers import unwrapped
from converter.encoding.folder import CONFIG_NAME, parse_config, read_assets, read_config
from converter.errors import (
    CkconvError,
    LossError,
    MissingExtraError,
    ReadError,
    UnknownFormatError,
    UsageError,
    VerificationError,
    WriteError,
)
from converter.execution.child import require
from converter.execution.hashing import hashed
from converter.execution.parallel import Workers
from converter.execution.publish import Destination, check_space, staging
from converter.execution.resume import Attempt
from converter.execution.workshop import LocalWorkshop
from converter.formats import Format, Probe
from converter.formats.probe import located
from converter.model.checkpoint import Checkpoint, Config
from converter.model.file import SourceFile
from converter.model.growth import check_growth
from converter.model.output import Output, OutputFile, Provenance
from converter.model.tensor import files_of
from converter.observer import SILENT, Observer
from converter.options import Options
from converter.report import Report, Verification, account, check_allowed
from converter.sandbox import require_sandbox, terms_of
from converter.training import with_arranged_optimizer, with_settled_optimizer
from converter.verification import verify_foreign_outputs, verify_optimizer, verify_outputs, verify_weights
from converter.version import __version__

_LEVELS_OF_CONFIG = 3  # model/config.json of model/saved_model/1
StrPath = str | os.PathLike[str]


def convert(
    source: StrPath, destination: StrPath, *, to: str | None = None, observer: Observer = SILENT, **options: Any
) -> Report:
    """Convert the checkpoint at `source` into `destination`, in the format `to` or the one its name says.

    `options` are the fields of `converter.Options` and those of the two formats (`ckconv formats NAME`). The output
    is staged beside `destination`, verified, and appears there whole, or not at all.

    Raises CkconvError; its `report` says what was known of the tensors by then.
    """
    general, specific = _split(options)
    require_sandbox(general)
    target = _Target.of(destination, to, general)
    path = located(Path(source))
    target.place.check_apart_from(path)
    checkpoint, source_format, specific = _read(path, general, specific)
    target.place.check_apart_from(path, *_read_beside(path, checkpoint, general))
    return _write(checkpoint, path, source_format.name, target, general, specific, observer)


def read(
    source: StrPath, *, from_format: str | None = None, config: StrPath | None = None, **options: Any
) -> Checkpoint:
    """Return the checkpoint at `source`: declarations, config and the names of assets. No tensor is read.

    `options` are the read options of its format. Raises CkconvError.
    """
    general = Options(from_format=from_format, config=None if config is None else Path(config))
    checkpoint, source_format, unknown = _read(located(Path(source)), general, options)
    formats.options_of(source_format, formats.NoOptions, unknown)
    return checkpoint


def write(
    checkpoint: Checkpoint, destination: StrPath, *, to: str | None = None, observer: Observer = SILENT, **options: Any
) -> Report:
    """Write `checkpoint` as `convert` does what it has read, with the same options and guarantees."""
    general, specific = _split(options)
    require_sandbox(general)
    target = _Target.of(destination, to, general)
    return _write(checkpoint, None, checkpoint.dialect, target, general, specific, observer)


def diff(left: StrPath, right: StrPath) -> Difference:
    """Compare two checkpoints of any formats, names and layouts made canonical. Raises CkconvError."""
    return compare(read(left), read(right))


def verify(
    source: StrPath, destination: StrPath, *, to: str | None = None, observer: Observer = SILENT, **options: Any
) -> Report:
    """Prove that `destination` holds what `convert` with the same `options` would make of `source`. Writes neither.

    Raises VerificationError when it does not, and what `convert` raises for the source.
    """
    general, specific = _split(options)
    require_sandbox(general)
    path = located(Path(source))
    checkpoint, source_format, specific = _read(path, general, specific)
    found, format_ = _detected(located(Path(os.path.abspath(destination))), to)
    place = Destination(path=found, as_folder=found.is_dir())
    target = _Target(format=format_, place=place, is_folder=found.is_dir())
    write_options = formats.options_of(format_, format_.write_options, {**target.decided, **specific})
    files = _files(path, checkpoint)
    with _naming(path), tempfile.TemporaryDirectory(prefix="ckconv-") as folder:
        workers = Workers(jobs=general.jobs, memory_bytes=general.memory_bytes)
        workshop = LocalWorkshop(
            folder=Path(folder),
            scratch=Path(folder),
            observer=observer,
            workers=workers,
            terms=terms_of(checkpoint, files, general, reads=(path, found)),
        )
        planned = _planned(checkpoint, format_, write_options, general, workshop)
        provenance = Provenance(tool="", source_name="", source_sha256=lambda: "")
        output = format_.write(planned, write_options, provenance)
        report = Report(
            source=os.fspath(path),
            target=os.fspath(found),
            source_format=source_format.name,
            target_format=format_.name,
            lines=account(checkpoint, planned, output),
            optimizer=selection.optimizer_report(checkpoint, planned, format_, general),
            warnings=(*planned.warnings, *output.warnings),
            settings=planned.settings,
            nbytes=output.nbytes,
        )
        with _reporting(report, found):
            verification = _verify(planned, output, format_, found, general, workshop, is_foreign=True)
            return replace(report, verification=verification)


def _write(
    checkpoint: Checkpoint,
    source: Path | None,
    source_format: str,
    target: _Target,
    options: Options,
    specific: Mapping[str, Any],
    observer: Observer,
) -> Report:
    write_options = formats.options_of(target.format, target.format.write_options, {**target.decided, **specific})
    files = _files(source, checkpoint)
    request = {"tool": __version__, "to": target.format.name, **options.deciding, "more": repr(specific)}
    attempt = None if options.dry_run else Attempt.of(target.place.path, files, request)
    with (
        _naming(source),
        staging(target.place.path, is_fixed=target.place.is_fixed, attempt=attempt, resumes=options.resume) as stage,
        hashed(files) as source_sha256,
    ):
        workshop = LocalWorkshop(
            folder=stage.output,
            scratch=stage.scratch,
            observer=observer,
            workers=Workers(jobs=options.jobs, memory_bytes=options.memory_bytes),
            earlier=stage.earlier,
            terms=terms_of(checkpoint, files, options, reads=() if source is None else (source,)),
        )
        planned = _planned(checkpoint, target.format, write_options, options, workshop)
        name = "" if source is None else source.name
        provenance = Provenance(tool=f"ckconv {__version__}", source_name=name, source_sha256=source_sha256)
        written = target.format.write(planned, write_options, provenance)
        output = target.complete(written, planned)
        report = Report(
            source=os.fspath(source or ""),
            target=os.fspath(target.place.path),
            source_format=source_format,
            target_format=target.format.name,
            lines=account(checkpoint, planned, output),
            optimizer=selection.optimizer_report(checkpoint, planned, target.format, options),
            warnings=(*planned.warnings, *output.warnings, *stage.earlier.notes),
            settings=planned.settings,
            nbytes=output.nbytes,
            is_dry_run=options.dry_run,
        )
        with _reporting(report, target.place.path):
            check_allowed(report.lines, allow_dropped=options.allow_dropped, allow_missing=options.allow_missing)
            check_space(stage.folder, output.nbytes - stage.earlier.bytes_of(output.files), target.place.path)
            if options.dry_run:
                return report
            provenance.counts = report.counts
            kept = workshop.make(output, planned)
            is_one_file = target.format.file_name is not None and len(written.file_names) == 1
            readable = stage.output / written.file_names[0] if is_one_file else stage.output
            verification = _verify(planned, output, target.format, readable, options, workshop)
            observer.committing()
            stage.publish(
                stage.output if target.is_folder else readable,
                overwrite=options.overwrite,
                durable=options.durable,
                check=lambda: target.check_replaceable(options),
                order=list(output.file_names),
            )
    resumed = (f"resumed: {len(kept)} of {len(output.files)} files kept from an earlier attempt",) if kept else ()
    warnings = (*report.warnings, *selection.cast_losses(planned), *resumed)
    return replace(report, verification=verification, warnings=warnings)


def _planned(
    checkpoint: Checkpoint, target: Format, write_options: Any, options: Options, workshop: LocalWorkshop
) -> Checkpoint:
    """What the target is to hold, in its names and layouts, with a graph where it needs one."""
    if options.data is not None and not options.data.is_file():
        raise UsageError("--inputs: no such file", path=options.data)
    check_applicable(checkpoint, target.holds, options)
    checkpoint = with_config_values(checkpoint, options, workshop)
    named = unwrapped(with_settled_optimizer(checkpoint, target, options, workshop))
    is_of_torch = named.optimizer is not None and named.optimizer.convention == "torch"
    if named.dialect != "pytorch" or not target.keeps_names:
        named = canonical(named)
    named = with_arranged_optimizer(named, target, options, workshop, is_in_model_order=is_of_torch)
    chosen = selection.selected(named, target, options)
    planned = target.adapt(chosen, write_options)
    has_graph = target.runner is not None and not options.weights_only
    if planned.optimizer is not None:
        planned = replace(planned, warnings=(*planned.warnings, *said_of(planned.optimizer)))
    planned = with_settings(planned, checkpoint, has_own_graph=has_graph and options.model is None)
    if options.optimizer == "keep" and chosen.optimizer is not None and planned.optimizer is None:
        raise LossError(f"{target.name} does not hold optimizer state of this kind", hint="--optimizer auto drops it")
    if not has_graph:
        if options.data is not None:
            raise UsageError(f"--inputs {options.data} needs a target that runs")
        return replace(planned, graph=None)
    if target.extra is not None:
        require(target.extra, f"writing a {target.name} that runs")
    return runnable.with_graph(planned, checkpoint, options, workshop)


def _verify(
    planned: Checkpoint,
    output: Output,
    target: Format,
    staged: Path,
    options: Options,
    workshop: LocalWorkshop,
    *,
    is_foreign: bool = False,
) -> Verification:
    """Prove what is at `staged`, which nobody but this program has written unless it `is_foreign`."""
    if options.verify == "none":
        return Verification()
    workshop.observer.stage("verifying", planned.nbytes)
    found = target.read(staged, target.read_options())
    verify_weights(planned, found, output.names, path=staged, observer=workshop.observer, run=workshop.workers.run)
    if planned.optimizer is not None:
        verify_optimizer(planned.optimizer, found.optimizer, path=staged, names=output.names)
    if options.verify != "weights" and target.runner is not None and planned.graph is not None:
        if is_foreign:
            return verify_foreign_outputs(planned, output, staged, target, options, workshop)
        return verify_outputs(planned, staged, target.runner, options, workshop)
    if options.verify == "outputs":
        raise UsageError("--verify outputs needs a target that runs")
    return Verification(weights=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """A format and the place to write it to."""

    format: Format
    place: Destination
    is_folder: bool

    @classmethod
    def of(cls, destination: StrPath, to: str | None, options: Options) -> _Target:
        """Settle format and place. Raises UnknownFormatError, WriteError, DestinationExistsError."""
        place = Destination.of(destination)
        format_ = formats.of_suffix(place.path) if to is None else formats.by_name(to)
        if format_ is None:
            hint = f"--to one of {', '.join(formats.registry())}"
            raise UnknownFormatError("the name does not say the format", path=destination, hint=hint)
        target = cls(format=format_, place=place, is_folder=place.as_folder or format_.file_name is None)
        target.check_replaceable(options)
        return target

    def check_replaceable(self, options: Options) -> None:
        """Raise DestinationExistsError when something is there that must stay."""
        self.place.check_replaceable(
            is_folder=self.is_folder, overwrite=options.overwrite, foreign=formats.foreign_entry
        )

    @property
    def decided(self) -> Mapping[str, Any]:
        """The write options that the name of the destination decides."""
        if self.is_folder:
            return {}
        name = self.place.path.name.lower()
        return next((given for suffix, given in self.format.by_suffix.items() if name.endswith(suffix)), {})

    def complete(self, output: Output, planned: Checkpoint) -> Output:
        """Add config and assets when a single-file format is written into a folder.

        Raises UsageError when several files would have to be one.
        """
        if self.format.file_name is None:
            return output
        beside: list[OutputFile] = []
        if planned.config_file is not None:
            beside.append(OutputFile(name=CONFIG_NAME, pieces=(planned.config_file.raw,)))
        beside += [OutputFile(name=name, pieces=(file,)) for name, file in planned.assets.items()]
        if self.is_folder:
            return replace(output, files=(*beside, *output.files))
        if len(output.file_names) > 1:
            listed = ", ".join(output.file_names[:3]) + (", ..." if len(output.file_names) > 3 else "")
            raise UsageError(
                f"the output is several files ({listed})", path=self.place.path, hint="end DST with / for a folder"
            )
        if not beside:
            return output
        left = ", ".join(file.name for file in beside)
        said = f"{left} not carried: the output is one file; end DST with / for a folder"
        return replace(output, warnings=(*output.warnings, said))


@contextmanager
def _reporting(report: Report, destination: Path) -> Iterator[None]:
    """Let errors say what was known, and those about the staged output name the destination instead."""
    try:
        yield
    except CkconvError as error:
        error.report = report
        if isinstance(error, WriteError | VerificationError):
            error.path = os.fspath(destination)
        raise


@contextmanager
def _naming(source: Path | None) -> Iterator[None]:
    """Let errors that name no file name the source."""
    try:
        yield
    except MissingExtraError:
        raise
    except CkconvError as error:
        if error.path is None and source is not None:
            error.path = os.fspath(source)
        raise


def _split(given: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    known = {field.name for field in fields(Options)}
    general = Options(**{name: value for name, value in given.items() if name in known})
    return general, {name: value for name, value in given.items() if name not in known}


def _read(path: Path, options: Options, specific: Mapping[str, Any]) -> tuple[Checkpoint, Format, dict[str, Any]]:
    """Read a source and what is beside it; return the options that its reader does not take, too."""
    folder = path if path.is_dir() else path.parent
    path, format_ = _detected(path, options.from_format)
    taken = {field.name for field in fields(format_.read_options)}
    read_options = format_.read_options(**{name: value for name, value in specific.items() if name in taken})
    with _naming(path):
        checkpoint = format_.read(path, read_options)
        if not checkpoint.tensors:
            raise ReadError("holds no tensor")
        check_growth(checkpoint, path)
    left = {name: value for name, value in specific.items() if name not in taken}
    return _with_siblings(checkpoint, folder, options), format_, left


def _detected(path: Path, name: str | None) -> tuple[Path, Format]:
    """The format at `path`, or the one called `name`; and the file in a folder, where the format is of one file."""
    probe = Probe(path)
    format_ = formats.detect(probe) if name is None else formats.by_name(name)
    if format_.file_name in probe.entries and (name is not None or not format_.sniff(probe)):
        return path / format_.file_name, format_
    return path, format_


def _with_siblings(checkpoint: Checkpoint, folder: Path, options: Options) -> Checkpoint:
    """Return the checkpoint with the config asked for, or what is beside it; a file may hold one of Keras's already."""
    if options.config is not None:
        metadata = {key: value for key, value in checkpoint.metadata.items() if key != "keras_version"}
        checkpoint = _with_config(replace(checkpoint, metadata=metadata), parse_config(SourceFile(options.config)))
    elif checkpoint.config is None:
        folder = _folder_of_config(folder, checkpoint)
        checkpoint = _with_config(checkpoint, read_config(folder))
    elif is_keras_model(checkpoint.config.values):
        checkpoint = _with_config(replace(checkpoint, config=None), checkpoint.config)
    return checkpoint if checkpoint.assets else replace(checkpoint, assets=read_assets(folder))


def _folder_of_config(folder: Path, checkpoint: Checkpoint) -> Path:
    """Return where a config is: in `folder`, or, of transformers, beside the folder of a SavedModel or checkpoint.

    save_pretrained puts SavedModels at saved_model/1, and the config beside saved_model. Nothing else is looked at.
    """
    if checkpoint.dialect != "tensorflow" or (folder / CONFIG_NAME).exists():
        return folder
    above = folder.absolute().parent
    if folder.name.isdigit() and above.name == "saved_model":
        above = above.parent
    config = read_config(above)
    return above if config is not None and isinstance(config.values.get("model_type"), str) else folder


def _with_config(checkpoint: Checkpoint, config: Config | None) -> Checkpoint:
    if config is not None and is_keras_model(config.values):
        return replace(checkpoint, keras_config=config)
    return replace(checkpoint, config=config)


def _read_beside(path: Path, checkpoint: Checkpoint, options: Options) -> Iterator[Path]:
    """Every file that was or will be read for a conversion, besides the source itself."""
    yield from {file.path for tensor in checkpoint.tensors.values() for file in files_of(tensor)}
    yield from (file.path for file in checkpoint.assets.values())
    yield from (above / CONFIG_NAME for above in path.absolute().parents[:_LEVELS_OF_CONFIG])
    yield from (given for given in (options.config, options.mapping, options.param_order) if given is not None)


def _files(source: Path | None, checkpoint: Checkpoint) -> tuple[SourceFile, ...]:
    """The files that the source consists of, each once."""
    files = {file.path: file for tensor in checkpoint.tensors.values() for file in files_of(tensor)}
    if source is not None and not source.is_dir():
        files.setdefault(source, SourceFile(source))
    return tuple(files.values())
