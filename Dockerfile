# The server, and (target `client`) a client with the demo. Build: docker build --target server -t actserve .
# hadolint global ignore=DL3042,DL3059
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python -m venv /opt/actserve/venv
ENV PATH=/opt/actserve/venv/bin:$PATH
COPY deploy/requirements-server.lock deploy/
RUN pip install --require-hashes -r deploy/requirements-server.lock
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY client client
COPY server server
RUN pip install --no-deps .
# Compiled for the baseline of CPUs, so the cache is good wherever the image runs. The cache is private to its owner, who is
# root here; the server runs as another user, and may read it.
RUN actserve warm --cache-dir /opt/actserve/kernels && chmod -R a+rX /opt/actserve/kernels

FROM build AS build-client
COPY deploy/requirements-demo.lock deploy/
RUN pip install --require-hashes -r deploy/requirements-demo.lock

FROM python:3.11-slim-bookworm AS client
COPY --from=build-client /opt/actserve/venv /opt/actserve/venv
ENV PATH=/opt/actserve/venv/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp
USER 10001:10001
WORKDIR /out
ENTRYPOINT ["actserve"]
CMD ["demo", "--output", "/tmp/demo.png"]

FROM python:3.11-slim-bookworm AS server
COPY --from=build /opt/actserve /opt/actserve
# A volume that is mounted here takes over its owner.
RUN install -d -o 10001 -g 10001 /var/lib/actserve/activations /run/actserve
ENV PATH=/opt/actserve/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ACTSERVE_ADDRESS=0.0.0.0:50051 \
    ACTSERVE_CACHE_DIR=/opt/actserve/kernels \
    ACTSERVE_LOG_FORMAT=json
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 \
    CMD ["actserve", "health", "--server", "127.0.0.1:50051"]
ENTRYPOINT ["actserve"]
CMD ["serve"]
