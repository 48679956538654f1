"""From a framework to an onnx_ir.Model whose initializers carry canonical names."""
