"""Verdicts as statements of reasons under the Digital Services Act.

May import: ``kafka`` and below.
"""
