# Sourced: a Python with gRPC, for the tests of health checks.

GRPC_VERSION=1.85.1

# Sets GRPC_PYTHON to a Python that has grpcio and grpcio-health-checking: the given one, or one in a virtual environment that is made once, from
# PyPI. Empty where there is none, with the reason on stderr.
find_grpc() {
    [[ -z ${GRPC_PYTHON:-} ]] || return 0
    local place=${XDG_CACHE_HOME:-$HOME/.cache}/millrace/grpc-$GRPC_VERSION log
    if [[ ! -e $place/ready ]]; then
        log=$(mktemp)
        rm -rf "$place"
        # What pip makes has the folder's name in it, so it is made where it stays.
        if python3 -m venv "$place" >"$log" 2>&1 &&
            "$place/bin/python" -m pip install --only-binary :all: "grpcio==$GRPC_VERSION" "grpcio-health-checking==$GRPC_VERSION" >>"$log" 2>&1; then
            touch "$place/ready"
        else
            tail -5 "$log" >&2
        fi
        rm -f "$log"
    fi
    GRPC_PYTHON=''
    [[ ! -e $place/ready ]] || GRPC_PYTHON=$place/bin/python
}
