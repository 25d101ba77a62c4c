# SkinCLIP-VL's page in a container. Research use only - not a medical device.
#
#   docker build -t skinclip .
#   docker run --rm -e SKINCLIP_OPEN=yes -p 127.0.0.1:7860:7860 --read-only --tmpfs /tmp --cap-drop ALL \
#     --security-opt no-new-privileges -v skinclip:/data skinclip
#
# It writes to /data (caches and downloaded weights) and /tmp (photos on their way, in memory) and nowhere else. A folder
# of the host in the place of the volume must belong to user 10001. A big preset on a GPU, a reader study:
#
#   ... --gpus all -e SKINCLIP_PRESET=qwen-3b -e SKINCLIP_FETCH=yes -e SKINCLIP_PULL=OWNER/NAME@COMMIT skinclip
#   ... -v "$PWD/studies:/studies" skinclip python app.py --study /studies/trust-study
#
# `--build-arg SCREEN=yes` adds Ray, for `skinclip screen` on several machines (docs/screening.md).
#
# The installed torch runs on CPU and on GPU. Without CUDA the image is much smaller: give
# `docker build --build-arg TORCH_INDEX=URL` an index of CPU builds of torch, as `make run TORCH_INDEX=URL` takes it.

# tag and digest name the same image: renew both together
FROM python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3 AS base

FROM base AS build
ARG TORCH_INDEX=""
ARG SCREEN=""
COPY requirements.txt pyproject.toml /build/
RUN python -m venv /opt/venv \
 && sed -nE 's/^(torch(vision)?==[^ ]+).*/\1/p' /build/requirements.txt >/build/torch.txt \
 && if [ -n "$TORCH_INDEX" ]; then /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps \
      --index-url "$TORCH_INDEX" --requirement /build/torch.txt; fi \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --requirement /build/requirements.txt \
 && if [ -n "$SCREEN" ]; then /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      "$(sed -nE 's/^screen = \["([^"]+)"\].*/\1/p' /build/pyproject.toml)"; fi
WORKDIR /app
COPY LICENSE app.py ./
COPY assets ./assets
COPY skinclip ./skinclip
# nothing can be compiled to where the program lies once it runs
RUN /opt/venv/bin/python -m compileall -q app.py skinclip

FROM base
RUN groupadd --gid 10001 skinclip \
 && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin skinclip \
 && install --directory --owner 10001 --group 10001 --mode 700 /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SKINCLIP_PRESET=mini \
    SKINCLIP_HOST=0.0.0.0 \
    SKINCLIP_PORT=7860 \
    SKINCLIP_HOME=/data \
    GRADIO_TEMP_DIR=/tmp/uploads
WORKDIR /app
VOLUME ["/data"]
EXPOSE 7860
USER 10001:10001
# a big preset may take minutes to load; its first start with SKINCLIP_FETCH=yes as long as 9 or 18 GB take to come: give
# `docker run --health-start-period` more then
HEALTHCHECK --start-period=15m --interval=30s --timeout=10s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f'http://127.0.0.1:{os.environ[\"SKINCLIP_PORT\"]}/healthz', timeout=8)"]
CMD ["python", "app.py"]
