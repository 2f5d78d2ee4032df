"""``python -m sthggep``: the shell commands, where their folder is not on the path."""

from sthggep._cli import main

main(prog_name="python -m sthggep")
