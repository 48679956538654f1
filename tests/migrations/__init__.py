"""Models that people bring, saved in every way, converted to every target, judged by what the target's loader computes.

`python -m tests.migrations.table` prints the table; sources.py lists what is made, judge_here.py and
judge_tensorflow.py say what a right cell is.
"""
