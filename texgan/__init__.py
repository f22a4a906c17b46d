"""Textures of an expression for a person seen in one photo."""
