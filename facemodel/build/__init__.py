"""Builds the embedded model from CC0 parts; see `python -m facemodel.build --help`."""
