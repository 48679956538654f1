"""From an onnx_ir.Model to TensorFlow: the op table, one plain function per operator, and the SavedModel around it.

`registry` says which function lowers which operator, and lists the families, a module each. `core` walks the graph,
`saved_model` builds. What has no lowering, but a definition by other operators, is lowered by its body (`functions`).
Semantics: https://onnx.ai/onnx/operators/ and the versions given there.
"""
