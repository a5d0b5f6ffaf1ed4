"""Export of models to the files of other runtimes, with a proof of what the files compute."""
