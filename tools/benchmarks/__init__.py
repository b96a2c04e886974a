"""The rows of tools/benchmark.py, one file each: GOAL, UNIT, add_arguments, sides, and what each side runs."""
