"""Builds the images, and runs image, compose file and chart on real machines. Run by ``make``.

Each command prints a table: a row for each step, with its result and its duration. The first step that fails ends the
command with exit code 1.
"""
