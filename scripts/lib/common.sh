# Sourced by every script here: where the repository is, and how to talk to whoever runs it.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"
# Under sudo, Rust is where the user has it.
if [[ -n ${SUDO_USER:-} ]] && ! command -v cargo >/dev/null; then
    user_home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
    export PATH="$PATH:$user_home/.cargo/bin" RUSTUP_HOME="${RUSTUP_HOME:-$user_home/.rustup}"
fi

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' yellow='' plain=''
fi

section() { printf '\n%s── %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s\n' "$*"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }
warn() { printf '%s%s%s\n' "$yellow" "$*" "$plain" >&2; }
fail() {
    printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}

# Ends the script with a sentence that can be acted on, unless it runs as root.
need_root() {
    ((EUID == 0)) || fail "network namespaces need root. Run: sudo $0${1:+ $1}"
}

# The CPU for a polling core: the last one that this process may use, so that CPU 0 stays free for the rest.
polling_cpu() {
    taskset -pc $$ | sed 's/.*[:, -]//'
}

# All CPUs that this process may use, and all but the polling one (or all, when there is but one).
all_cpus() {
    taskset -pc $$ | sed 's/.*: //'
}
other_cpus() {
    local polling cpu rest=() range
    polling=$(polling_cpu)
    for range in $(all_cpus | tr , ' '); do
        for ((cpu = ${range%-*}; cpu <= ${range#*-}; cpu++)); do
            ((cpu == polling)) || rest+=("$cpu")
        done
    done
    ((${#rest[@]})) || rest=("$polling")
    (IFS=,; printf '%s\n' "${rest[*]}")
}

# The name of an llvm-profdata, the newest there is; nothing where there is none.
llvm_profdata() {
    local host name
    host=$(rustc -vV | sed -n 's/^host: //p')
    for name in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" llvm-profdata-{30..19} llvm-profdata; do
        if command -v "$name" >/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
}

# Where cargo puts what it builds.
target_dir() {
    printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}"
}
