"""Put the retargeted face into a video: mouth, seam, blend, writing, and the commands that people run."""
