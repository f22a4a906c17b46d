"""From images to model parameters: detection, fitting, tracking and texture extraction."""
