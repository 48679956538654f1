"""Faults in what is made of an optimizer's state: names, conventions of each framework, defaults, refusals."""

from __future__ import annotations

from tests.mutants import Fault

_CONDITIONS = "tests/dialects/test_optimizer_conditions.py"
_ORDER = "tests/dialects/test_parameter_order.py"
_OPTIONS = "tests/formats/test_optimizer_options.py"
_SEMANTICS = "tests/dialects/test_optimizer_semantics.py"

FAULTS = (
    Fault(
        module="dialects/optimizer/conversion.py",
        old=" or len(given) < len(self.groups):",
        new=":",
        tests=_CONDITIONS,
        what="a value that one group lacks is taken from the other",
    ),
    Fault(
        module="dialects/optimizer/conversion.py",
        old=("if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):"),
        new="if isinstance(value, bool) or not isinstance(value, int | float):",
        tests=_CONDITIONS,
        what="a rate may be nan",
    ),
    Fault(
        module="dialects/optimizer/conversion.py",
        old="if isinstance(value, bool) or not isinstance(value, int | float)",
        new="if not isinstance(value, int | float)",
        tests=_CONDITIONS,
        what="a rate may be true",
    ),
    Fault(
        module="dialects/optimizer/conversion.py",
        old='return as_float32(self.number("lr", 0.0))',
        new='return self.number("lr", 0.0)',
        tests=_CONDITIONS,
        what="the rate is not the one that Keras stores",
    ),
    Fault(
        module="dialects/optimizer/keras_settings.py",
        old='"use_ema gradient_accumulation_steps"',
        new='"use_ema"',
        tests=_CONDITIONS,
        what="gradients that were gathered are lost",
    ),
    Fault(
        module="dialects/optimizer/keras_settings.py",
        old='for name in ("clipnorm", "global_clipnorm", "clipvalue") if name in settings',
        new='for name in ("clipnorm", "clipvalue") if name in settings',
        tests=_CONDITIONS,
        what="clipping by the global norm is not said to be lost",
    ),
    Fault(
        module="dialects/optimizer/conversion.py",
        old=(
            "        lacking = [parameter for parameter in self.trained if parameter not in held]\n        if lacking:"
        ),
        new=(
            "        lacking = [parameter for parameter in self.trained if parameter not in held]\n"
            "        if lacking and not held:"
        ),
        tests=_CONDITIONS,
        what="a slot that one parameter lacks crashes",
    ),
    Fault(
        module="dialects/optimizer/conversion.py",
        old='if slot in self.state.slots and "momentum" not in self.given:',
        new="if False:",
        tests=_CONDITIONS,
        what="momentum is assumed to be 0",
    ),
    Fault(
        module="dialects/optimizer/conversion.py",
        old="if self.is_legacy else 0.0) * self.step",
        new="if self.is_legacy else 0.0) * (self.step + 1)",
        tests=_CONDITIONS,
        what="the rate of the step after the next",
    ),
    Fault(
        module="dialects/optimizer/conversion.py",
        old="        if slowed <= 0:\n",
        new="        if slowed < 0:\n",
        tests=_CONDITIONS,
        what="a rate that decays to nothing crashes",
    ),
    Fault(
        module="dialects/optimizer/conversion.py",
        old=(
            "held = [group.hyperparameters for group in self.state.groups if not trained.isdisjoint(group.parameters)]"
        ),
        new="held = [group.hyperparameters for group in self.state.groups]",
        tests=_CONDITIONS,
        what="a group that trains nothing has a say",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old="if is_nesterov or not made.state.slots:",
        new="if is_nesterov:",
        tests=_CONDITIONS,
        what="dampening before the first step, which torch leaves out then, is taken",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old="if is_nesterov or not made.state.slots:",
        new="if not made.state.slots:",
        tests=_CONDITIONS,
        what="dampening with Nesterov's momentum is taken",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old="        rate *= 1 - dampening\n",
        new="        rate *= dampening\n",
        tests=_CONDITIONS,
        what="the rate is scaled by the dampening",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old="    if momentum and dampening:\n",
        new="    if dampening:\n",
        tests=_CONDITIONS,
        what="dampening without momentum makes the rate smaller",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old="default = (0.0 if of_transformers else 0.004) if is_decoupled_class else None",
        new="default = (0.0 if of_transformers else 0.01) if is_decoupled_class else None",
        tests=_CONDITIONS,
        what="the default decay is torch's, not Keras's",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old='beta_1, beta_2 = made.number("beta_1", 0.9), made.number("beta_2", 0.999)',
        new='beta_1, beta_2 = made.number("beta_1", 0.9), made.number("beta_2", 0.99)',
        tests=_CONDITIONS,
        what="another default of beta_2",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old='        "alpha": made.number("rho", 0.9),',
        new='        "alpha": made.number("rho", 0.99),',
        tests=_CONDITIONS,
        what="RMSprop's default of torch stands for that of Keras",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old='        "rho": made.number("alpha", 0.99),',
        new='        "rho": made.number("alpha", 0.9),',
        tests=_CONDITIONS,
        what="RMSprop's default of Keras stands for that of torch",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old='made.number("initial_accumulator_value", 0.0)',
        new='made.number("initial_accumulator_value", 0.1)',
        tests=_CONDITIONS,
        what="Adagrad's default of Keras stands for that of torch",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old="**_below_root(made, 1e-10, squares, is_there=made.flavor is Flavor.LEGACY)",
        new="**_below_root(made, 1e-8, squares, is_there=made.flavor is Flavor.LEGACY)",
        tests=_CONDITIONS,
        what="another default of Adagrad's epsilon",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old='    if not made.state.slots:\n        raise LossError("it has no sums',
        new='    if False:\n        raise LossError("it has no sums',
        tests=_CONDITIONS,
        what="Adagrad before its first step starts at zeros",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old="    if any(decay and not is_decoupled for decay, is_decoupled in decays):",
        new="    if all(decay and not is_decoupled for decay, is_decoupled in decays):",
        tests=_CONDITIONS,
        what="L2 of one group becomes decoupled decay",
    ),
    Fault(
        module="dialects/optimizer/algorithms.py",
        old=(
            "    if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):\n"
            '        raise LossError(f"its betas are {beta_1} and {beta_2}")\n'
            "    is_decoupled_class"
        ),
        new=(
            "    if not (0 <= beta_1 <= 1 and 0 <= beta_2 <= 1):\n"
            '        raise LossError(f"its betas are {beta_1} and {beta_2}")\n'
            "    is_decoupled_class"
        ),
        tests=_CONDITIONS,
        what="a beta of 1 is taken",
    ),
    Fault(
        module="dialects/optimizer/epsilon.py",
        old=("                values -= np.square(self.averages[name].numpy().astype(np.float64).reshape(-1))"),
        new=("                values += np.square(self.averages[name].numpy().astype(np.float64).reshape(-1))"),
        tests=_CONDITIONS,
        what="averages are centered the wrong way",
    ),
    Fault(
        module="dialects/optimizer/epsilon.py",
        old="        weights = np.square(self.values / self.values[-1])",
        new="        weights = self.values / self.values[-1]",
        tests=_SEMANTICS,
        what="elements count by their size, not by its square",
    ),
    Fault(
        module="dialects/optimizer/semantics.py",
        old='is_whole = slot in ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "sum")',
        new='is_whole = slot in ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg")',
        tests=_CONDITIONS,
        what="a sum of another shape is carried",
    ),
    Fault(
        module="dialects/optimizer/semantics.py",
        old='if any(group.get("maximize") for group in made.groups):',
        new='if all(group.get("maximize") for group in made.groups):',
        tests=_CONDITIONS,
        what="a group that maximizes becomes one that minimizes",
    ),
    Fault(
        module="dialects/optimizer/schedules.py",
        old="if step <= bound), -1)",
        new="if step < bound), -1)",
        tests=_CONDITIONS,
        what="a boundary is passed one step too early",
    ),
    Fault(
        module="dialects/optimizer/schedules.py",
        old="(1 - min(step, steps) / steps)",
        new="(1 - step / steps)",
        tests=_CONDITIONS,
        what="a rate falls below its end",
    ),
    Fault(
        module="dialects/optimizer/schedules.py",
        old="        step, start = step - warmup, target",
        new="        start = target",
        tests=_CONDITIONS,
        what="the cosine runs from the start of the warm-up",
    ),
    Fault(
        module="dialects/optimizer/schedules.py",
        old='config.get("end_learning_rate", 1e-4)',
        new='config.get("end_learning_rate", 0.0)',
        tests=_CONDITIONS,
        what="another default of the end of a decay",
    ),
    Fault(
        module="dialects/optimizer/flavors.py",
        old="_FIRST_NEW = (2, 11)",
        new="_FIRST_NEW = (2, 12)",
        tests=_CONDITIONS,
        what="Keras 2.11 is taken for the one before",
    ),
    Fault(
        module="dialects/optimizer/flavors.py",
        old='checkpoint.metadata.get("keras_version", values.get("keras_version"))',
        new='values.get("keras_version", checkpoint.metadata.get("keras_version"))',
        tests=_CONDITIONS,
        what="the version of the config goes before that of the file",
    ),
    Fault(
        module="dialects/optimizer/conventions.py",
        old="    trained = [name for name in parameters if name not in checkpoint.frozen]",
        new="    trained = parameters",
        tests=_ORDER,
        what="what is frozen is always numbered",
    ),
    Fault(
        module="dialects/optimizer/conventions.py",
        old='return is_pair and f"{module}.running_mean" not in shapes',
        new="return is_pair",
        tests=_ORDER,
        what="a batch norm is taken for a layer norm",
    ),
    Fault(
        module="dialects/optimizer/conventions.py",
        old="(?:^|\\.)norm(?:$|\\.)|_norm(?:$|\\.)",
        new="norm(?:$|\\.)",
        tests=_ORDER,
        what="a module whose name ends in norm does not decay",
    ),
    Fault(
        module="dialects/optimizer/conventions.py",
        old='yield (others, decayed), f"{convention}, swapped"',
        new='yield (decayed, others), f"{convention}, swapped"',
        tests=_ORDER,
        what="groups the other way about are not tried",
    ),
    Fault(
        module="dialects/optimizer/conventions.py",
        old="        ways = {filled: kept[:2] for filled, kept in grown.items()}",
        new="        ways = {filled: kept[:1] for filled, kept in grown.items()}",
        tests=_ORDER,
        what="of two ways to leave modules out the first is believed",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old=(
            '    if len(fits) == 1:\n        ((groups, convention),) = fits.items()\n        return groups, f"verified'
        ),
        new=('    if fits:\n        (groups, convention), *_ = fits.items()\n        return groups, f"verified'),
        tests="tests/formats/test_pytorch_optimizer.py::test_several_orders_that_fit_are_refused",
        what="of several orders that fit the first is believed",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old="        if tensor.shape not in ((), expected):",
        new="        if tensor.size not in (1, int(np.prod(expected))):",
        tests=_ORDER,
        what="a slot of another shape with as many elements fits",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old='"row_var": lambda shape: (*shape[:-1], 1),',
        new='"row_var": lambda shape: (*shape[:-2], 1, *shape[-1:]),',
        tests=_ORDER,
        what="Adafactor's rows and columns are swapped",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old="0 <= value < math.inf and",
        new="0 <= value and",
        tests=_ORDER,
        what="an endless step crashes",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old="len(values) == 1 and entries.steps.keys() == entries.slots.keys()",
        new="len(values) == 1",
        tests=_ORDER,
        what="a step that one parameter lacks is everybody's",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old='    if len(set(flat)) != len(flat) or not set(state["state"]) <= set(flat):',
        new='    if not set(state["state"]) <= set(flat):',
        tests=_ORDER,
        what="one number in two groups is two parameters",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old="        if sum(sizes) != len(given):\n",
        new="        if sum(sizes) > len(given):\n",
        tests=_ORDER,
        what="an order that is too long is cut off",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old="if not isinstance(names, list | tuple) or len(names) != count or",
        new="if not isinstance(names, list | tuple) or",
        tests=_ORDER,
        what="names that are too few crash",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old=('return "adamw" if all(group.get("decoupled_weight_decay") is True for group in groups) else "adam"'),
        new='return "adamw"',
        tests=_ORDER,
        what="Adam of torch 2.7 and later is AdamW",
    ),
    Fault(
        module="dialects/optimizer_order.py",
        old='return "adam" if all(group.get("weight_decay", 0) == 0 for group in groups) else "unknown"',
        new='return "adam"',
        tests=_ORDER,
        what="an old AdamW is Adam",
    ),
    Fault(
        module="dialects/optimizer/torch_layouts.py",
        old='            start += len(group["params"])\n',
        new="            start += 1\n",
        tests=_ORDER,
        what="numbers of several optimizers are mixed up",
    ),
    Fault(
        module="dialects/optimizer/torch_layouts.py",
        old="return inferred_algorithm(groups, slots), frozenset().union(*groups)",
        new="return inferred_algorithm(groups, slots), frozenset()",
        tests=_ORDER,
        what="optimizers with other hyperparameters are made one",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old="    if len(fits) != 1:\n        what",
        new="    if not fits:\n        what",
        tests=_ORDER,
        what="variables without names that fit two ways are given the first",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old='switches = {"amsgrad": "velocity_hat"} if algorithm in ("adam", "adamw") else switches',
        new='switches = switches if algorithm in ("adam", "adamw") else switches',
        tests=_ORDER,
        what="slots that the config says are not there are found",
    ),
    Fault(
        module="planning/optimizer.py",
        old="    return replace(made, frozen=checkpoint.frozen)\n",
        new="    return made\n",
        tests=_OPTIONS,
        what="--trainable makes frozen what it does not match",
    ),
    Fault(
        module="planning/optimizer.py",
        old="if pattern.search(name) is None)",
        new="if pattern.match(name) is None)",
        tests=_OPTIONS,
        what="--trainable matches only the start of names",
    ),
    Fault(
        module="planning/optimizer.py",
        old="return tuple(name.strip() for name in names if name.strip())",
        new="return tuple(name for name in names if name)",
        tests=_OPTIONS,
        what="blanks around names are part of them",
    ),
    Fault(
        module="planning/optimizer.py",
        old="        if isinstance(value, float) and not math.isfinite(value):",
        new="        if isinstance(value, float) and math.isinf(value):",
        tests=_OPTIONS,
        what="--hyperparameter lr=nan is taken",
    ),
    Fault(
        module="planning/optimizer.py",
        old='    if algorithm == "unknown":',
        new="    if False:",
        tests=_OPTIONS,
        what="a hyperparameter that tells AdamW from Adam changes nothing",
    ),
    Fault(
        module="dialects/optimizer/schedules.py",
        old='    index = next((index for index, bound in enumerate(config["boundaries"]) if step <= bound), -1)',
        new='    index = next((index for index, bound in enumerate(config["boundaries"]) if step < bound), -1)',
        tests="tests/dialects/test_optimizer_conditions.py",
        what="a rate changes one step early",
    ),
    Fault(
        module="dialects/optimizer/epsilon.py",
        old="values = values[np.isfinite(values) & (values > 0)]",
        new="values = values[np.isfinite(values) & (values >= 0)]",
        tests=_CONDITIONS,
        what="elements that never had a gradient count when an epsilon is placed",
    ),
    Fault(
        module="planning/optimizer.py",
        old=(
            "        return replace(checkpoint, warnings=(*checkpoint.warnings, said))\n\n\ndef _with_hyperparameters"
        ),
        new="        return checkpoint\n\n\ndef _with_hyperparameters",
        tests="tests/formats/test_what_is_said.py",
        what="that the optimizer's parameters are in no order that torch goes by is not said",
    ),
    Fault(
        module="dialects/optimizer/besides.py",
        old="1 + decay * (state.step or 0)",
        new="1 + decay * (state.step or 1)",
        tests="tests/dialects/test_optimizer_settings.py -k before_the_first",
        what="a rate has decayed before the first step",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old="or value != int(value):",
        new="or False:",
        tests="tests/dialects/test_optimizer_names.py",
        what="a step and a half is a step",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old="        if tensor.shape != shape:\n",
        new="        if tensor.size != weights[weight].size:\n",
        tests="tests/dialects/test_optimizer_names.py",
        what="a slot that is turned is its weight's",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old=(
            "        if weight in self.slots.setdefault(name, {}):\n"
            '            raise LossError(f"it has two {slot} for {weight!r}")\n'
        ),
        new="        self.slots.setdefault(name, {})\n",
        tests="tests/dialects/test_optimizer_names.py",
        what="of two slots of one kind the second counts",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old='        if self.step is None:\n            raise LossError("it has no step count")\n',
        new="",
        tests="tests/dialects/test_optimizer_names.py",
        what="an optimizer without a step count has none to go on from",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old='if "learning_rate" in self.scalars and not is_scheduled:',
        new='if "learning_rate" in self.scalars:',
        tests="tests/dialects/test_optimizer_names.py",
        what="the rate of a schedule becomes a constant",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old="bool(settings.config[switch]) != (slot in slots)",
        new="bool(settings.config[switch]) and slot not in slots",
        tests="tests/dialects/test_optimizer_names.py",
        what="a slot that the config says is not there is found among those without names",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old="is_certain = len({weights[name].shape for name in order}) == len(order)",
        new="is_certain = True",
        tests="tests/dialects/test_optimizer_names.py",
        what="that parameters of one shape rest on order is not said",
    ),
    Fault(
        module="dialects/optimizer/keras_names.py",
        old="        if len(owners) != 1:\n",
        new="        if not owners:\n",
        tests="tests/dialects/test_optimizer_names.py",
        what="a variable that could be of two weights is that of the first",
    ),
    Fault(
        module="dialects/optimizer/keras_layouts.py",
        old='"rmsprop": (("velocity",), ("momentum",), ("average_gradient",)),',
        new='"rmsprop": (("velocity",), ("average_gradient",), ("momentum",)),',
        tests="tests/dialects/test_optimizer_names.py",
        what="RMSprop's momentum and averages stand in the places of one another",
    ),
    Fault(
        module="dialects/optimizer/conventions.py",
        old="        if tried > _WAYS_LIMIT:\n            return []\n",
        new="",
        tests=_ORDER + " -k very_many",
        what="a model of very many modules keeps a conversion from ever ending",
    ),
)
