"""One image: its levels, files, blocks and colors."""
