"""The server of actserve. `python -m actserve_server` runs it; nothing here is a public interface but its command line."""

from importlib.metadata import version

__version__ = version("actserve")
