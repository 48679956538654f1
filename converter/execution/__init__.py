"""Carrying a plan out: streaming bytes, child processes, staging and publishing."""
