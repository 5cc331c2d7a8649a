"""Judges history on a Ray cluster, with the judge of the service.

Only ``cluster.py`` imports Ray.
"""
