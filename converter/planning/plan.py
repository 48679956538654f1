"""The plan of a conversion: all that is decided, before a byte of any tensor is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from converter.dialects import canonical
from converter.dialects.keras import with_settings
from converter.dialects.names.wrappers import unwrapped
from converter.dialects.quantised import quantisation_of
from converter.dialects.transformers.state_dicts import as_state_dict
from converter.errors import CkconvError, LossError, ReadError, UsageError, VerificationError, WriteError
from converter.execution.child import require
from converter.execution.workshop import LocalWorkshop
from converter.formats import Format
from converter.model.checkpoint import Checkpoint, Part
from converter.model.output import Output, Provenance
from converter.options import Options
from converter.planning.config_sizes import with_sizes, with_told_sizes
from converter.planning.config_values import with_config_values, with_model_type, with_task
from converter.planning.graph import with_graph
from converter.planning.needs import check_code_is_asked, check_needs, check_state_is_carried
from converter.planning.optimizer import with_optimizer, with_optimizer_in_place
from converter.planning.own_layers import with_own_layers
from converter.planning.selection import cast_losses, check_one_class, check_read, selected
from converter.planning.source import Source, with_own_config
from converter.planning.target import Target
from converter.report import Report, Verification
from converter.report.ledger import account, check_allowed, listed

_CONSTANTS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be written where, and what becomes of every tensor.

    `checkpoint`   what the target holds, in its names and layouts, with a graph where it has one
    `output`       its files, laid out; what is not there yet is written by `execution`
    `main_file`    the file of an output that is one, by name: others beside it are config and assets
    `report`       the ledger, without what is known only when all is written
    """

    source: Source
    target: Target
    checkpoint: Checkpoint
    output: Output
    main_file: str | None
    report: Report

    def staged(self, folder: Path) -> Path:
        """Return what in the staged `folder` the target's reader takes."""
        return folder if self.main_file is None else folder / self.main_file

    def check_losses(self, options: Options) -> None:
        """Raise LossError for a loss that is refused by default and that `options` do not accept."""
        check_allowed(self.report.lines, allow_dropped=options.allow_dropped, allow_missing=options.allow_missing)

    @contextmanager
    def known_to_errors(self) -> Iterator[None]:
        """Let errors say what was known, and those about the staged output name the destination instead."""
        try:
            yield
        except CkconvError as error:
            error.report = self.report
            if isinstance(error, WriteError | VerificationError):
                error.path = str(self.target.place.path)
            raise

    def proven(self, verification: Verification, nbytes: int, *, notes: tuple[str, ...] = ()) -> Report:
        """Return the report of `nbytes` that were written and verified, once every tensor has been read."""
        warnings = (*self.report.warnings, *cast_losses(self.checkpoint), *notes)
        return replace(self.report, verification=verification, nbytes=nbytes, built_by=None, warnings=warnings)


def plan(source: Source, target: Target, options: Options, workshop: LocalWorkshop, provenance: Provenance) -> Plan:
    """Decide what `target` is to hold of `source`. No tensor is read but those that names depend on.

    Raises LossError for what would be lost or is ambiguous, UsageError for options that decide nothing, and what the
    steps raise: see `planning.optimizer`, `selection`, `graph`.
    """
    method = quantisation_of(source.checkpoint)
    _check_codes(method, source, target)
    check_read(source.checkpoint, target.format, options)
    configured = _configured(source, target, options)
    if options.custom_objects:
        configured = with_own_layers(configured, options, workshop)
    check_one_class(configured, target, options)
    if configured.structure is not None:
        adapted, optimizer = with_optimizer_in_place(
            configured,
            target.format,
            options,
            selected=lambda settled: selected(settled, target.format, options),
        )
    else:
        adapted, optimizer = with_optimizer(
            configured,
            target.format,
            options,
            named=lambda settled: with_task(_named(settled, target.format), target.format.holds, options),
            adapted=lambda named: target.adapted(selected(named, target.format, options)),
        )
    check_state_is_carried(optimizer, configured, adapted, target, options)
    if options.custom_objects:
        check_code_is_asked(configured, target, options)
    _check_codes(method, source, target, adapted)
    planned = _runnable(adapted, configured, target, options, workshop)
    written = _openable(target.format.write(planned, target.write_options, provenance), options)
    output = target.complete(written, planned)
    is_one_file = target.format.file_name is not None and len(written.file_names) == 1
    report = Report(
        source=str(source.path or ""),
        target=str(target.place.path),
        source_format=source.format,
        target_format=target.format.name,
        lines=account(source.checkpoint, planned, output),
        optimizer=optimizer,
        warnings=(*planned.warnings, *output.warnings, *workshop.earlier.notes),
        settings=planned.settings,
        unchecked=output.unchecked,
        nbytes=output.nbytes,
        built_by=output.built_by,
        is_dry_run=options.dry_run,
    )
    return Plan(
        source=source,
        target=target,
        checkpoint=planned,
        output=output,
        main_file=written.file_names[0] if is_one_file else None,
        report=report,
    )


