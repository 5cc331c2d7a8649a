"""Benchmarks: one command each, ratios of two things measured in one run."""
