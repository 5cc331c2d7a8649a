"""Checks before a start and advice on a running deployment.

May import: ``kafka`` and below.
"""
