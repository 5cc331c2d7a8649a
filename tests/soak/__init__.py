"""The soak: a real cluster, the real program, a seeded adversary, and a checker of what came out.

``python -m tests.soak --help`` says how to run it; ``make soak`` does.
"""
