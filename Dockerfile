# natadv with the mini world. The repository that gates its models is mounted at /gate.
#
# For NVIDIA GPUs: CUDA comes with PyTorch, the driver with the host's container toolkit.
#
#   docker build -t natadv .
#   docker run --rm --gpus all --ipc host --user "$(id -u):$(id -g)" -v "$PWD:/gate" natadv pytest suites/ -n auto
#
# Without CUDA:
#
#   docker build --target cpu -t natadv:cpu .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/gate" natadv:cpu pytest suites/ -n 2
FROM python:3.12-slim AS wheels
RUN pip install --no-cache-dir build==1.6.1 hatchling==1.33.0
WORKDIR /src
COPY . .
RUN python -m build --no-isolation --wheel --outdir /dist . \
    && python -m build --no-isolation --wheel --outdir /dist natadv_mini

FROM python:3.12-slim AS base
# For contracts of other revisions. Of the version that the base image has.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes git \
    && rm -rf /var/lib/apt/lists/*
# A user without an entry, as `--user` makes one, has no home.
ENV HOME=/tmp
WORKDIR /gate
CMD ["natadv", "--help"]

FROM base AS cpu
RUN --mount=type=bind,from=wheels,source=/dist,target=/dist \
    pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu /dist/*.whl
USER 1000:1000

FROM base AS cuda
RUN --mount=type=bind,from=wheels,source=/dist,target=/dist \
    pip install --no-cache-dir /dist/*.whl
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
