#!/usr/bin/env bash
# The machines of the Vagrantfile under plain QEMU, without Vagrant: Debian's cloud image, two networks that exist only
# between the two processes, this checkout shared read-only.
#
# Usage: qemu.sh IMAGE [DIRECTORY]    IMAGE: debian-12-generic-amd64.qcow2 from cloud.debian.org
# Needs qemu-system-x86, qemu-utils and genisoimage; /dev/kvm where there is one. Ctrl-C ends both machines.
# Log in: ssh -p 2201 debian@127.0.0.1 (millrace), -p 2202 (generator); the password is: millrace
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
image=${1:?usage: qemu.sh IMAGE [DIRECTORY]}
work=${2:-$(mktemp -d)}
image=$(realpath "$image")
mkdir -p "$work"
for tool in qemu-system-x86_64 qemu-img genisoimage; do
    command -v "$tool" >/dev/null || { echo "missing: $tool (apt-get install qemu-system-x86 qemu-utils genisoimage)" >&2; exit 1; }
done
accelerator=tcg cpu=max
[[ ! -w /dev/kvm ]] || { accelerator=kvm cpu=host; }

seed() { # seed NAME SCRIPT NETWORK
    mkdir -p "$work/$1"
    printf 'instance-id: %s\nlocal-hostname: %s\n' "$1" "$1" >"$work/$1/meta-data"
    printf '%s\n' "$3" >"$work/$1/network-config"
    cat >"$work/$1/user-data" <<DATA
#cloud-config
password: millrace
chpasswd: { expire: false }
ssh_pwauth: true
mounts: [[millrace, /millrace, 9p, "trans=virtio,version=9p2000.L,ro", "0", "0"]]
runcmd: [[bash, -c, "HOME=/root bash /millrace/vagrant/$2 2>&1 | tee /var/log/millrace-provision.log >/dev/console"]]
DATA
    (cd "$work/$1" && genisoimage -quiet -output "../$1.iso" -volid cidata -joliet -rock user-data meta-data network-config)
    [[ -e $work/$1.qcow2 ]] || qemu-img create -q -f qcow2 -F qcow2 -b "$image" "$work/$1.qcow2" 20G
}

own='  own: { match: { macaddress: "52:54:00:00:00:0%s" }, dhcp4: true }'
seed millrace provision-millrace.sh "version: 2
ethernets:
$(printf "$own" 1)"
seed generator provision-generator.sh "version: 2
ethernets:
$(printf "$own" 2)
  north: { match: { macaddress: \"02:09:01:01:00:02\" }, addresses: [10.9.1.2/24] }
  south: { match: { macaddress: \"02:09:02:01:00:02\" }, addresses: [10.9.2.2/24] }"

pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait' EXIT
trap 'exit 130' INT TERM

machine() { # machine NAME NUMBER MEMORY CPUS SOCKET-ROLE LAST-BYTE
    local name=$1 number=$2 memory=$3 cpus=$4 role=$5 byte=$6 port=23010
    local words=(-name "$name" -machine "q35,accel=$accelerator,kernel-irqchip=split" -cpu "$cpu" -m "$memory" -smp "$cpus" -display none
        -serial "file:$work/$name.log"
        -drive "file=$work/$name.qcow2,if=virtio" -drive "file=$work/$name.iso,media=cdrom,readonly=on"
        -virtfs "local,path=$here/..,mount_tag=millrace,security_model=none,readonly=on"
        -netdev "user,id=own,hostfwd=tcp:127.0.0.1:220$number-:22"
        -device "virtio-net-pci,netdev=own,mac=52:54:00:00:00:0$number")
    # Debian's kernel turns an IOMMU on that it finds.
    words+=(-device intel-iommu,intremap=on)
    local network
    for network in north south; do
        [[ $network == north ]] && local net=01 || local net=02
        words+=(-netdev "socket,id=$network,$role=127.0.0.1:$port"
            -device "virtio-net-pci,netdev=$network,mac=02:09:$net:01:00:$byte")
        port=$((port + 1))
    done
    qemu-system-x86_64 "${words[@]}" &
    pids+=($!)
}
machine millrace 1 6144 4 listen fa
sleep 2
machine generator 2 2048 2 connect 02
echo "Both start; what they say: $work/millrace.log, $work/generator.log. Ctrl-C ends them."
wait
