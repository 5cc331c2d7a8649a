"""Exports verdicts as statements of reasons under the EU's Digital Services Act.

May import: ``kafka`` and below.
"""
