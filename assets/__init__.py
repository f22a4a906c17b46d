"""Files that ship with dynatex; their licences are in README.md beside this file."""
from pathlib import Path


def path(name):
    """Path of a file or folder in here."""
    return Path(__file__).parent / name
