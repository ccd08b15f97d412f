"""Archives: streams with their offsets, producers and forks, in files that any database of this app can restore.

`records` has the format, `dump` reads streams into it, `restore` writes them, and `directory` has the files.
"""
