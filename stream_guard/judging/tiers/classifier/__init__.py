"""The classifier tier: an ONNX model and its files.

May import: ``judging.tiers`` and below.
"""
