"""Faults in graphs: what operators mean, how tensors and graph agree, and what both sides are compared on."""

from __future__ import annotations

from tests.mutants import Fault

_SETTINGS = "tests/graphs/test_settings_of_operators.py"
_FITTING = "tests/graphs/test_fitting.py"
_CASES = "tests/graphs/test_cases.py"
_INPUTS = "tests/graphs/test_inputs.py"
_PASSES = "tests/graphs/test_passes.py"

FAULTS = (
    Fault(
        module="graphs/lower/torch/normalisation.py",
        old="    before = (size - 1) // 2\n    pads",
        new="    before = size // 2\n    pads",
        tests=_SETTINGS + " -k LRN",
        what="an LRN of even size looks at the channel before, not after, in PyTorch",
    ),
    Fault(
        module="graphs/lower/tensorflow/normalisation.py",
        old="before, after = (size - 1) // 2, math.ceil((size - 1) / 2)",
        new="before, after = math.ceil((size - 1) / 2), (size - 1) // 2",
        tests=_SETTINGS + " -k LRN",
        what="an LRN of even size looks at the channel before, not after, in TensorFlow",
    ),
    Fault(
        module="graphs/lower/torch/normalisation.py",
        old="return x / (bias + alpha / size * squares) ** beta",
        new="return x / (bias + alpha * squares) ** beta",
        tests=_SETTINGS + " -k LRN",
        what="alpha of an LRN is not that of the mean",
    ),
    Fault(
        module="graphs/lower/tensorflow/normalisation.py",
        old="x: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0",
        new="x: Any, *, size: int, alpha: float = 1e-3, beta: float = 0.75, bias: float = 1.0",
        tests=_SETTINGS + " -k LRN",
        what="the default of an LRN's alpha is another",
    ),
    Fault(
        module="graphs/lower/torch/shapes.py",
        old="        before = -((-missing) // 2) if missing < 0 else missing // 2",
        new="        before = missing // 2",
        tests=_SETTINGS + " -k CenterCropPad",
        what="an odd crop leaves out one more at the start",
    ),
    Fault(
        module="graphs/lower/torch/pooling.py",
        old="padding=where.before, count_include_pad=bool(count_include_pad)",
        new="padding=where.before, count_include_pad=True",
        tests=_SETTINGS + " -k AveragePool",
        what="count_include_pad=0 is ignored where PyTorch's own pool does it",
    ),
    Fault(
        module="graphs/lower/torch/pooling.py",
        old="        there = padding(there, replace(where, beyond=none).pads, value=1.0)",
        new="        there = padding(there, where.pads, value=1.0)",
        tests=_SETTINGS + " -k AveragePool",
        what="what rounding up adds is counted",
    ),
    Fault(
        module="graphs/lower/tensorflow/pooling.py",
        old="        counted = tf.pad(counted, [[0, 0], [0, 0], *window.given], constant_values=1)",
        new="        counted = tf.pad(counted, [[0, 0], [0, 0], *window.given])",
        tests=_SETTINGS + " -k AveragePool",
        what="count_include_pad=1 is ignored in TensorFlow",
    ),
    Fault(
        module="graphs/lower/tensorflow/pooling.py",
        old="            windows -= begins_late if isinstance(begins_late, bool) else tf.cast(begins_late, tf.int64)\n",
        new="",
        tests=_SETTINGS + " -k 'AveragePool or MaxPool'",
        what="a window that begins in padding is one more",
    ),
    Fault(
        module="graphs/lower/windows.py",
        old="    if (count - 1) * stride >= extent + before:",
        new="    if (count - 1) * stride > extent + before:",
        tests=_SETTINGS + " -k 'AveragePool or MaxPool'",
        what="a window that begins where padding does is one more",
    ),
    Fault(
        module="graphs/lower/windows.py",
        old='(less, total - less) if auto_pad == "SAME_UPPER" else (total - less, less)',
        new='(less, total - less) if auto_pad == "SAME_LOWER" else (total - less, less)',
        tests="tests/graphs/test_attributes.py -k 'windows and AveragePool'",
        what="SAME_UPPER and SAME_LOWER are swapped",
    ),
    Fault(
        module="graphs/lower/torch/convolution.py",
        old='        before, after = (halves, rest) if auto_pad == "SAME_UPPER" else (rest, halves)',
        new="        before, after = halves, rest",
        tests=_SETTINGS + " -k ConvTranspose",
        what="what output_shape cuts is cut at the same side for every auto_pad",
    ),
    Fault(
        module="graphs/lower/torch/convolution.py",
        old=(
            "        more = [torch.sym_max(want - have, extra) for want, have, extra in zip(wanted, full, "
            "more, strict=True)]\n"
        ),
        new="",
        tests=_SETTINGS + " -k ConvTranspose",
        what="an output_shape beyond what there is gives less",
    ),
    Fault(
        module="graphs/lower/tensorflow/convolution.py",
        old='        cut.append([small, large] if auto_pad == "SAME_UPPER" else [large, small])',
        new="        cut.append([small, large])",
        tests=_SETTINGS + " -k ConvTranspose",
        what="what output_shape cuts is cut at the same side for every auto_pad, in TensorFlow",
    ),
    Fault(
        module="graphs/lower/tensorflow/convolution.py",
        old='    if shape is None and not auto_pad.startswith("SAME"):',
        new='    if not auto_pad.startswith("SAME"):',
        tests=_SETTINGS + " -k ConvTranspose",
        what="output_shape decides no pads",
    ),
    Fault(
        module="graphs/lower/torch/normalisation.py",
        old="    momentum: float = 0.9,\n    training_mode: int = 0,",
        new="    momentum: float = 0.99,\n    training_mode: int = 0,",
        tests=_SETTINGS + " -k BatchNormalization",
        what="the default momentum is that of Keras",
    ),
    Fault(
        module="graphs/lower/tensorflow/normalisation.py",
        old="    momentum: float = 0.9,\n    training_mode: int = 0,",
        new="    momentum: float = 0.1,\n    training_mode: int = 0,",
        tests=_SETTINGS + " -k BatchNormalization",
        what="the default momentum is that of PyTorch",
    ),
    Fault(
        module="graphs/lower/torch/normalisation.py",
        old="torch.nn.functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)",
        new="torch.nn.functional.batch_norm(x, mean, variance, scale, bias, False, 0.0)",
        tests=_SETTINGS + " -k BatchNormalization",
        what="epsilon of a batch norm is the default",
    ),
    Fault(
        module="graphs/lower/torch/pooling.py",
        old="order = list(range(rank)) if not storage_order else",
        new="order = list(range(rank)) if storage_order else",
        tests=_SETTINGS + " -k MaxPool",
        what="positions of maxima are by columns",
    ),
    Fault(
        module="graphs/fitting.py",
        old="        if tensors[name].dtype is not dtype\n",
        new="        if tensors[name].dtype is dtype\n",
        tests=_FITTING,
        what="a weight of another element type gets no cast in the graph",
    ),
    Fault(
        module="graphs/fitting.py",
        old="    if tensor.shape != shape:\n        raise Arch",
        new="    if tensor.size != np.prod(shape):\n        raise Arch",
        tests=_FITTING,
        what="a weight of another shape and as many elements fits",
    ),
    Fault(
        module="graphs/fitting.py",
        old="    for other in sources[1:]:",
        new="    for other in sources[1:2]:",
        tests=_FITTING,
        what="the third name of a tie may differ",
    ),
    Fault(
        module="graphs/fitting.py",
        old="        lines.append(defaulted(name, reason, is_refused_by_default=True))",
        new="        lines.append(defaulted(name, reason))",
        tests=_FITTING,
        what="weights that the checkpoint lacks are zeros, and nobody is asked",
    ),
    Fault(
        module="graphs/fitting.py",
        old="    return dropped(origin, reason, is_refused_by_default=True)",
        new="    return dropped(origin, reason)",
        tests=_FITTING,
        what="weights that the class lacks are lost, and nobody is asked",
    ),
    Fault(
        module="graphs/fitting.py",
        old="        state = state.with_names(architecture.ties)\n",
        new="",
        tests=_FITTING,
        what="state of a weight that is tied is lost",
    ),
    Fault(
        module="graphs/fitting.py",
        old="(source.tensor(name).dtype, source.tensor(name).shape) != (dtype, shape):",
        new="source.tensor(name).shape != shape:",
        tests=_FITTING,
        what="a graph of another element type fits",
    ),
    Fault(
        module="graphs/fitting.py",
        old=(
            "        buffers=(planned.buffers - replaced) | (source.buffers & kept),\n"
            "        frozen=(planned.frozen - replaced) | (source.frozen & kept),"
        ),
        new=(
            "        buffers=(planned.buffers - replaced) | (source.buffers & kept),\n"
            "        frozen=planned.frozen - replaced,"
        ),
        tests=_FITTING,
        what="what is frozen is trained where a graph keeps the source's tensors",
    ),
    Fault(
        module="graphs/fitting.py",
        old="        lines=tuple(line for line in planned.lines if line.name not in origins),",
        new="        lines=planned.lines,",
        tests=_FITTING,
        what="a tensor that is kept has a line that says it is not",
    ),
    Fault(
        module="graphs/movement.py",
        old="values=tuple(step.values.index(axis) for axis in range(len(step.values))))",
        new="values=step.values)",
        tests=_FITTING,
        what="a permutation is undone by itself",
    ),
    Fault(
        module="graphs/movement.py",
        old="    back = [_inverse(step, shape) for shape, step in reversed(there)]",
        new="    back = [_inverse(step, shape) for shape, step in there]",
        tests=_FITTING,
        what="movements are undone first to last",
    ),
    Fault(
        module="graphs/movement.py",
        old=(
            "    while there and from_core and there[0] == from_core[0]:\n"
            "        there, from_core = there[1:], from_core[1:]\n"
        ),
        new="",
        tests=_FITTING,
        what="what both sides did is undone and done again",
    ),
    Fault(
        module="graphs/run/arrays.py",
        old="            if isinstance(error, MemoryError) or is_out_of_memory(str(error)):\n                raise\n",
        new="",
        tests=_FITTING,
        what="a set for which there is no memory is one that the source refuses",
    ),
    Fault(
        module="graphs/run/arrays.py",
        old="        key, array = key + _AS_BFLOAT16, array.view(np.uint16)",
        new="        array = array.view(np.uint16)",
        tests=_FITTING,
        what="outputs of bfloat16 are compared as integers",
    ),
    Fault(
        module="graphs/run/canary.py",
        old=(
            "            finally:\n"
            "                for name, values in originals.items():\n"
            "                    weights.write(name, values)\n"
        ),
        new=(
            "            else:\n"
            "                for name, values in originals.items():\n"
            "                    weights.write(name, values)\n"
        ),
        tests=_FITTING,
        what="a weight that stopped the model stays changed for the groups after it",
    ),
    Fault(
        module="graphs/run/canary.py",
        old="    turned = plain.reshape(-1)[::-1].reshape(plain.shape)",
        new="    turned = plain",
        tests=_FITTING,
        what="a weight that a canary changes is near to what it was",
    ),
    Fault(
        module="graphs/run/canary.py",
        old="            if tried and time.monotonic() - began > seconds:",
        new="            if time.monotonic() - began > seconds:",
        tests="tests/graphs/test_canary.py -k put_back",
        what="a canary without time tries nothing",
    ),
    Fault(
        module="graphs/declared_inputs.py",
        old="        if name in (each.name for each in found):",
        new="        if name in (each.name for each in found[1:]):",
        tests=_FITTING,
        what="the first input may be declared twice",
    ),
    Fault(
        module="graphs/declared_inputs.py",
        old="        if comma and position == len(text):",
        new="        if False:",
        tests=_FITTING,
        what="a comma at the end of --inputs is ignored",
    ),
    Fault(
        module="graphs/architecture.py",
        old="        return extent > 0 and (self.high is None or extent <= self.high)",
        new="        return extent > 0 and (self.high is None or extent < self.high)",
        tests=_FITTING,
        what="the longest text there may be is too long",
    ),
    Fault(
        module="graphs/architecture.py",
        old="        return max(wanted if self.high is None else min(wanted, self.high), 1)",
        new="        return wanted if self.high is None else min(wanted, self.high)",
        tests=_FITTING,
        what="a dimension may have the extent 0",
    ),
    Fault(
        module="graphs/cases.py",
        old="        if not any(start < extent <= end for extent in there):",
        new="        if not any(start <= extent <= end for extent in there):",
        tests=_CASES,
        what="a length at a threshold counts as one past it",
    ),
    Fault(
        module="graphs/cases.py",
        old="longest <= _at(dimension, each)]",
        new="longest < _at(dimension, each)]",
        tests=_CASES,
        what="a threshold that is reached and not passed counts as compared",
    ),
    Fault(
        module="graphs/cases.py",
        old='            ("a row all masked", shapes[3], ROW),\n',
        new="",
        tests=_CASES,
        what="no row is all masked",
    ),
    Fault(
        module="graphs/cases.py",
        old="is_plain=number < _PLAIN)",
        new="is_plain=number <= _PLAIN)",
        tests=_CASES,
        what="masks with holes are among the sets that any source runs on",
    ),
    Fault(
        module="graphs/cases.py",
        old="    if any(map(_is_of_unknown_meaning, architecture.inputs)):",
        new="    if all(map(_is_of_text, architecture.inputs)) and False:",
        tests=_CASES,
        what="integers of unknown meaning are 0 and 1 alone",
    ),
    Fault(
        module="graphs/inputs.py",
        old="            array = np.where(masks[each.shape] == 1, array, each.sampling.padding)",
        new="            array = np.where(masks[each.shape] == 0, array, each.sampling.padding)",
        tests=_INPUTS,
        what="ids are padding where there is text",
    ),
    Fault(
        module="graphs/inputs.py",
        old="        lengths[:1] = length\n",
        new="",
        tests=_INPUTS,
        what="no row is without padding",
    ),
    Fault(
        module="graphs/inputs.py",
        old="        values = np.where(values >= number, values + 1, values)",
        new="        values = np.where(values > number, values + 1, values)",
        tests=_INPUTS,
        what="ids that stand for something else are drawn",
    ),
    Fault(
        module="graphs/inputs.py",
        old="        return np.sort(values.reshape(*shape[:-1], 2, 2), axis=-2).reshape(shape)",
        new="        return np.sort(values, axis=-1)[..., ::-1]",
        tests=_INPUTS,
        what="the corners of boxes are swapped",
    ),
    Fault(
        module="graphs/inputs.py",
        old="        if math.prod(shape) > _ELEMENTS_LIMIT:",
        new="        if shape and shape[0] > _ELEMENTS_LIMIT:",
        tests=_INPUTS,
        what="an input as large as a graph asks for is made",
    ),
    Fault(
        module="graphs/passes/attach.py",
        old='    return bool(stored["steps"]) or _dtype(stored) != value.dtype',
        new='    return bool(stored["steps"])',
        tests=_PASSES,
        what="a weight that was cast keeps the graph's element type",
    ),
    Fault(
        module="graphs/passes/attach.py",
        old="    if taken_already is not None:\n        raise",
        new="    if False:\n        raise",
        tests=_PASSES,
        what="a tensor may have the name of an input",
    ),
    Fault(
        module="graphs/passes/attach.py",
        old='            attributes = {} if 0 not in values else {"allowzero": 1}',
        new='            attributes = {"allowzero": 1} if values else {}',
        tests=_PASSES,
        what="a reshape needs an opset that has allowzero",
    ),
    Fault(
        module="graphs/passes/cleaning.py",
        old="    return value is not None and isinstance(value.const_value, onnx_ir.ExternalTensor)",
        new="    return False",
        tests=_PASSES,
        what="weights are folded into constants",
    ),
    Fault(
        module="graphs/passes/cleaning.py",
        old="        start, stop = int(sizes[:number].sum()), int(sizes[: number + 1].sum())",
        new="        start, stop = int(sizes[:number].sum()), int(sizes[number])",
        tests=_PASSES,
        what="a piece of a sequence ends where another does",
    ),
    Fault(
        module="graphs/passes/loops.py",
        old="        elif not last.uses() and _number(initial) == 0 and _is_next(after, before):",
        new="        elif not last.uses() and _is_next(after, before):",
        tests=_PASSES,
        what="a counter that does not begin at 0 is taken for the number of the step",
    ),
    Fault(
        module="graphs/passes/loops.py",
        old="        return all(_is_implied(each, step, count) for each in node.inputs)",
        new="        return any(_is_implied(each, step, count) for each in node.inputs)",
        tests=_PASSES,
        what="a loop goes on though one of two conditions does not hold",
    ),
    Fault(
        module="graphs/given_inputs.py",
        old='array.dtype.kind in "biuf" and np.can_cast(array.dtype, target, "safe")',
        new='array.dtype.kind in "biuf" and np.can_cast(array.dtype, target, "same_kind")',
        tests="tests/graphs/test_given_inputs.py -k refused",
        what="a user's float64 is rounded in silence",
    ),
    Fault(
        module="graphs/given_inputs.py",
        old="            if there != extent:",
        new="            if there < extent:",
        tests="tests/graphs/test_given_inputs.py -k refused",
        what="batches of two inputs may differ",
    ),
    Fault(
        module="graphs/trace/thresholds.py",
        old='{each: (5 + 2 * values["num_random_blocks"]) * each',
        new='{each: 2 * values["num_random_blocks"] * each',
        tests="tests/graphs/test_thresholds.py",
        what="BigBird's sparse attention begins at a shorter text",
    ),
    Fault(
        module="graphs/trace/assembling.py",
        old="index % inputs[0].shape[axis]",
        new="index",
        tests="tests/graphs/test_saved_form.py -k operations",
        what="the last of the experts is one that is not there",
    ),
)
