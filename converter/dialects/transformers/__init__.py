"""Names of transformers' TensorFlow and Flax models, of BERT in TensorFlow 1, and of transformers 5 while it runs.

All by generated tables (`converter/dialects/tables/`):

- `tensorflow`, `tensorflow_writing`  variables of TensorFlow's classes to PyTorch's names and layouts, and back;
  `tensorflow_classes` is what the tables have of a class, `composites` of one that is made of two, `matching` finds a
  model's variables in a larger one, `heads` are the layers around it, `extents` what only TensorFlow has
- `attributes`, `listings`  where variables are in `.keras` and `.weights.h5` files, and in which order
- `flax`, `flax_names`  leaves of Flax's classes, both ways; `sinusoids` are the positions that they compute,
  `state_dicts` what `load_state_dict` asks for and files leave out
- `in_process_names`, `in_process_rows`  names that transformers 5 has in process, to those that it saves
- `old_names`, `old_configs`  files of old releases; `tf1` those that Google released
- `mechanical`   the rules for what no table knows
"""
