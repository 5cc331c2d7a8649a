"""Fits a calibration curve on labelled posts.

May import: ``policies`` and below.
"""
