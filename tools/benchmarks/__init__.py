"""The rows of tools/benchmark.py, one module each: GOAL, UNIT, add_arguments, sides, and the functions of the sides."""
