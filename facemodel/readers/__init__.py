"""Readers of face models that people bring with --model: BFM 2009, 2017, 2019 and ICT-FaceKit.

A reader turns files into a RawModel (raw.py). What a foreign file doesn't hold - landmarks, regions, a chart with the
inside of the mouth, a coarse graph - is made by prepare.py with the embedded model as its guide, and kept in the user's
cache (cache.py), so that only the first load takes time.
"""
