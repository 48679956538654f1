"""What a target is to hold, decided before a byte of it is written."""

from converter.planning.plan import Plan, plan
from converter.planning.source import Source
from converter.planning.target import Target

__all__ = ["Plan", "Source", "Target", "plan"]
