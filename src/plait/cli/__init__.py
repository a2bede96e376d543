"""The command line: one file per command."""


def main() -> None:
    """Entry point of `plait`."""
    raise SystemExit("plait: the commands are being built")
