"""From an onnx_ir.Model to a framework."""
