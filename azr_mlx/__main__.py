"""`python -m azr_mlx` is `azr`."""

from azr_mlx.cli import main

if __name__ == "__main__":
    main()
