"""Accuracy of a pack: data sets, metrics with intervals, reports."""
