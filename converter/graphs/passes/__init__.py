"""Passes over an ONNX graph. None of them folds or renames a parameter but the one that is asked to."""
