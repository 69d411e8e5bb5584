# Sourced: a sandbox of network namespaces, with everything in it that Millrace needs for a real run.
#
#   client 10.9.1.2 ──── mr-north ┐         ┌ mr-south ──── lan (a bridge) ─┬─ b1 10.9.2.2
#          10.9.1.3        Millrace, in `mr`                               └─ b2 10.9.2.3
#
# Millrace owns 10.9.1.1 and 10.9.2.1; the kernel in `mr` has no address there, answers no ARP and forwards nothing.
# With LOSS=N, a bridge (`wan`) is between client and mr-north, and loses N % of the frames, at random, each way.
# Any number of sandboxes can exist at once: each has an id, which its namespaces carry as a prefix.
#
#   sandbox_up [OWNER]     makes one; it belongs to process OWNER (default: this one). Sets SANDBOX and the names below
#   sandbox_load ID        sets the names of one that exists
#   sandbox_spawn NS LOG COMMAND…   starts a process there, output to $SANDBOX_DIR/LOG; sets SPAWNED
#   sandbox_stop PID [SECONDS]      SIGTERM, then SIGKILL after so long (default 5)
#   sandbox_both_ends      gives one process the far ends of both wires
#   sandbox_down           ends what was spawned and removes everything
#   sandbox_sweep          does so for every sandbox whose owner is gone
#
# Nothing is ended that was not started here: a process is known by its id and its start time.

SANDBOXES=/run/millrace-sandboxes

sandbox_up() {
    local owner=${1:-$$} id
    mkdir -p -m 700 "$SANDBOXES"
    sandbox_sweep
    # The owner is written before the first namespace exists, so that whatever is left of a failed start gets swept.
    id=$(mktemp -d "$SANDBOXES/millrace-XXXXXX.new") || return
    printf '%s %s\n' "$owner" "$(process_start "$owner")" >"$id/owner"
    : >"$id/processes"
    mv "$id" "${id%.new}" || return
    sandbox_load "$(basename "${id%.new}")"
    # The data directory is on disk and not in /run, because bodies of a gigabyte pass through it.
    SANDBOX_DIR=$(mktemp -d "${TMPDIR:-/tmp}/$SANDBOX.XXXXXX") || return
    chmod 755 "$SANDBOX_DIR"
    ln -s "$SANDBOX_DIR" "$SANDBOXES/$SANDBOX/dir"
    sandbox_make_namespaces || {
        sandbox_down
        return 1
    }
}

sandbox_load() {
    SANDBOX=$1
    SANDBOX_DIR=$(readlink "$SANDBOXES/$SANDBOX/dir" || true)
    NS_CLIENT=$SANDBOX-client NS_MR=$SANDBOX-mr NS_LAN=$SANDBOX-lan NS_B1=$SANDBOX-b1 NS_B2=$SANDBOX-b2 NS_WAN=$SANDBOX-wan
    SANDBOX_NAMESPACES=("$NS_CLIENT" "$NS_MR" "$NS_LAN" "$NS_B1" "$NS_B2")
    NS_FAR=$SANDBOX-far
    if [[ -e /run/netns/$NS_FAR ]]; then SANDBOX_NAMESPACES+=("$NS_FAR"); fi
    if ((${LOSS:-0})) || [[ -e /run/netns/$NS_WAN ]]; then SANDBOX_NAMESPACES+=("$NS_WAN"); fi
}

