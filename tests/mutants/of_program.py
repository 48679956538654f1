"""Faults in what the program passes on, in signals and printing, and in what reads archives and SavedModels as data."""

from __future__ import annotations

from tests.mutants import Fault

_PROGRAM = "tests/test_program.py"
_SIGNALS = "tests/cli/test_interrupting.py"
_GUARDED = "tests/execution/test_guarded.py"
_CONDITIONS = "tests/formats/test_conditions.py"
_PT2 = "tests/encoding/test_pt2.py"
_GRAPH_DEF = "tests/encoding/test_graph_def.py"
_META_GRAPH = "tests/encoding/test_meta_graph.py"
_CALLING = "tests/graphs/test_calling.py"

FAULTS = (
    Fault(
        module="program.py",
        old="                durable=options.durable,\n",
        new="",
        tests=_PROGRAM,
        what="--no-fsync is ignored",
    ),
    Fault(
        module="program.py",
        old=', "more": repr(specific)}',
        new="}",
        tests=_PROGRAM,
        what="an attempt with another --max-shard-size is gone on from",
    ),
    Fault(
        module="program.py",
        old='{"tool": __version__, ',
        new="{",
        tests=_PROGRAM,
        what="an attempt of another version is gone on from",
    ),
    Fault(
        module="program.py",
        old="None if options.dry_run else Attempt",
        new="Attempt",
        tests=_PROGRAM,
        what="a dry run takes what an attempt left",
    ),
    Fault(
        module="program.py",
        old="notes=resumed)",
        new="notes=())",
        tests=_PROGRAM,
        what="nothing is said of the files that were kept",
    ),
    Fault(
        module="planning/plan.py",
        old=", *workshop.earlier.notes)",
        new=")",
        tests=_PROGRAM,
        what="nothing is said of an attempt that is not gone on from",
    ),
    Fault(
        module="program.py",
        old="output.nbytes - stage.earlier.bytes_of(output.files)",
        new="output.nbytes",
        tests=_PROGRAM,
        what="a resumed attempt wants the whole space again",
    ),
    Fault(
        module="program.py",
        old="            workers=Workers(jobs=general.jobs, memory_bytes=general.memory_bytes),\n",
        new="",
        tests=_PROGRAM,
        what="verify ignores --jobs and --max-memory",
    ),
    Fault(
        module="program.py",
        old="            observer.committing()\n",
        new="",
        tests=_SIGNALS,
        what="an output that is about to appear can be interrupted",
    ),
    Fault(
        module="planning/sandbox.py",
        old="        timeout_seconds=options.timeout,\n        limits",
        new="        limits",
        tests=_PROGRAM,
        what="--timeout is ignored",
    ),
    Fault(
        module="cli/__init__.py",
        old="def _interrupt(number: int, frame: object) -> None:\n    ignore_signals()\n",
        new="def _interrupt(number: int, frame: object) -> None:\n",
        tests=_SIGNALS,
        what="a second signal ends the cleaning up",
    ),
    Fault(
        module="execution/publish.py",
        old="    except BaseException:\n        shutil.rmtree(folder, ignore_errors=True)\n        raise",
        new="    except BaseException:\n        raise",
        tests=_SIGNALS,
        what="a signal while a failed run is cleaned up leaves its folder",
    ),
    Fault(
        module="cli/__init__.py",
        old="    with suppress(OSError):\n        print_json(value)",
        new="    print_json(value)",
        tests=_SIGNALS,
        what="a failure that stdout does not take has another exit code",
    ),
    Fault(
        module="cli/verify.py",
        old="        overwrite=overwrite,\n",
        new="        overwrite=False,\n",
        tests=_SIGNALS,
        what="verify --overwrite replaces no report",
    ),
    Fault(
        module="cli/__init__.py",
        old='    return 2 if arguments[:1] == ["diff"] else 1',
        new="    return 1",
        tests="tests/cli/test_exit_codes.py",
        what="diff says that two differ when memory is out",
    ),
    Fault(
        module="execution/places.py",
        old="    except (FileNotFoundError, NotADirectoryError):",
        new="    except OSError:",
        tests="tests/cli/test_exit_codes.py",
        what="a folder that may not be searched is said not to be there",
    ),
    Fault(
        module="execution/guarded.py",
        old="(errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK)",
        new="(errno.EPERM, errno.ENOSYS, errno.EMLINK)",
        tests=_GUARDED,
        what="no report on file systems without hard links",
    ),
    Fault(
        module="execution/guarded.py",
        old="            if self.check():\n                raise FileExistsError from error\n",
        new="",
        tests=_GUARDED,
        what="a report that appeared meanwhile is overwritten",
    ),
    Fault(
        module="cli/progress.py",
        old="            self._bars.remove_task(self._task)",
        new="            pass",
        tests="tests/cli/test_options.py",
        what="bars of stages that are over stay",
    ),
    Fault(
        module="options.py",
        old="if not 1 <= self.jobs",
        new="if not 0 <= self.jobs",
        tests="tests/cli/test_options.py",
        what="no thread at all is asked for",
    ),
    Fault(
        module="formats/savedmodel.py",
        old="        checkpoint = replace(checkpoint, lines=without(lines, Kind.OPTIMIZER))",
        new="        pass",
        tests=_CONDITIONS,
        what="state that is carried is said to be no weight, too",
    ),
    Fault(
        module="formats/savedmodel.py",
        old="kernel is not None and kernel not in checkpoint.names",
        new="kernel is not None",
        tests=_CONDITIONS,
        what="a kernel takes the name of another tensor",
    ),
    Fault(
        module="formats/keras.py",
        old="if names is not None and len(names) == len(held):",
        new="if names is not None:",
        tests=_CONDITIONS,
        what="fewer names than variables are an internal error",
    ),
    Fault(
        module="formats/tf_checkpoint.py",
        old="bearers[name] > 1 else name",
        new="bearers[name] > 2 else name",
        tests=_CONDITIONS,
        what="two variables of one name are one",
    ),
    Fault(
        module="formats/tf_checkpoint.py",
        old='_ESCAPED.sub(r"\\1", match[2])',
        new="match[2]",
        tests=_CONDITIONS,
        what="a checkpoint with a quote in its name is not found",
    ),
    Fault(
        module="formats/pt2.py",
        old="ours.keys() == theirs.keys() and ",
        new="",
        tests=_PT2,
        what="a program with a part more is the same",
    ),
    Fault(
        module="encoding/pt2.py",
        old="    DType.UINT16: 28,",
        new="    DType.UINT16: 27,",
        tests=_PT2,
        what="torch reads uint16 as another type",
    ),
    Fault(
        module="encoding/graph_def.py",
        old='            if not key.startswith("_") and key not in _LOCAL\n',
        new='            if not key.startswith("_")\n',
        tests=_GRAPH_DEF,
        what="a graph says where it is run",
    ),
    Fault(
        module="encoding/graph_def.py",
        old=" or message.has(14) or message.has(15):",
        new=" or message.has(14):",
        tests=_GRAPH_DEF,
        what="a constant may be an object",
    ),
    Fault(
        module="encoding/meta_graph.py",
        old="            if index >= count:\n",
        new="            if index > count:\n",
        tests=_META_GRAPH,
        what="a function captures what is not there",
    ),
    Fault(
        module="encoding/meta_graph.py",
        old='_INITIALISERS = ("saved_model_main_op", "legacy_init_op", "table_initializer")',
        new='_INITIALISERS = ("table_initializer", "legacy_init_op", "saved_model_main_op")',
        tests=_META_GRAPH,
        what="tables are filled by another initialiser than a loader runs",
    ),
    Fault(
        module="encoding/saved_function.py",
        old=", key=lambda member: member[0])",
        new=", key=lambda member: member[1].nbytes)",
        tests=_META_GRAPH,
        what="arguments of a dictionary are in another order than TensorFlow's",
    ),
    Fault(
        module="graphs/trace/tensorflow/calling.py",
        old="        if len(found) != 1:",
        new="        if not found:",
        tests=_CALLING,
        what="of two tables of one name the first is taken",
    ),
    Fault(
        module="graphs/trace/tensorflow/calling.py",
        old="    if len(set(names)) < len(names):\n        raise",
        new="    if False:\n        raise",
        tests=_CALLING,
        what="of two outputs of one name one is lost",
    ),
    Fault(
        module="graphs/trace/tensorflow/calling.py",
        old='        prefix += "_"',
        new="        break",
        tests=_CALLING,
        what="a node that is added has the name of another",
    ),
)
