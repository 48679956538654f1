"""Whether options that are given have an effect in this run: one that has none is refused, before a framework starts.

What each needs is in its declaration (`converter.declaring.Need`); here is how a run falls short of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from converter import formats
from converter.declaring import Need, flag_of, needs_of
from converter.dialects.optimizer.settings import NO_RATE
from converter.dialects.optimizer.writing import why_not_exact
from converter.dialects.transformers.heads import encoder_config
from converter.errors import UsageError
from converter.graphs.description.keras_source import names_in_vain
from converter.graphs.description.source import GraphSource
from converter.model.checkpoint import ADDS_MODEL_TYPE, NO_MODEL_TYPE, Checkpoint, Part
from converter.options import MODEL_TYPE, OptimizerMode, Options, Verify
from converter.planning.own_layers import is_code_asked
from converter.planning.target import Target
from converter.report import OptimizerReport, OptimizerStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    checkpoint: Checkpoint
    target: Target
    options: Options

    @property
    def has_graph(self) -> bool:
        return self.target.has_graph(self.options)

    @property
    def has_own_graph(self) -> bool:
        """Whether the target's graph is made of one that the source brings along, or of the user's own model."""
        is_sources = self.checkpoint.graph is not None and not self.options.with_cache
        return self.has_graph and (is_sources or self.options.model is not None)


_NO_GRAPH = "decides nothing of a target that has no graph"
_Lack = tuple[str, str | None]
"""What to say of an option after its name, and what to do."""


def check_needs(checkpoint: Checkpoint, target: Target, options: Options) -> None:
    """Raise UsageError for an option that has no effect on what is made of `checkpoint`; those of optimizers later."""
    run = _Run(checkpoint=checkpoint, target=target, options=options)
    for flag, need in _given(target, options):
        lack = _LACKS[need](run) if need in _LACKS else None
        if lack is not None:
            why, hint = lack
            raise UsageError(f"{flag} {why}", hint=hint)


def check_code_is_asked(checkpoint: Checkpoint, target: Target, options: Options) -> None:
    """Raise UsageError for code of the user's layers that nothing needed, once it is known what is to be written."""
    if not target.has_graph(options) and not is_code_asked(checkpoint):
        run = _Run(checkpoint=checkpoint, target=target, options=options)
        raise UsageError(f"--custom-objects {_NO_GRAPH}", hint=_that_take_layers(run))


def check_state_is_carried(
    report: OptimizerReport, source: Checkpoint, planned: Checkpoint, target: Target, options: Options
) -> None:
    """Raise UsageError for an option of optimizer state that does nothing to what goes along, as `report` says."""
    for flag, need in _given(target, options):
        if need not in (Need.STATE, Need.EPSILON):
            continue
        if report.status is OptimizerStatus.ABSENT:
            raise UsageError(f"{flag} is for the state of an optimizer, and there is none", hint="leave it out")
        if report.status is not OptimizerStatus.CARRIED:
            why = f"decides nothing: optimizer state is not carried ({report.reason})"
            rate = "--hyperparameter learning_rate=VALUE, which carries the state"
            hint = rate if report.reason == NO_RATE else "what carries the state"
            raise UsageError(f"{flag} {why}", hint=f"leave it out, or give {hint}")
        vain = why_not_exact(source, planned) if need is Need.EPSILON else None
        if vain is not None:
            raise UsageError(f"{flag} decides nothing: {vain}", hint="leave it out")


def _given(target: Target, options: Options) -> Iterator[tuple[str, Need]]:
    for each in (options, target.write_options):
        yield from ((flag_of(item), need) for item, need in needs_of(each))
    if options.verify is Verify.OUTPUTS:
        yield "--verify outputs", Need.OUTPUTS
    if options.data is not None:
        yield f"--inputs {options.data}", Need.OUTPUTS


def _without_graph(run: _Run) -> _Lack | None:
    return None if run.has_graph else (_NO_GRAPH, _that_run(run))


