"""Converts a published weight file to an inference checkpoint for `facejax.load_model`.

    python tools/convert_weights.py hsemotion age_gender_tf2_new-01-0.14-0.92_quantized.pb --out weights/age_gender
    python tools/convert_weights.py timm model.safetensors --name tf_efficientnet_b0.ns_jft_in1k --out weights/b0

docs/weights.md lists what is published where. Packages needed by format: safetensors or torch (timm), h5py (keras),
onnx (hsemotion's .onnx), torch and timm (hsemotion's .pt); none for hsemotion's .pb.
"""

import argparse
import logging
import sys

from facejax.models import list_models
from facejax.weights.checkpoint import save_inference_checkpoint
from facejax.weights.convert import FORMATS, convert_file


def main() -> int:
    """Converts the file; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("file")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder of the checkpoint")
    parser.add_argument("--name", help=f"architecture.tag: {', '.join(list_models(pretrained=True))}")
    parser.add_argument(
        "--unsafe_pickle",
        action="store_true",
        help="allow a pickled whole model; loading it runs whatever code its author put into it",
    )
    args = parser.parse_args()
    logging.basicConfig(format="warning: %(message)s", force=True)
    try:
        variables, cfg = convert_file(args.format, args.file, args.name, unsafe_pickle=args.unsafe_pickle)
        save_inference_checkpoint(args.out, variables, cfg)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{cfg.name}: {args.out} (heads: {', '.join(cfg.tasks) or 'none'}; SHA-256 of the file {cfg.sha256})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
