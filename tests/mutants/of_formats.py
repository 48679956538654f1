"""Faults in what formats read, keep, write and refuse."""

from __future__ import annotations

from tests.mutants import Fault

_KEPT = "tests/formats/test_what_is_kept.py"
_SAFETENSORS = "tests/formats/test_safetensors.py"

FAULTS = (
    Fault(
        module="encoding/description.py",
        old='            "frozen": sorted(self.checkpoint.frozen),\n',
        new="",
        tests=_KEPT + "::test_frozen_parameters_buffers_and_ties_come_back",
        what="what is frozen is trained after a conversion",
    ),
    Fault(
        module="encoding/description.py",
        old='            "buffers": sorted(self.checkpoint.buffers),\n',
        new="",
        tests=_KEPT + "::test_frozen_parameters_buffers_and_ties_come_back",
        what="buffers are parameters after a conversion",
    ),
    Fault(
        module="encoding/description.py",
        old="if name in renamed.tensors or owner not in renamed.tensors:",
        new="if owner not in renamed.tensors:",
        tests=_KEPT + "::test_documents_that_speak_of_something_else",
        what="a tie hides a tensor of its own",
    ),
    Fault(
        module="encoding/description.py",
        old="isinstance(name, str) and name in checkpoint.tensors for name in value)",
        new="isinstance(name, str) for name in value)",
        tests=_KEPT + "::test_documents_that_speak_of_something_else",
        what="a document may speak of tensors that are not there",
    ),
    Fault(
        module="planning/selection.py",
        old="        frozen=checkpoint.frozen.intersection(wanted),",
        new="        frozen=checkpoint.frozen,",
        tests=_KEPT + "::test_what_is_left_out_is_not_said_to_be_frozen",
        what="--include leaves names of frozen parameters that are not there",
    ),
    Fault(
        module="planning/selection.py",
        old="        frozen=checkpoint.frozen.intersection(wanted),",
        new="        frozen=frozenset(),",
        tests=_KEPT + "::test_what_is_left_out_is_not_said_to_be_frozen",
        what="--include forgets what is frozen",
    ),
    Fault(
        module="formats/pt2.py",
        old=("        and name not in checkpoint.buffers\n        and name not in checkpoint.frozen\n"),
        new="        and name not in checkpoint.buffers\n",
        tests=_KEPT + "::test_what_is_trained_is_a_parameter_of_a_program",
        what="a frozen parameter is trained by a program",
    ),
    Fault(
        module="formats/pt2.py",
        old=("        and name not in checkpoint.buffers\n        and name not in checkpoint.frozen\n"),
        new="        and name not in checkpoint.frozen\n",
        tests=_KEPT + "::test_what_is_trained_is_a_parameter_of_a_program",
        what="a buffer is trained by a program",
    ),
    Fault(
        module="formats/savedmodel.py",
        old=(
            '    if not os.path.lexists(path / f"{_VARIABLES}.index"):\n'
            '        raise ReadError("is a SavedModel without variables", path=path)\n'
        ),
        new="",
        tests=_KEPT + "::test_folders_of_several_or_none",
        what="a SavedModel without variables is a missing file",
    ),
    Fault(
        module="formats/savedmodel.py",
        old=("if tensor.dtype.is_floating and name not in checkpoint.buffers and name not in checkpoint.frozen"),
        new="if tensor.dtype.is_floating and name not in checkpoint.buffers",
        tests=_KEPT + "::test_what_is_trained_is_a_trainable_variable_of_a_saved_model",
        what="a frozen parameter is a trainable variable",
    ),
    Fault(
        module="formats/pretrained/__init__.py",
        old="declared.items() if is_equal(tensors[tied], tensors[owner])}",
        new="declared.items()}",
        tests="tests/formats/test_pretrained.py::test_untied_values_are_both_kept",
        what="the second copy of a tie that changed is left out of a folder",
    ),
    Fault(
        module="formats/tf_checkpoint.py",
        old='        if document.get("prefix") == prefix.name:',
        new="        if True:",
        tests=_KEPT + "::test_the_optimizer_of_another_prefix_is_not_this_one_s",
        what="the document of one checkpoint is believed of another",
    ),
    Fault(
        module="formats/tf_checkpoint.py",
        old="    if len(latest) != 1:",
        new="    if not latest:",
        tests=_KEPT + "::test_the_file_that_names_the_latest_of_several",
        what="of two latest checkpoints the first is read",
    ),
    Fault(
        module="formats/tf_checkpoint.py",
        old='if base in ("", ".", "..") or not (is_whole_path or name == base):',
        new='if base in ("", ".", ".."):',
        tests=_KEPT + "::test_the_file_that_names_the_latest_of_several",
        what="the file `checkpoint` may name one elsewhere",
    ),
    Fault(
        module="formats/tf_checkpoint.py",
        old="    older = len(set(others) - set(latest))",
        new="    older = len(set(others))",
        tests=_KEPT + "::test_the_file_that_names_the_latest_of_several",
        what="a folder with one checkpoint is said to have two",
    ),
    Fault(
        module="formats/tf_checkpoint.py",
        old="    if len(indexes) != 1:\n",
        new="    if not indexes:\n",
        tests=_KEPT + "::test_the_file_that_names_the_latest_of_several",
        what="of several checkpoints one is read without a word",
    ),
    Fault(
        module="formats/dcp.py",
        old="    if len(root) == 1 and isinstance(inner, _Node) and any(",
        new="    if isinstance(inner, _Node) and any(",
        tests=_KEPT + "::test_dcp_with_two_roots",
        what="of two roots one is lost",
    ),
    Fault(
        module="formats/dcp.py",
        old="        elif owners.setdefault(id(value), name) == name or value.size == 0:",
        new="        elif True:",
        tests=_KEPT + "::test_a_tie_is_stored_once",
        what="ties of a distributed checkpoint are copies",
    ),
    Fault(
        module="formats/pytorch/reading.py",
        old="    if len(root) == 1 and isinstance(inner, dict) and any(",
        new="    if isinstance(inner, dict) and any(",
        tests=_KEPT + "::test_which_part_of_a_file_of_torch_is_weights",
        what="of two models in one file one is lost",
    ),
    Fault(
        module="formats/pytorch/reading.py",
        old=("            if isinstance(value, int if is_number else Mapping) and not isinstance(value, bool):"),
        new="            if isinstance(value, int if is_number else Mapping):",
        tests=_KEPT + "::test_what_training_code_calls_the_same_things",
        what="a number of steps may be true",
    ),
    Fault(
        module="formats/pytorch/reading.py",
        old="                names[spelling] = normal\n                break\n",
        new="                names[spelling] = normal\n",
        tests=_KEPT + "::test_what_training_code_calls_the_same_things",
        what="of two spellings of one thing one is lost",
    ),
    Fault(
        module="formats/pytorch/reading.py",
        old="    if isinstance(schedulers, list) and len(schedulers) == 1 and",
        new="    if isinstance(schedulers, list) and",
        tests=_KEPT + "::test_what_training_code_calls_the_same_things",
        what="of several schedulers only the first is carried",
    ),
    Fault(
        module="formats/pytorch/reading.py",
        old="isinstance(key, str) and key not in beside for key in own)",
        new="isinstance(key, str) for key in own)",
        tests=_KEPT + "::test_what_training_code_calls_the_same_things",
        what="an epoch among the extras replaces the other",
    ),
    Fault(
        module="formats/pretrained/weights.py",
        old="    elif _BIN_NAME in entries:\n        raise ReadError(",
        new="    elif False:\n        raise ReadError(",
        tests=_KEPT + "::test_a_bin_index_beside_a_whole_file",
        what="a whole pytorch_model.bin beside an index is passed over",
    ),
    Fault(
        module="formats/pretrained/training.py",
        old=(
            "        if not is_optimizer_state(state):\n"
            '            raise ReadError("is no optimizer\'s state_dict()", path=folder / OPTIMIZER_NAME)\n'
        ),
        new="        if not is_optimizer_state(state):\n            return checkpoint\n",
        tests=_KEPT + "::test_training_state_beside_weights_is_what_its_name_says",
        what="an optimizer.pt that is none is passed over",
    ),
    Fault(
        module="formats/pretrained/training.py",
        old="if isinstance(state.get(key), int | float)}",
        new="if isinstance(state.get(key), int)}",
        tests=_KEPT + "::test_training_state_beside_weights_is_what_its_name_says",
        what="a fraction of an epoch is lost",
    ),
    Fault(
        module="formats/__init__.py",
        old="return max(matches, key=lambda match: match[0])[1] if matches else None",
        new="return matches[0][1] if matches else None",
        tests=_KEPT + "::test_what_a_name_says",
        what="x.weights.h5 is taken for a whole model",
    ),
    Fault(
        module="formats/__init__.py",
        old="    lowered = path.name.lower()\n",
        new="    lowered = path.name\n",
        tests=_KEPT + "::test_what_a_name_says",
        what="X.PTH is no name of PyTorch's",
    ),
    Fault(
        module="formats/__init__.py",
        old="        claims = by_suffix if len(by_suffix) == 1 else claims\n",
        new="        claims = by_suffix or claims[:1]\n",
        tests=_KEPT + "::test_content_that_two_formats_claim_is_told_apart_by_the_suffix",
        what="content that two formats claim is one of them",
    ),
    Fault(
        module="formats/__init__.py",
        old=("    fewest = min(strangers, key=len, default=list(entries))\n    return fewest[0] if fewest else None"),
        new=("    common = set(entries).intersection(*map(set, strangers))\n    return min(common, default=None)"),
        tests=_KEPT + "::test_what_makes_a_folder_somebody_s_own",
        what="a folder of two models may be replaced",
    ),
    Fault(
        module="formats/__init__.py",
        old='any(entry == name.partition("/")[0] for name in ASSET_NAMES)',
        new="any(entry == name for name in ASSET_NAMES)",
        tests=_KEPT + "::test_what_makes_a_folder_somebody_s_own",
        what="a folder of sentence-transformers cannot be replaced",
    ),
    Fault(
        module="formats/probe.py",
        old='        if self.head.startswith(b"version https://git-lfs"):',
        new="        if False:",
        tests=_KEPT + "::test_what_is_known_of_files_that_are_none",
        what="a Git LFS pointer is a damaged file",
    ),
    Fault(
        module="formats/keras.py",
        old="            stores[layer] = [tensors[number] for number in numbers]",
        new="            stores[layer] = list(tensors.values())",
        tests=_KEPT + "::test_variables_that_keras_numbers_count_from_zero",
        what="the eleventh variable of a layer is taken for its third",
    ),
    Fault(
        module="formats/keras.py",
        old="        if set(numbers) == set(tensors):",
        new="        if tensors:",
        tests=_KEPT + "::test_variables_that_keras_numbers_count_from_zero",
        what="a layer that lacks a number crashes",
    ),
    Fault(
        module="formats/keras.py",
        old="    if _SEED in place:",
        new="    if place[0] == _SEED:",
        tests=_KEPT + "::test_variables_that_keras_numbers_count_from_zero",
        what="the state of a random generator is a weight",
    ),
    Fault(
        module="formats/keras.py",
        old="            dataset = group.members.get(str(position))",
        new="            dataset = list(group.members.values())[position]",
        tests=_KEPT + "::test_a_layer_of_more_than_ten_variables",
        what="variables of a layer are read in the order of their numbers as text",
    ),
    Fault(
        module="formats/flax.py",
        old="        if {CHUNKED, OWN_KEY}.intersection((*keys, name)):",
        new="        if {CHUNKED}.intersection((*keys, name)):",
        tests=_KEPT + "::test_names_that_mean_something_to_a_format",
        what="a tensor called __ckconv__ is lost",
    ),
    Fault(
        module="formats/flax.py",
        old='            while stored in taken:\n                stored += "_"\n',
        new="",
        tests=_KEPT + "::test_names_that_mean_something_to_a_format",
        what="a tensor that gives way takes the name of another",
    ),
    Fault(
        module="formats/flax.py",
        old=("    return not any(keys[:length] in leaves for keys in leaves for length in range(1, len(keys)))"),
        new="    return True",
        tests=_KEPT + "::test_names_that_mean_something_to_a_format",
        what="a name that is the start of another crashes",
    ),
    Fault(
        module="formats/onnx.py",
        old=("return {name: _MARK + name for name in checkpoint.tensors if name in taken and name not in used}"),
        new="return {}",
        tests=_KEPT + "::test_a_tensor_that_is_called_as_an_input",
        what="a tensor that is called as an input becomes its default",
    ),
    Fault(
        module="formats/onnx.py",
        old="taken = {each.name for each in architecture.inputs}.union(architecture.outputs)",
        new="taken = {each.name for each in architecture.inputs}",
        tests=_KEPT + "::test_a_tensor_that_is_called_as_an_input",
        what="a tensor that is called as an output makes the model invalid",
    ),
    Fault(
        module="formats/onnx.py",
        old="return _MARK + name if not name or name.startswith(_MARK) else name",
        new="return _MARK + name if not name else name",
        tests=_KEPT + "::test_a_tensor_that_is_called_as_an_input",
        what="a name with the mark of another is stored over it",
    ),
    Fault(
        module="formats/h5.py",
        old=(
            "        if id(dataset) in first:\n"
            "            aliases[name] = first[id(dataset)]\n"
            "        else:\n"
            "            first[id(dataset)] = name\n"
            "            tensors[name] = dataset.tensor\n"
            "    lines"
        ),
        new="        first[id(dataset)] = name\n        tensors[name] = dataset.tensor\n    lines",
        tests=_KEPT + "::test_a_tie_is_stored_once",
        what="ties of an HDF5 file are copies",
    ),
    Fault(
        module="formats/h5.py",
        old=("taken = {layers.TOP_LEVEL} if checkpoint.optimizer is None else {layers.TOP_LEVEL, _OPTIMIZER}"),
        new="taken = {layers.TOP_LEVEL}",
        tests="tests/formats/test_optimizer_stored.py::test_a_tensor_called_like_the_optimizers_own_stays",
        what="a module called optimizer_weights is mixed up with the optimizer",
    ),
    Fault(
        module="formats/dcp.py",
        old='        if last in node:\n            raise ReadError("is there twice"',
        new='        if False:\n            raise ReadError("is there twice"',
        tests="tests/formats/test_dcp.py tests/formats/test_what_is_kept.py",
        what="of two entries of one name the last is taken",
    ),
    Fault(
        module="formats/pretrained/training.py",
        old='    if SCHEDULER_NAME in present:\n        extras["scheduler_state_dict"]',
        new='    if SCHEDULER_NAME in present and STATE_NAME in present:\n        extras["scheduler_state_dict"]',
        tests="tests/formats/test_what_is_kept.py -k beside_weights",
        what="a scheduler without trainer_state.json is lost",
    ),
    Fault(
        module="formats/__init__.py",
        old="    return max(matches, key=lambda match: match[0])[1] if matches else None",
        new="    return min(matches, key=lambda match: match[0])[1] if matches else None",
        tests="tests/formats/test_what_is_kept.py",
        what="the shortest suffix decides",
    ),
)
