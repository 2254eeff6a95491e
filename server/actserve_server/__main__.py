"""`python -m actserve_server`: what the `actserve` command hands `serve` and `warm` to."""

import sys

from actserve_server.cli import main

sys.exit(main())
