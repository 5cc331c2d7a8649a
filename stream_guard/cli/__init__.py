"""The commands: options in, printed lines out; no logic of their own.

May import: everything.
"""
