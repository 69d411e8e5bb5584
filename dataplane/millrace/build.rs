//! Lets DPDK's drivers find the functions of `pmd::eal::interrupts`, which stand between them and EAL.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["callback_register", "callback_unregister", "callback_unregister_pending", "instance_free"] {
        println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol=rte_intr_{name}");
    }
}