sandbox_make_namespaces() {
    local ns
    for ns in "${SANDBOX_NAMESPACES[@]}"; do
        ip netns add "$ns" || return
        ip netns exec "$ns" sh -c '
            cd /proc/sys/net
            for f in ipv6/conf/all/disable_ipv6 ipv6/conf/default/disable_ipv6; do [ ! -e $f ] || echo 1 >$f; done
            echo 4096 >core/somaxconn
            echo "1024 65535" >ipv4/ip_local_port_range' || return
    done
    ip -batch - <<LINKS || return
$(sandbox_north_links)
link add south netns $NS_LAN mtu 1500 txqueuelen 2000 type veth peer name mr-south mtu 1500 txqueuelen 2000 netns $NS_MR
link add b1 netns $NS_LAN mtu 1500 txqueuelen 2000 type veth peer name eth0 mtu 1500 txqueuelen 2000 netns $NS_B1
link add b2 netns $NS_LAN mtu 1500 txqueuelen 2000 type veth peer name eth0 mtu 1500 txqueuelen 2000 netns $NS_B2
LINKS
    # Frames on these wires must be what they would be on real ones: whole checksums, no segments of 64 KiB.
    sandbox_offloads off || return
    # The bridge is a switch: no netfilter between its ports.
    ip netns exec "$NS_LAN" sh -c 'f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 0 >$f'
    ip -n "$NS_LAN" -batch - <<LAN || return
link add lan type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set south master lan up
link set b1 master lan up
link set b2 master lan up
link set lan up
LAN
    if ((${LOSS:-0})); then sandbox_lossy_bridge "$LOSS" || return; fi
    sandbox_host "$NS_CLIENT" 10.9.1.2 10.9.1.1 && sandbox_host "$NS_B1" 10.9.2.2 10.9.2.1 &&
        sandbox_host "$NS_B2" 10.9.2.3 10.9.2.1 && ip -n "$NS_CLIENT" address add 10.9.1.3/24 dev eth0 || return
    ip netns exec "$NS_MR" sh -c '
        echo 0 >/proc/sys/net/ipv4/ip_forward
        echo 8 >/proc/sys/net/ipv4/conf/all/arp_ignore' || return
    ip -n "$NS_MR" -batch - <<MR || return
link set lo up
link set mr-north arp off up
link set mr-south arp off up
MR
    sandbox_kernel_ingress off
}

# Whether the kernel in `mr` looks at what comes in, behind the packet socket that Millrace reads from. It has no address
# there and would look every frame up for nothing.
sandbox_kernel_ingress() {
    if [[ $1 == on ]]; then
        ip netns exec "$NS_MR" nft delete table netdev bypass
        return
    fi
    ip netns exec "$NS_MR" nft -f - <<NFT
table netdev bypass {
    chain north { type filter hook ingress device "mr-north" priority 0; policy drop; }
    chain south { type filter hook ingress device "mr-south" priority 0; policy drop; }
}
NFT
}

# Whether kernels hand each other segments of up to 64 KiB with checksums that nobody worked out (`on`), or frames (`off`).
sandbox_offloads() {
    local state=$1 end ns device
    local ends=("$NS_CLIENT eth0" "$NS_MR mr-north" "$NS_MR mr-south" "$NS_LAN south" "$NS_LAN b1" "$NS_LAN b2" "$NS_B1 eth0" "$NS_B2 eth0")
    [[ ! -e /run/netns/$NS_WAN ]] || ends+=("$NS_WAN client" "$NS_WAN gateway")
    for end in "${ends[@]}"; do
        read -r ns device <<<"$end"
        ip netns exec "$ns" ethtool -K "$device" tx "$state" rx "$state" sg "$state" tso "$state" gso "$state" gro "$state" >/dev/null 2>&1 || {
            printf 'ethtool: offloads of %s cannot be turned %s\n' "$device" "$state" >&2
            return 1
        }
    done
}

# The wire between client and proxy, for `ip -batch`.
sandbox_north_links() {
    local wire='mtu 1500 txqueuelen 2000'
    if [[ -e /run/netns/$NS_WAN ]]; then
        printf '%s\n' "link add eth0 netns $NS_CLIENT $wire type veth peer name client $wire netns $NS_WAN" \
            "link add gateway netns $NS_WAN $wire type veth peer name mr-north $wire netns $NS_MR"
    else
        printf '%s\n' "link add eth0 netns $NS_CLIENT $wire type veth peer name mr-north $wire netns $NS_MR"
    fi
}

# A bridge that loses frames as they come in, so that nobody who sent one hears of it.
sandbox_lossy_bridge() {
    ip -n "$NS_WAN" -batch - <<WAN || return
link add wan type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set client master wan up
link set gateway master wan up
link set wan up
WAN
    ip netns exec "$NS_WAN" nft -f - <<NFT
table netdev loss {
    chain from_client { type filter hook ingress device "client" priority 0; numgen random mod 100 < $1 counter drop; }
    chain from_gateway { type filter hook ingress device "gateway" priority 0; numgen random mod 100 < $1 counter drop; }
}
NFT
}

