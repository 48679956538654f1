"""Optimizer state between frameworks: whose slot is whose, and what its numbers mean on the other side.

Between conventions:

- `semantics`    from Keras's conventions to torch.optim's, and back
- `algorithms`   the optimizers that both have, one by one; `epsilon` is where each adds it
- `conversion`   the settings of a state on its way, read with care, and what is assumed where they are silent
- `keras_settings`  what becomes of each setting of Keras's; `schedules` and `besides`: of what PyTorch does elsewhere
- `tensorflow1`  the optimizers of TensorFlow 1

Files of PyTorch:

- `torch_layouts`  the layouts in which training code saves a ``state_dict()``
- `torch_state`  which parameter each entry belongs to, and which algorithm it is of
- `numbering_conventions`, `class_order`  in which order parameters are numbered by training code, and by a class
- `trainer`      the groups of transformers.Trainer
- `stored`       state with PyTorch's names in files that are no pickles

Files of Keras:

- `flavors`      the three kinds of optimizer that Keras has had
- `settings`     the class and hyperparameters that a file says; `record` is what it has no place for, kept beside it
- `keras_names`  which weight each variable belongs to; `keras_layouts` writes what this reads
- `keras_files`  an optimizer read from the parts of a file; `objects` and `writing` write one
"""
