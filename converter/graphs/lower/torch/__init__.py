"""From an onnx_ir.Model to PyTorch: the op table, one plain function per operator, and the module that walks it.

`registry` says which function lowers which operator; `module` builds an nn.Module whose parameters and buffers are
called as the tensors, and whose forward walks the graph, eagerly or under torch.export; `program` saves it.
Semantics: https://onnx.ai/onnx/operators/ and the versions given there.
"""
