"""TensorFlow's graphs to ONNX: SavedModels and Keras models become graphs whose initializers name their variables.

`operators` says what a graph may contain, `lifting` makes inputs of its variables, `conversion` is tf2onnx and what it
lacks, `saved_model` and `keras` are the two kinds of source.
"""