sandbox_host() {
    ip -n "$1" -batch - <<HOST
link set lo up
address add $2/24 dev eth0
link set eth0 up
route add default via $3
HOST
}

# Gives the client and the backends IPv6 addresses: those of IPv4 with fd00:9:1:: and fd00:9:2:: for 10.9.1. and 10.9.2. Millrace's are …::1.
sandbox_ipv6() {
    local host ns address router
    for host in "$NS_CLIENT fd00:9:1::2 fd00:9:1::1" "$NS_B1 fd00:9:2::2 fd00:9:2::1" "$NS_B2 fd00:9:2::3 fd00:9:2::1"; do
        read -r ns address router <<<"$host"
        ip netns exec "$ns" sh -c '
            cd /proc/sys/net/ipv6/conf
            echo 0 >default/accept_ra && echo 0 >eth0/accept_ra && echo 0 >lo/disable_ipv6 && echo 0 >eth0/disable_ipv6' || return
        ip -n "$ns" -batch - <<HOST || return
address add $address/64 dev eth0 nodad
route add default via $router
HOST
    done
}

# A namespace behind the client, which routes to it: 10.9.9.2 and fd00:9:9::2. The way there carries packets of MTU bytes; the way back,
# like the host itself, does not know that: sandbox_far MTU
sandbox_far() {
    ip netns add "$NS_FAR" || return
    ip -batch - <<LINK || return
link add far netns $NS_CLIENT mtu $1 type veth peer name eth0 mtu 1500 netns $NS_FAR
LINK
    ip netns exec "$NS_CLIENT" ethtool -K far tx off rx off sg off tso off gso off gro off >/dev/null || return
    ip netns exec "$NS_FAR" ethtool -K eth0 tx off rx off sg off tso off gso off gro off >/dev/null || return
    ip netns exec "$NS_CLIENT" sh -c '
        cd /proc/sys/net
        echo 1 >ipv4/ip_forward && echo 0 >ipv6/conf/far/disable_ipv6 && echo 1 >ipv6/conf/all/forwarding' || return
    ip -n "$NS_CLIENT" -batch - <<ROUTER || return
address add 10.9.9.1/24 dev far
address add fd00:9:9::1/64 dev far nodad
link set far up
ROUTER
    ip netns exec "$NS_FAR" sh -c 'cd /proc/sys/net/ipv6/conf; echo 0 >eth0/accept_ra && echo 0 >lo/disable_ipv6 && echo 0 >eth0/disable_ipv6' || return
    ip -n "$NS_FAR" -batch - <<HOST
link set lo up
address add 10.9.9.2/24 dev eth0
address add fd00:9:9::2/64 dev eth0 nodad
link set eth0 up
route add default via 10.9.9.1
route add default via fd00:9:9::1
HOST
}

# Gives the kernel in `mr` Millrace's addresses (`on`), for a proxy that uses sockets, or takes them away (`off`).
sandbox_kernel_addresses() {
    sandbox_kernel_ingress "$1" || return
    if [[ $1 == on ]]; then
        ip netns exec "$NS_MR" sh -c 'echo 0 >/proc/sys/net/ipv4/conf/all/arp_ignore' || return
        ip -n "$NS_MR" -batch - <<ON
link set mr-north arp on
link set mr-south arp on
address add 10.9.1.1/24 dev mr-north
address add 10.9.2.1/24 dev mr-south
ON
    else
        ip netns exec "$NS_MR" sh -c 'echo 8 >/proc/sys/net/ipv4/conf/all/arp_ignore' || return
        ip -n "$NS_MR" -batch - <<OFF || return
address flush dev mr-north
address flush dev mr-south
link set mr-north arp off
link set mr-south arp off
OFF
    fi
    # Millrace and the kernel use the same addresses but not the same moment: what peers remember is stale.
    ip -n "$NS_CLIENT" neighbour flush dev eth0
    ip -n "$NS_B1" neighbour flush dev eth0
    ip -n "$NS_B2" neighbour flush dev eth0
}

