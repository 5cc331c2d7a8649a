"""The rules of a policy: read, compiled and matched.

May import: ``policies`` and below.
"""
