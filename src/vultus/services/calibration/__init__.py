"""Calibration of a collection on its enrolled faces."""
