"""Load and figures: what the hub costs, beside a C program in the same run. ``python -m benchmarks --help``."""
