"""Cameras and videos: decoded in processes of their own, one newest frame per source. People are not known here."""
