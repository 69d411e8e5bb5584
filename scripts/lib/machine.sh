# Sourced after topology.sh: a virtual machine inside a sandbox, in the place of Millrace's namespace. What it runs is this host's: the initramfs is
# made on the spot of Debian's kernel, busybox, and files of this host. QEMU emulates the processors, so that it runs anywhere, slowly.
#
#   sandbox      mr-north ─ bridge ─ tap ─┐                      ┌─ tap ─ bridge ─ mr-south
#                              (queues)   └ 01:00.0     02:00.0 ─┘
#                                           Millrace, on vfio-pci
#   127.0.0.1:9901 of the namespace `mr` is 10.0.2.15:9901 of the machine, so that who asks for its admin endpoint finds it there.
#
#   machine_kernel                 sets KERNEL and MODULES, or says what is missing and fails
#   machine_root MILLRACE [FILE…]  makes $SANDBOX_DIR/root: what the machine's file system begins with; FILEs go into its /etc
#   machine_taps QUEUES            makes the taps
#   machine_words QUEUES           prints QEMU's arguments, one a line; MACHINE_BOOT is what the kernel is told beside the usual:
#                                  machine.devices=kernel leaves the devices to the kernel, and bridges them with net_tap's north and south;
#                                  machine.devices=uio gives them to uio_pci_generic. MACHINE_NIC is another device (vmxnet3, e1000e)

# Where scripts/setup unpacks a kernel: it is not installed, so that nothing changes about how this host boots.
MACHINE_KERNELS=/var/lib/millrace-tests/kernel
# Virtio, VFIO; flower, multiq and skbedit for net_tap's rules.
MACHINE_MODULES='virtio_pci virtio_net vfio-pci vfio_iommu_type1 uio_pci_generic tun veth bridge sch_multiq sch_ingress act_skbedit act_gact act_mirred cls_flower pktgen'
MACHINE_PLUGINS='bus_pci bus_vdev mempool_ring net_virtio net_tap net_vmxnet3 net_e1000'
# In /tools, because busybox prefers what it has itself.
MACHINE_TOOLS='ip tc'

machine_kernel() {
    KERNEL=$(compgen -G "$MACHINE_KERNELS/boot/vmlinuz-*" | sort -V | tail -1)
    if [[ -z $KERNEL ]]; then
        echo "there is no kernel in $MACHINE_KERNELS: scripts/setup unpacks one" >&2
        return 1
    fi
    MODULES=$MACHINE_KERNELS/lib/modules/${KERNEL##*/vmlinuz-}
}

machine_root() {
    local root=$SANDBOX_DIR/root file name release=${MODULES##*/}
    local folders=("$root"/{bin,tools,dev,etc,proc,sys,run,tmp,modules,var/log,var/lib})
    mkdir -p "${folders[@]}" || return
    cp "$(command -v busybox)" "$root/bin/busybox" || return
    ln -s busybox "$root/bin/sh" || return
    cp "$ROOT/scripts/lib/machine-init" "$root/init" && chmod 755 "$root/init" || return
    # Without what only a debugger reads.
    strip --strip-debug -o "$root/bin/millrace" "$1" || return
    shift
    for file in "$@"; do cp "$file" "$root/etc/" || return; done
    # In the order in which they can be loaded.
    for name in $MACHINE_MODULES; do
        modprobe -d "$MACHINE_KERNELS" -S "$release" --show-depends "$name" | sed -n 's/^insmod //p'
    done | awk '!seen[$1]++ { print $1 }' >"$SANDBOX_DIR/modules" || return
    while read -r file; do
        cp "$file" "$root/modules/" && basename "$file" >>"$root/modules/order" || return
    done <"$SANDBOX_DIR/modules"
    local plugins programs=("$root/bin/millrace" "$root/bin/busybox")
    plugins=$(dirname "$(compgen -G '/usr/lib/*/dpdk/pmds-*/librte_net_virtio.so' | tail -1)") || return
    for name in $MACHINE_PLUGINS; do
        machine_file "$plugins/librte_$name.so" && programs+=("$plugins/librte_$name.so") || return
    done
    for name in $MACHINE_TOOLS; do
        file=$(command -v "$name") || continue
        cp -L "$file" "$root/tools/" && programs+=("$file") || return
    done
    # The libraries of all of them, at the places where the loader looks for them here. Of a static program ldd complains.
    for file in "${programs[@]}"; do ldd "$file" 2>/dev/null; done | grep -oE '/[^ ]+\.so[^ ]*' | sort -u >"$SANDBOX_DIR/libraries"
    while read -r file; do machine_file "${file%:}" || return; done <"$SANDBOX_DIR/libraries"
    printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$SANDBOX_DIR/initramfs" || return
    rm -rf "$root"
}

# Copies a file of this host to its place in the machine. Names of one file stay names of one file: EAL may not load a library twice.
machine_file() {
    local real
    real=$(readlink -f "$1") || return
    mkdir -p "$root$(dirname "$1")" "$root$(dirname "$real")" && cp --no-clobber "$real" "$root$real" || return
    [[ -e $root$1 ]] || ln -s "$real" "$root$1"
}

machine_taps() {
    local side
    for side in north south; do
        ip -n "$NS_MR" -batch - <<TAP || return
tuntap add tap-$side mode tap $(((${1} > 1)) && echo multi_queue)
link set tap-$side mtu 1500 up
link add br-$side type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set mr-$side master br-$side
link set tap-$side master br-$side
link set br-$side up
TAP
    done
    ip netns exec "$NS_MR" nft delete table netdev bypass
    ip netns exec "$NS_MR" sh -c 'f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 0 >$f'
}

machine_words() {
    local queues=$1 side slot=1 nic=virtio-net-pci,disable-legacy=on,mq=on,vectors=$((2 * $1 + 2)),rss=on,hash=on
    printf '%s\n' -nodefaults -no-user-config -display none -no-reboot \
        -machine q35,accel=tcg,kernel-irqchip=split -cpu max -smp 4 -m 1024 \
        -kernel "$KERNEL" -initrd "$SANDBOX_DIR/initramfs" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable ${MACHINE_BOOT:-}" \
        -serial stdio \
        -device "${MACHINE_IOMMU:-intel-iommu,intremap=on}" \
        -netdev "user,id=own,hostfwd=tcp:127.0.0.1:9901-10.0.2.15:9901" -device virtio-net-pci,netdev=own,mac=02:09:00:01:00:01
    local platform=,iommu_platform=on
    for side in north south; do
        printf '%s\n' -netdev "tap,id=$side,ifname=tap-$side,script=no,downscript=no,vhost=off,queues=$queues" \
            -device "pcie-root-port,id=port-$side,chassis=$slot,slot=$slot" \
            -device "${MACHINE_NIC:-$nic$platform},netdev=$side,bus=port-$side,mac=02:09:0$slot:01:00:fa"
        slot=$((slot + 1))
        # The second one goes past the IOMMU, as most virtio devices do.
        platform=
    done
}
