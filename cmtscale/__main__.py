"""`python -m cmtscale`, for `torchrun -m cmtscale train …`."""

from cmtscale.cli.app import main

if __name__ == "__main__":
    main()
