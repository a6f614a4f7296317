"""The `geosam` command; `python -m geosam` is the same."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is being loaded is no error of ours."""
    try:
        from geosam.cli import main as command  # takes a second
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
