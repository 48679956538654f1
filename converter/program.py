"""The program: read, plan, write, prove, publish."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter import formats
from converter.execution.hashing import hashed
from converter.execution.parallel import Workers
from converter.execution.publish import bytes_at, check_space, staging
from converter.execution.resume import Attempt
from converter.execution.workshop import LocalWorkshop, temporary_scratch
from converter.formats.probe import Probe, located
from converter.model.checkpoint import Checkpoint
from converter.model.file import local_copy
from converter.model.output import Provenance
from converter.observer import SILENT, Observer
from converter.options import Options
from converter.planning import Source, Target, plan
from converter.planning.recorded import provenance_of, taken
from converter.planning.sandbox import asked_of, terms_of
from converter.proof import prove
from converter.proof.difference import Difference, compare
from converter.report import Report
from converter.storage import location_of
from converter.version import __version__

StrPath = str | os.PathLike[str]


def convert(
    source: StrPath, destination: StrPath, *, to: str | None = None, observer: Observer = SILENT, **options: Any
) -> Report:
    """Convert the checkpoint at `source` into `destination`, in the format `to` or the one its name says.

    `options` are the fields of `converter.Options` and those of the two formats (`ckconv formats NAME`). The output
    is staged beside `destination`, verified, and appears there whole, or not at all.

    Raises CkconvError; its `report` says what was known of the tensors by then.
    """
    general, specific = asked_of(options)
    target = Target.of(destination, to, general)
    path = located(location_of(source))
    target.place.check_apart_from(path)
    opened, left = Source.open(path, general, specific)
    target.place.check_apart_from(path, *opened.read_beside(general))
    return _converted(opened, target.with_options(left), general, specific, observer)


def read(
    source: StrPath, *, from_format: str | None = None, config: StrPath | None = None, **options: Any
) -> Checkpoint:
    """Return the checkpoint at `source`: declarations, config and the names of assets. No tensor is read.

    `options` are the read options of its format. Raises CkconvError.
    """
    general = Options(from_format=from_format, config=None if config is None else Path(config))
    opened, unknown = Source.open(located(location_of(source)), general, options)
    formats.options_of(formats.by_name(opened.format), formats.NoOptions, unknown)
    return opened.whole()


def write(
    checkpoint: Checkpoint, destination: StrPath, *, to: str | None = None, observer: Observer = SILENT, **options: Any
) -> Report:
    """Write `checkpoint` as `convert` does what it has read, with the same options and guarantees."""
    general, specific = asked_of(options)
    target = Target.of(destination, to, general)
    source = Source(checkpoint=replace(checkpoint, structure=None), path=None, format=str(checkpoint.dialect))
    return _converted(source, target.with_options(specific), general, specific, observer)


def diff(left: StrPath, right: StrPath, *, config: StrPath | None = None) -> Difference:
    """Compare two checkpoints, in canonical names and layouts as `config` or theirs says. Raises CkconvError."""
    return compare(read(left, config=config), read(right, config=config))


def verify(
    source: StrPath, destination: StrPath, *, to: str | None = None, observer: Observer = SILENT, **options: Any
) -> Report:
    """Prove that `destination` holds what `convert` would make of `source` with `options`, and those that it records.

    Writes neither. Raises VerificationError when it does not, and what `convert` raises for the source.
    """
    asked_of(options)
    Probe(located(location_of(source)))  # what is wrong with it is said before what is wrong with the destination
    asked = taken(options, destination, to)
    general, specific = Options.split(asked.options)
    opened, specific = Source.open(located(location_of(source)), general, specific)
    target = asked.target.with_options(specific)
    with opened.named_in_errors(), asked.known_to_errors(), temporary_scratch() as folder:
        workshop = LocalWorkshop(
            folder=folder,
            scratch=folder,
            observer=observer,
            workers=Workers(jobs=general.jobs, memory_bytes=general.memory_bytes),
            terms=terms_of(opened, general, reads=(target.place.path,)),
        )
        planned = plan(opened, target, general, workshop, Provenance(tool="", source_name="", source_hash=str))
        with planned.known_to_errors():
            verification = prove(planned, local_copy(target.place.path, workshop.scratch), general, workshop)
            return replace(planned.report, verification=verification, made_with=asked.notes)


def _converted(
    source: Source, target: Target, options: Options, specific: dict[str, Any], observer: Observer
) -> Report:
    request = {"tool": __version__, "to": target.format.name, **options.deciding, "more": repr(specific)}
    files = source.files
    attempt = None if options.dry_run else Attempt.of(target.place.path, files, request)
    with (
        source.named_in_errors(),
        staging(target.place.path, is_fixed=target.place.is_fixed, attempt=attempt, resumes=options.resume) as stage,
        hashed(files, options.source_hash.value) as source_hash,
    ):
        workshop = LocalWorkshop(
            folder=stage.output,
            scratch=stage.scratch,
            observer=observer,
            workers=Workers(jobs=options.jobs, memory_bytes=options.memory_bytes),
            earlier=stage.earlier,
            terms=terms_of(source, options),
        )
        provenance = provenance_of(source, target, options, specific, source_hash)
        planned = plan(source, target, options, workshop, provenance)
        output = planned.output
        with planned.known_to_errors():
            planned.check_losses(options)
            check_space(stage.folder, output.space_bytes - stage.earlier.bytes_of(output.files), target.place.path)
            if options.dry_run:
                return planned.report
            provenance.counts = planned.report.counts
            kept = workshop.make(output, planned.checkpoint)
            staged = planned.staged(stage.output)
            verification = prove(planned, staged, options, workshop)
            recorded_hash = provenance.hash_of(source_hash()) if files else None
            observer.committing()
            whole = stage.output if target.is_folder else staged
            nbytes = bytes_at(whole)
            stage.publish(
                whole,
                overwrite=options.overwrite,
                durable=options.durable,
                check=lambda: target.check_replaceable(options),
                order=list(output.file_names),
            )
    resumed = (f"resumed: {len(kept)} of {len(output.files)} files kept from an earlier attempt",) if kept else ()
    return replace(planned.proven(verification, nbytes, notes=resumed), source_hash=recorded_hash)
