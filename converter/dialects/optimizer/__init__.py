"""Optimizer state between frameworks: whose slot is whose, and what its numbers mean on the other side.

`keras_names` finds the weight that each variable of a Keras optimizer belongs to, `settings` reads its config,
`schedules` its learning rate, and `semantics` turns Keras's conventions into torch.optim's.
"""
