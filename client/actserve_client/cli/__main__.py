"""`python -m actserve_client.cli` is `actserve`."""

import sys

from actserve_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
