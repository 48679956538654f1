"""What a graph is, in words that need no framework: its tensors, inputs and outputs, and what to run it on.

- ``signature.py``        the tensors, inputs and outputs of a graph, and what is known of them
- ``source.py``           the graph that a source brings along; ``keras_source.py`` that of a Keras model
- ``traced.py``           the graph of a checkpoint, and what its outputs are compared with
- ``declared_inputs.py``  what a user says that a model of one's own takes
- ``sample_inputs.py``    seeded inputs for any graph; ``cases.py`` the sets of them that two graphs are compared on
- ``user_inputs.py``      inputs of the user's own
"""
