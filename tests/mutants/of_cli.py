"""Faults in the commands: exit codes, what is printed, options that are not passed on."""

from __future__ import annotations

from tests.mutants import Fault

_CODES = "tests/cli/test_exit_codes.py"
_OPTIONS = "tests/cli/test_options.py"
_DIFF = "tests/cli/test_diff_and_verify.py"
_REPORT = "tests/cli/test_report.py"

FAULTS = (
    Fault(
        module="cli/__init__.py",
        old="        return _failed(str(error), error.exit_code)",
        new="        return _failed(str(error), 1)",
        tests=_CODES,
        what="every error is exit 1",
    ),
    Fault(
        module="cli/__init__.py",
        old='        return _failed(escape(error.format_message().replace("\\n", " "), 600), 2)',
        new='        return _failed(escape(error.format_message().replace("\\n", " "), 600), 1)',
        tests=_CODES,
        what="a wrong command line is exit 1",
    ),
    Fault(
        module="cli/__init__.py",
        old='        return _failed("out of memory", 1)',
        new='        return _failed("out of memory", 0)',
        tests=_CODES,
        what="out of memory is exit 0",
    ),
    Fault(
        module="cli/__init__.py",
        old="    except MemoryError:\n",
        new="    except BufferError:\n",
        tests=_CODES,
        what="out of memory is an internal error",
    ),
    Fault(
        module="cli/__init__.py",
        old='; -v shows where", 1)',
        new='; -v shows where", 2)',
        tests=_CODES,
        what="a fault of ours is said to be the user's",
    ),
    Fault(
        module="cli/__init__.py",
        old='        click.echo(f"ckconv: {message}", err=True)',
        new='        click.echo(f"ckconv: {message}")',
        tests=_CODES,
        what="errors are printed on stdout",
    ),
    Fault(
        module="cli/__init__.py",
        old="    return code if isinstance(code, int) else 0",
        new="    return 0",
        tests=_DIFF,
        what="diff of what differs is exit 0",
    ),
    Fault(
        module="cli/__init__.py",
        old='        if args and args[0] not in (*self._NAMES, "--help", "--version"):',
        new='        if args and args[0] not in (*self._NAMES, "--help"):',
        tests="tests/cli/test_exit_codes.py -k version",
        what="--version is taken for a source",
    ),
    Fault(
        module="cli/__init__.py",
        old="        lost.exit_code = exit_code\n",
        new="",
        tests="tests/cli/test_standard_output.py -k diff",
        what="diff on a full disk is exit 1, as if they differed",
    ),
    Fault(
        module="cli/__init__.py",
        old="        if done is None and isinstance(error, BrokenPipeError):",
        new="        if isinstance(error, BrokenPipeError):",
        tests="tests/cli/test_standard_output.py -k false",
        what="convert into a closed pipe does not say that the output is in place",
    ),
    Fault(
        module="cli/diff.py",
        old="        error.exit_code = error.exit_code if isinstance(error, Interrupted) else 2",
        new="        error.exit_code = 2",
        tests=_CODES,
        what="an interrupted diff is exit 2",
    ),
    Fault(
        module="cli/diff.py",
        old="        error.exit_code = error.exit_code if isinstance(error, Interrupted) else 2",
        new="        pass",
        tests=_CODES,
        what="a file that cannot be read is exit 1, as if they differed",
    ),
    Fault(
        module="cli/diff.py",
        old="    raise click.exceptions.Exit(0 if found.is_same else 1)",
        new="    raise click.exceptions.Exit(0 if found.is_same or as_json else 1)",
        tests=_DIFF,
        what="diff --json is exit 0 whatever it finds",
    ),
    Fault(
        module="cli/diff.py",
        old="        if as_json:\n            print_failure(failed(error))\n",
        new="",
        tests=_CODES,
        what="diff --json prints nothing when it fails",
    ),
    Fault(
        module="cli/inspect.py",
        old="        if as_json:\n            print_failure(failed(error))\n",
        new="",
        tests=_CODES,
        what="inspect --json prints nothing when it fails",
    ),
    Fault(
        module="cli/inspect.py",
        old='            tensor["sha256"] = tensor_sha256(checkpoint.tensor(tensor["name"]))',
        new='            tensor["sha256"] = tensor_sha256(checkpoint.tensor(checkpoint.names[0]))',
        tests="tests/cli/test_inspect.py",
        what="inspect --hash shows the hash of the first tensor everywhere",
    ),
    Fault(
        module="cli/inspect.py",
        old="        if canonical:\n",
        new="        if not canonical:\n",
        tests="tests/cli/test_inspect.py",
        what="inspect shows canonical names when they are not asked for",
    ),
    Fault(
        module="cli/options.py",
        old='"flag_value": not item.default',
        new='"flag_value": True',
        tests=_OPTIONS,
        what="--no-fsync is ignored",
    ),
    Fault(
        module="declaring.py",
        old="value not in declared.choices",
        new="value in declared.choices",
        tests="tests/cli/test_convert.py",
        what="a value that is no choice is taken",
    ),
    Fault(
        module="cli/options.py",
        old="if declared.use in uses:",
        new="if declared.use in uses and kind is Options:",
        tests="tests/test_readme.py",
        what="verify and convert do not know the options of formats",
    ),
    Fault(
        module="options.py",
        old="if declared.use is Use.DECIDES",
        new="if declared.use is Use.PROVES",
        tests="tests/execution/test_resume.py",
        what="an attempt is gone on from with other options",
    ),
    Fault(
        module="cli/convert.py",
        old='    to = options.pop("to", None)\n',
        new='    to = options.pop("to", None) and None\n',
        tests=_OPTIONS,
        what="--to is ignored",
    ),
    Fault(
        module="cli/verify.py",
        old="given.items() if is_given(value)}",
        new='given.items() if is_given(value) and value != "value"}',
        tests=_OPTIONS,
        what="verify ignores some options",
    ),
    Fault(
        module="cli/verify.py",
        old="            print_failure(report.failure(error,",
        new="            str(report.failure(error,",
        tests=_CODES,
        what="verify --json prints nothing when it fails",
    ),
    Fault(
        module="cli/convert.py",
        old="            print_failure(report.failure(error,",
        new="            str(report.failure(error,",
        tests=_CODES,
        what="--json prints nothing when a conversion fails",
    ),
    Fault(
        module="declaring.py",
        old="        if declared.choices and value not in declared.choices:",
        new="        if declared.choices and value is not None and str(value).lower() not in declared.choices:",
        tests="tests/cli/test_options.py -k choice",
        what="a choice in capitals is taken and then ignored",
    ),
    Fault(
        module="cli/verify.py",
        old="        elif not quiet:\n            click.echo(result.verdict)",
        new="        else:\n            click.echo(result.verdict)",
        tests="tests/cli/test_options.py -k quiet",
        what="--quiet of verify is ignored",
    ),
    Fault(
        module="options.py",
        old="        name = self._one([text for text in self._inputs if text.endswith(_DATA_SUFFIX)])",
        new="        name = next((text for text in self._inputs if text.endswith(_DATA_SUFFIX)), None)",
        tests="tests/cli/test_options.py -k files",
        what="of two files of --inputs the first is taken",
    ),
)
