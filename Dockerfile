# One image for every process of the project: `python3 -m PACKAGE COMMAND`, by default the registry.
# BASE is any glibc image with python3 >= 3.11 and its venv module, such as Debian's or the official one.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
RUN python3 -m venv /build
COPY requirements.lock /build/
# Everything lands in one folder that has no pip and no scripts, only what the processes import.
RUN /build/bin/pip install --no-cache-dir --disable-pip-version-check --no-compile \
      --only-binary :all: --require-hashes --target /opt/app -r /build/requirements.lock \
 && rm -rf /opt/app/bin
COPY oci /opt/app/oci
COPY storage /opt/app/storage
COPY serving /opt/app/serving
COPY registry /opt/app/registry
# Compiled here, since nothing may be written when it runs. Hash-based: times of files do not matter.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/app \
 && chmod -R a+rX /opt/app

FROM ${BASE}
LABEL org.opencontainers.image.title="ACP Image Registry" \
      org.opencontainers.image.description="The integrated image registry of a Kubernetes platform" \
      org.opencontainers.image.licenses="Apache-2.0"
# Group 0 may write too, for platforms that choose the user id themselves.
# The configuration is meant to be replaced by one that is mounted; variables go before either.
RUN mkdir /registry && chown 1001:0 /registry && chmod 0770 /registry \
 && printf '%s\n' 'version: 0.1' 'http: {addr: ":5000"}' \
      'storage: {filesystem: {rootdirectory: /registry}}' > /config.yml
COPY --from=build /opt/app /opt/app
# The folder /registry would shadow the package `registry` if the working folder were on the path.
ENV PYTHONPATH=/opt/app PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    REGISTRY_CONFIGURATION_PATH=/config.yml
WORKDIR /
USER 1001:0
EXPOSE 5000
VOLUME ["/registry"]
ENTRYPOINT ["python3", "-m"]
CMD ["registry", "serve"]
