"""Training that stops in one framework and goes on in another, on the same batches.

A cell is a model, an algorithm and a direction. `torch_side` and `keras_side` train in their frameworks, the latter in
a process of its own (Keras 3 here, tf_keras in the second environment); `measuring` converts between them and compares.
"""
