"""The parametric face: model, camera, light, rasteriser, texture atlas."""
