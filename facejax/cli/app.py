"""Serves a page for photos, clips and the camera on this machine, or writes it as a static site."""

import argparse
import pathlib
import shlex
import sys
from typing import Any

from facejax.cli import DONE
from facejax.cli.check_faces import check_faces
from facejax.cli.options import DEFAULT_MODEL, load_analyzer
from facejax.export import check_packages

_CHECK_FACES = 16
_MIN_FACE = 20


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("app", help="a local page for photos, clips and the camera", description=__doc__)
    parser.add_argument(
        "model",
        nargs="*",
        default=[DEFAULT_MODEL],
        metavar="FOLDER|NAME",
        help=f"trained folders or published weights (default: {DEFAULT_MODEL})",
    )
    server = parser.add_argument_group("the local page")
    server.add_argument("--port", type=int, default=8765, help="port on 127.0.0.1 (default: 8765); 0 for a free one")
    server.add_argument(
        "--min-face", type=int, default=_MIN_FACE, metavar="PIXELS", help="smallest face to detect (default: 20)"
    )
    server.add_argument("--no-browser", action="store_true", help="do not open a browser")
    site = parser.add_argument_group("the static site (docs/app.md)")
    site.add_argument(
        "--static", type=pathlib.Path, metavar="FOLDER", help="write the site to this folder instead of serving it"
    )
    site.add_argument(
        "--onnxruntime-web",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder of the npm package of that name (default: downloaded by npm)",
    )
    site.add_argument(
        "--photos", nargs="+", metavar="PHOTO|FOLDER", help="photos whose faces are used to check the exported networks"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    if args.static is None:
        return _serve(args)
    if args.min_face != _MIN_FACE:
        raise ValueError("--min-face is only for the local page: a static site always detects faces from 20 pixels")
    check_packages("onnx")
    from facejax.app.static_site import write_site
    from facejax.inference import FaceAnalyzer

    models = FaceAnalyzer.load(*args.model).models  # rejects two networks that predict the same attribute
    faces = check_faces(args.photos, _CHECK_FACES)
    write_site(models, args.static, faces, args.onnxruntime_web)
    megabytes = sum(file.stat().st_size for file in args.static.rglob("*") if file.is_file()) / 1e6
    look = f"python -m http.server --directory {shlex.quote(str(args.static))}"
    print(f"{args.static}: {megabytes:.0f} MB; to view it: {look}")
    return DONE


def _serve(args: argparse.Namespace) -> int:
    try:
        from facejax.app.serve import serve
    except ImportError as error:
        raise ImportError(f"the app needs {error.name}: pip install 'facejax[app]'") from error
    analyzer = load_analyzer(args.model, args.min_face)
    print("compiling ...", file=sys.stderr)
    serve(analyzer, port=args.port, browser=not args.no_browser)
    return DONE
