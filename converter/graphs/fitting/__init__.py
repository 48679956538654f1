"""Bringing a checkpoint and a graph together: which tensor is which, and what makes the graph's of the checkpoint's."""
