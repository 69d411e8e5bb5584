#!/usr/bin/env bash
# Sends UDP packets to Millrace as fast as the kernel can (pktgen), to see what a polling core takes and what it counts.
#
# Usage: pktgen.sh [-i DEVICE] [-d ADDRESS] [-n PACKETS] [-s BYTES]
# Default: 10,000,000 packets of 60 bytes to 10.9.1.1. Needs root and the kernel module pktgen; sends nothing but to ADDRESS.
set -euo pipefail

device='' address=10.9.1.1 packets=10000000 size=60
while getopts 'i:d:n:s:' option; do
    case $option in
    i) device=$OPTARG ;;
    d) address=$OPTARG ;;
    n) packets=$OPTARG ;;
    s) size=$OPTARG ;;
    *) sed -n '2,6p' "$0" >&2 && exit 2 ;;
    esac
done
((EUID == 0)) || { echo "needs root" >&2; exit 1; }
modprobe pktgen || { echo "this kernel has no pktgen" >&2; exit 1; }

route=$(ip -4 route get "$address")
[[ $route != *' via '* ]] || { echo "$address is not on a network of this machine: $route" >&2; exit 1; }
[[ -n $device ]] || device=$(sed -n 's/.* dev \([^ ]*\).*/\1/p' <<<"$route")
source_address=$(sed -n 's/.* src \([^ ]*\).*/\1/p' <<<"$route")
# Whoever does not answer ARP gets no packets.
(exec 3<>"/dev/tcp/$address/80") 2>/dev/null || true
mac=$(ip neighbour show to "$address" dev "$device" | sed -n 's/.* lladdr \([^ ]*\).*/\1/p')
[[ -n $mac ]] || { echo "$address does not answer ARP on $device" >&2; exit 1; }

pktgen=/proc/net/pktgen
put() { echo "$2" >"$pktgen/$1"; }
trap 'put pgctrl stop 2>/dev/null || true; put kpktgend_0 rem_device_all 2>/dev/null || true' EXIT
put kpktgend_0 rem_device_all
put kpktgend_0 "add_device $device"
put "$device" "count $packets"
put "$device" "pkt_size $size"
put "$device" "delay 0"
put "$device" "burst 32" 2>/dev/null || true
put "$device" "dst_mac $mac"
put "$device" "dst $address"
put "$device" "src_min $source_address"
put "$device" "src_max $source_address"
put "$device" "udp_dst_min 9"
put "$device" "udp_dst_max 9"
echo "sending $packets packets of $size bytes to $address ($mac) from $device …"
put pgctrl start
grep -A2 '^Result' "$pktgen/$device"
echo "What Millrace made of them: curl http://127.0.0.1:9901/metrics there (millrace_port_rx_packets_total, millrace_packets_dropped_total)."
