"""From an onnx_ir.Model to TensorFlow: the op table, one plain function per operator, and the SavedModel around it.

`registry` says which function lowers which operator; the families are `elementwise`, `creation`, `shapes`, `indexing`,
`linear_algebra`, `convolution`, `reduction`, `normalisation`, `sequences`. `core` walks, `saved_model` builds.
Semantics: https://onnx.ai/onnx/operators/ and the versions given there.
"""
