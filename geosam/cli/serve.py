"""The command that other programs talk to."""

import logging
import os
import sys

import click

from geosam.cli.shared import ModelChoice


@click.command()
@click.option("--stdio", is_flag=True, required=True, help="Talk over stdin and stdout.")
def serve(*, stdio: bool) -> None:  # the only way so far
    """Answer the requests of another program, such as QGIS.

    One JSON object a line, as docs/protocol.md says, until stdin ends; logs go to stderr.

    \b
    Examples:
      geosam serve --stdio < requests.jsonl
    """
    answers = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # what libraries print must not come between the answers
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    from geosam.serve.server import serve as answer  # the answers' stream is safe by now

    answer(sys.stdin.buffer, answers, lambda *choice: ModelChoice(*choice).load())
    os._exit(0)  # a thread that is still busy must not keep the process, or end it badly
