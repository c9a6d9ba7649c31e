"""Runs `vllm bench serve`, with the arguments given.

The command itself asks for the version of a package named vllm; the one for CPUs has another name.
"""

from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    parser = FlexibleArgumentParser(prog="vllm bench serve")
    add_cli_args(parser)
    main(parser.parse_args())
