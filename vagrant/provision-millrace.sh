#!/usr/bin/env bash
# Prepares a throw-away machine for Millrace on real devices: hugepages, VFIO, Rust, a release build, a configuration.
# Runs as root inside that machine (Vagrant or qemu.sh), never on a host that is used for anything else.
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends curl ca-certificates build-essential dpdk
command -v cargo >/dev/null || [[ -x $HOME/.cargo/bin/cargo ]] ||
    curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
export PATH=$PATH:$HOME/.cargo/bin
/millrace/scripts/setup
CARGO_TARGET_DIR=/var/lib/millrace-target cargo build --release --locked --manifest-path /millrace/Cargo.toml -p millrace
install -m 755 /var/lib/millrace-target/release/millrace /usr/local/bin/millrace

# 1 GiB of hugepages, now and at every start.
echo 'vm.nr_hugepages = 512' >/etc/sysctl.d/50-millrace.conf
sysctl -q --system

# The devices by their MAC addresses, bound to VFIO; without an IOMMU, as in many virtual machines, to UIO: Debian's kernels are built without VFIO's no-IOMMU mode.
driver=vfio-pci
compgen -G '/sys/kernel/iommu_groups/*' >/dev/null || driver=uio_pci_generic
modprobe "$driver"
pci_of() {
    local device
    for device in /sys/class/net/*; do
        [[ $(<"$device/address") == "$1" ]] || continue
        # A virtio device stands one level below its PCI device.
        readlink -f "$device/device" | grep -oE '[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]' | tail -1
        return
    done
}
for name in north south; do
    [[ $name == north ]] && mac=02:09:01:01:00:fa || mac=02:09:02:01:00:fa
    address=$(pci_of "$mac")
    if [[ -n $address ]]; then
        dpdk-devbind.py --force --bind="$driver" "$address"
        mkdir -p /etc/millrace && echo "$address" >"/etc/millrace/$name.pci"
    fi
done
[[ -s /etc/millrace/north.pci && -s /etc/millrace/south.pci ]] || { echo "the two ports were not found" >&2; exit 1; }

sed -e "s/@CPU@/1/" -e "s/hugepages: off/hugepages: required/" \
    -e "s/\"net_af_packet0,iface=mr-north\"/\"$(</etc/millrace/north.pci)\"/" \
    -e "s/\"net_af_packet1,iface=mr-south\"/\"$(</etc/millrace/south.pci)\"/" \
    -e "s/, { address: 10.9.2.3, weight: 2 }//" \
    /millrace/scripts/lib/hello.yaml >/etc/millrace/millrace.yaml
millrace validate -f /etc/millrace/millrace.yaml
millrace check -f /etc/millrace/millrace.yaml || true
echo "Ready. Start it with: sudo millrace run -f /etc/millrace/millrace.yaml"
