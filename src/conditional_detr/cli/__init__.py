"""The command line, ``cdetr``: one module per command. What a command needs beyond typer is imported inside it."""