def _configured(source: Source, target: Target, options: Options) -> Checkpoint:
    """Return the checkpoint with the values that were asked for in its config, and with sizes that it leaves out.

    It has a structure as long as the target is to be nested like that.
    """
    checkpoint = source.checkpoint
    is_copy = target.format.keeps_structure and target.format.name == source.format
    if not is_copy or options.mapping is not None:
        checkpoint = replace(checkpoint, structure=None)
        checkpoint = checkpoint if checkpoint.config is not None else with_own_config(checkpoint)
    if options.data is not None and not os.path.isfile(options.data):
        raise UsageError("--inputs: no such file", path=options.data)
    typed = with_model_type(checkpoint, options) if options.config_value else checkpoint
    check_needs(typed, target, options)
    given = with_config_values(typed, options)
    needs_config = Part.CONFIG in target.format.holds or (target.has_graph(options) and options.model is None)
    if needs_config:
        return with_sizes(given)
    return with_told_sizes(given) if target.is_of_one_class(given, options) else given


def _named(checkpoint: Checkpoint, target: Format) -> Checkpoint:
    """Return the checkpoint in canonical names, or in its own where the target keeps them; its optimizer's, too.

    What `load_state_dict` takes has besides what files of the class leave out.
    """
    own = unwrapped(checkpoint)
    named = own if target.keeps_names(own) else canonical(own)
    return as_state_dict(named) if target.spells_ties else named


def _check_codes(method: str | None, source: Source, target: Target, planned: Checkpoint | None = None) -> None:
    """Raise LossError where a checkpoint quantised by `method` becomes anything but itself: codes are no weights."""
    is_copy = target.format.name == source.format and (planned is None or _is_same(planned, source.checkpoint))
    if method is not None and not is_copy:
        raise LossError(
            f"is quantised ({method}): its codes keep their meaning in a copy to {source.format} alone, in the types "
            "that they have",
            path=source.path,
            hint="dequantise it first, with the tool that made it",
        )


def _is_same(planned: Checkpoint, source: Checkpoint) -> bool:
    """Whether tensors have the names and types that they had."""
    return all(
        planned.origin(name) == name and planned.tensor(name).dtype is source.tensor(name).dtype
        for name in planned.names
    )


def _openable(output: Output, options: Options) -> Output:
    """Return an output that the framework of its format opens, or arrays alone that were asked for as such.

    Raises UsageError for arrays that were not.
    """
    arrays = output.arrays_alone
    if arrays is None:
        return output
    if not options.weights_only:
        raise UsageError(arrays.problem, hint=f"{arrays.hint}; --weights-only writes the arrays alone")
    return replace(output, warnings=(*output.warnings, f"arrays alone: {arrays.problem}"))


def _left_behind(source: Checkpoint) -> tuple[str, ...]:
    """Return a note of the numbers that only the graph of the source has."""
    if not source.constants:
        return ()
    count, numbers = len(source.constants), sum(source.constants.values())
    names = listed([*source.constants], _CONSTANTS_SHOWN)
    return (f"not carried: {count} constants of the graph, {numbers} numbers: {names}",)


def _runnable(
    planned: Checkpoint, source: Checkpoint, target: Target, options: Options, workshop: LocalWorkshop
) -> Checkpoint:
    """Return what the target is to hold with a graph, where it has one."""
    has_graph = target.has_graph(options)
    planned = with_settings(planned, source, has_own_graph=has_graph and options.model is None)
    if not has_graph:
        if not planned.tensors:
            numbers = sum(source.constants.values())
            raise ReadError(f"holds no tensor; its graph has {numbers} numbers, all of them constants")
        return replace(planned, graph=None, warnings=(*planned.warnings, *_left_behind(source)))
    if target.format.extra is not None:
        require(target.format.extra, f"writing a {target.format.name} that runs")
    return with_graph(planned, source, target.format, options, workshop)
