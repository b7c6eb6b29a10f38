"""Calibration of a collection on its own enrolled faces."""
