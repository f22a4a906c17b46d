"""Prepares a face model for --model and says what is in it.

Any command does this by itself when it first meets a model; this one shows the result, and prepares anew on request.
"""
from __future__ import annotations

import argparse

from facemodel import commands
from facemodel.errors import InputError
from facemodel.readers import cache


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m facemodel.readers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="file or folder of a Basel Face Model (2009, 2017, 2019) or of ICT-FaceKit")
    parser.add_argument("--rebuild", action="store_true", help="prepare it even if that was done before")
    commands.add_verbose(parser)
    args = parser.parse_args(argv)
    model = cache.load(args.model, rebuild=args.rebuild)
    if model is None:
        raise InputError(f"{args.model}: no Basel Face Model and no ICT-FaceKit; README.md, 'Other face models', says "
                         "which files are needed")
    print(f"{model.name} {model.hash}: {model.vertex_count} vertices, {len(model.triangles)} triangles, "
          f"{model.identity_count} identity, {model.expression_count} expression and {model.albedo_count} albedo "
          f"components; kept in {cache.folder()}")


if __name__ == "__main__":
    commands.run(main)
