"""Fits a calibration curve to labelled posts, and judges it on held-out posts.

May import: ``policies`` and below; scikit-learn and statsmodels, in ``libraries`` alone.
"""
