"""Computation graphs: traced from a framework into onnx_ir, lowered from it into a framework."""
