# The model server as an image: `make image` builds it. BASE names another base of the same Debian release.
ARG BASE=debian:bookworm-slim


FROM ${BASE} AS build

RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
RUN python3 -m venv /ie-serving-py/venv
COPY requirements/runtime.lock requirements/compile.lock requirements/
RUN for lock in runtime compile; do \
        /ie-serving-py/venv/bin/pip install --no-cache-dir --no-compile --no-deps --require-hashes \
            -r "requirements/$lock.lock" || exit 1; \
    done

COPY . .
# The hot modules are compiled; what compiles them is removed again with everything else that the server never reads.
RUN IE_SERVING_COMPILE=1 \
        /ie-serving-py/venv/bin/pip install --no-cache-dir --no-compile --no-deps --no-build-isolation . \
    && site_packages=$(/ie-serving-py/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && python3 deploy/prune.py "$site_packages" \
    # Bytecode now: the server runs on a file system that it cannot write to. Unchecked: the sources never change.
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site_packages" \
    && install -m 755 deploy/start_server.sh /ie-serving-py/start_server.sh


FROM ${BASE}

# The interpreter with its standard library, without pip, headers and the rest of python3.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-minimal libpython3-stdlib \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
    && groupadd --gid 5000 ie_serving \
    && useradd --uid 5000 --gid 5000 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ie_serving \
    && install -d -m 1777 /run/ie_serving

COPY --from=build /ie-serving-py /ie-serving-py

# The one place that is written to, so that --read-only works. Every user may, as with a tmpfs mounted there; the
# server makes a directory of its own in it, for its sockets and state.
VOLUME /run/ie_serving
ENV PATH=/ie-serving-py/venv/bin:$PATH \
    IE_SERVING_RUN_DIR=/run/ie_serving/server \
    TMPDIR=/run/ie_serving \
    PYTHONDONTWRITEBYTECODE=1
USER 5000:5000
WORKDIR /ie-serving-py

# gRPC and REST: the defaults of this project, and the numbers that the documents use.
EXPOSE 9000 8000 9001 8001

HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["ie_serving", "status", "--check", "--any"]

CMD ["/ie-serving-py/start_server.sh", "ie_serving", "--help"]
