"""How well a pack recognises people: data sets, metrics with intervals, reports."""
