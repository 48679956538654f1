"""Names of transformers' TensorFlow and Flax models, of TF1 BERT and of transformers 5 in memory, by generated tables.

`rows` is what a row of a table is, `tables` loads them; the other modules translate one framework's checkpoints each.
"""