# Puts the far ends of both wires into the client's namespace, as `eth0` and `south`, where one process takes and gives all frames:
# clients and backends are played by it, and the kernel there looks at nothing.
sandbox_both_ends() {
    ip -n "$NS_CLIENT" address flush dev eth0
    ip -n "$NS_LAN" link set south nomaster netns "$NS_CLIENT" || return
    ip -n "$NS_CLIENT" -batch - <<ENDS || return
link set eth0 arp off
link set south arp off up
ENDS
    ip netns exec "$NS_CLIENT" nft -f - <<NFT
table netdev bypass {
    chain north { type filter hook ingress device "eth0" priority 0; policy drop; }
    chain south { type filter hook ingress device "south" priority 0; policy drop; }
}
NFT
}

sandbox_spawn() {
    local ns=$1 log=$SANDBOX_DIR/$2
    shift 2
    # A session of its own: Ctrl-C reaches this script alone, which then ends what it started in order.
    setsid ip netns exec "$ns" "$@" </dev/null >>"$log" 2>&1 &
    SPAWNED=$!
    sandbox_adopt "$SPAWNED"
}

# Notes a process that sandbox_down shall end.
sandbox_adopt() {
    printf '%s %s\n' "$1" "$(process_start "$1")" >>"$SANDBOXES/$SANDBOX/processes"
}

sandbox_stop() {
    local pid=$1 deadline=$((SECONDS + ${2:-5}))
    kill -TERM "$pid" 2>/dev/null || return 0
    while process_runs "$pid" && ((SECONDS < deadline)); do sleep 0.02; done
    if process_runs "$pid"; then
        # The whole session: a master that is killed leaves its workers.
        kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    fi
    wait "$pid" 2>/dev/null || true
}

# An nginx that answers with its name: nginx_backend NS NAME ADDRESS. CPU pins it when set.
nginx_backend() {
    local prefix=$SANDBOX_DIR/nginx-$2
    mkdir -p "$prefix/temp" "$prefix/html"
    head -c 1024 /dev/zero | tr '\0' x >"$prefix/html/1k"
    head -c 65536 /dev/zero | tr '\0' x >"$prefix/html/64k"
    head -c 1048576 /dev/zero | tr '\0' x >"$prefix/html/1m"
    sed "s/@NAME@/$2/g; s/@ADDRESS@/$3/g; s/@USER@/$(id -un)/g; s/@SIXTY@/$(printf '%060d' 0)/" "$ROOT/scripts/lib/nginx-backend.conf" >"$prefix/nginx.conf"
    sandbox_spawn "$1" "nginx-$2.log" ${CPU:+taskset -c "$CPU"} nginx -p "$prefix" -e stderr -c nginx.conf
}

sandbox_down() {
    [[ -n ${SANDBOX:-} && -d $SANDBOXES/$SANDBOX ]] || return 0
    local pid start ns pids=()
    while read -r pid start; do
        [[ -n $start && $(process_start "$pid") == "$start" ]] && pids+=("$pid")
    done < <(tac "$SANDBOXES/$SANDBOX/processes")
    # All are asked first, so that waiting for one does not add to waiting for the next.
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do sandbox_stop "$pid" 2; done
    for ns in "${SANDBOX_NAMESPACES[@]}"; do
        [[ ! -e /run/netns/$ns ]] || ip netns delete "$ns"
    done
    [[ -z $SANDBOX_DIR ]] || rm -rf "$SANDBOX_DIR"
    rm -rf "${SANDBOXES:?}/$SANDBOX"
    SANDBOX=''
}

sandbox_sweep() {
    local path owner start
    for path in "$SANDBOXES"/millrace-*; do
        [[ -f $path/owner && $path != *.new ]] || continue
        read -r owner start <"$path/owner" || continue
        [[ -z $start || $(process_start "$owner") != "$start" ]] || continue
        (
            sandbox_load "$(basename "$path")"
            sandbox_down
        )
    done
}

# When process $1 started, in clock ticks since boot; empty when there is none. With its id, it names a process for good.
process_start() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    # The name, in parentheses, may hold anything; what follows is regular.
    set -- ${stat##*) }
    printf '%s' "${20}"
}

process_runs() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    [[ ${stat##*) } != Z* ]]
}
