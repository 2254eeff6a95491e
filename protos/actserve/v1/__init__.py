"""The generated code of protocol version 1. The sources are the .proto files beside it; see protos/README.md."""
