"""What ONNX says of its operators, once for every framework: arithmetic and tables that import none.

Where a number may be a tensor of a framework, the operators of Python do the arithmetic, and what they do not have (a
maximum, a choice) is given by the framework's lowering.
"""
