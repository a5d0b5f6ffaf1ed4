"""``python -m conditional_detr``."""

from conditional_detr.cli.main import main

main()
