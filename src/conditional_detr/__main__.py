"""``python -m conditional_detr``."""

from conditional_detr.cli.main import main

if __name__ == "__main__":
    main()
