"""Tests that need a second environment, and the scripts that make tables in it."""