def _that_run(run: _Run) -> str:
    if run.options.weights_only and run.target.format.runner is not None:
        return "--weights-only leaves the graph out"
    return f"those that run: {', '.join(name for name, each in formats.registry().items() if each.runner is not None)}"


def _that_take_layers(run: _Run) -> str:
    return f"{_that_run(run)}; and keras, of a Keras model with layers of your own in a file of another kind"


def _without_traced_class(run: _Run) -> _Lack | None:
    if run.has_graph and run.options.model is not None:
        return "does not change the graph of --model", "leave one of them out"
    return _without_graph(run)


def _without_own_classes(run: _Run) -> _Lack | None:
    if not run.has_graph:
        return None if run.checkpoint.listing is not None else (_NO_GRAPH, _that_take_layers(run))
    graph = GraphSource.of(run.checkpoint)
    is_looked_at = run.has_own_graph and run.options.model is None
    if graph is None or not is_looked_at or not graph.trace.takes("custom_objects"):
        return (
            "is for graphs that are made of a Keras config, and none is",
            "leave it out, or --config names one",
        )
    names = names_in_vain(graph, run.options.custom_objects)
    if names:
        return f"names {', '.join(names)}, which the Keras config has no use for", "its class_name says what it is"
    return None


def _without_signatures(run: _Run) -> _Lack | None:
    graph = GraphSource.of(run.checkpoint)
    is_looked_at = run.has_own_graph and run.options.model is None
    if run.has_graph and (graph is None or not is_looked_at or not graph.trace.takes("signature")):
        return "is for graphs that are made of a SavedModel's, and none is", "leave it out"
    return _without_graph(run)


def _without_outputs(run: _Run) -> _Lack | None:
    if not run.has_graph:
        return "needs a target that runs", _that_run(run)
    if run.options.verify in (Verify.WEIGHTS, Verify.NONE):
        return f"is for outputs, which --verify {run.options.verify.value} does not compare", None
    return None


def _without_config(run: _Run) -> _Lack | None:
    config = run.checkpoint.config
    if config is None or config.model_type is None:
        what = "is for the config of a transformers model"
        if encoder_config(run.checkpoint.keras_config) is not None:
            return f"{what}, which is a layer of a Keras model here, with heads of its own", "leave it out"
        if config is not None:
            return f"{what}, and {NO_MODEL_TYPE}", ADDS_MODEL_TYPE
        return f"{what}, and there is none", "--config FILE names one"
    is_typed = list(run.options.config_values) == [MODEL_TYPE] and run.target.is_of_one_class(
        run.checkpoint, run.options
    )
    if is_typed:
        return None
    if not run.has_graph and Part.CONFIG not in run.target.format.holds:
        return "decides nothing of a target that has neither config nor graph", None
    return ("does not change the source's own graph, or that of --model", None) if run.has_own_graph else None


def _without_head(run: _Run) -> _Lack | None:
    is_for_order = (
        run.checkpoint.optimizer_numbered is not None
        and Part.OPTIMIZER in run.target.format.holds
        and run.options.optimizer is not OptimizerMode.DROP
    )
    return None if is_for_order else _without_config(run)


def _without_assets(run: _Run) -> _Lack | None:
    if run.target.is_folder or run.target.is_there or Part.ASSETS in run.target.format.holds:
        return None
    return "is for a folder, and the output is one file", "end DST with / for a folder"


_LACKS: Mapping[Need, Callable[[_Run], _Lack | None]] = {
    Need.GRAPH: _without_graph,
    Need.TRACED_CLASS: _without_traced_class,
    Need.OWN_CLASSES: _without_own_classes,
    Need.SIGNATURES: _without_signatures,
    Need.OUTPUTS: _without_outputs,
    Need.CONFIG: _without_config,
    Need.HEAD: _without_head,
    Need.ASSETS: _without_assets,
}
"""State of an optimizer is not among them: what becomes of it is planned first."""
