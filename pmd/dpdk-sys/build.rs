//! Finds DPDK by pkg-config, writes the bindings, and compiles what DPDK has as inline functions.

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What the pmd crate calls. Nothing else is bound.
const FUNCTIONS: &[&str] = &[
    "rte_eal_alarm_set",
    "rte_eal_cleanup",
    "rte_eal_init",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_callback_register",
    "rte_eth_dev_callback_unregister",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_rss_hash_conf_get",
    "rte_eth_dev_rss_reta_query",
    "rte_eth_dev_rx_intr_ctl_q_get_fd",
    "rte_eth_dev_rx_intr_disable",
    "rte_eth_dev_rx_intr_enable",
    "rte_eth_dev_rx_offload_name",
    "rte_eth_dev_set_mtu",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_tx_offload_name",
    "rte_eth_rx_burst",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_tx_burst",
    "rte_eth_tx_prepare",
    "rte_eth_tx_queue_setup",
    "rte_eth_xstats_get",
    "rte_eth_xstats_get_names",
    "rte_lcore_id",
    "rte_mempool_avail_count",
    "rte_mempool_free",
    "rte_mempool_in_use_count",
    "rte_pktmbuf_alloc",
    "rte_pktmbuf_free",
    "rte_pktmbuf_free_bulk",
    "rte_pktmbuf_linearize",
    "rte_pktmbuf_pool_create",
    "rte_strerror",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_version",
    "shim_.*",
];

const TYPES: &[&str] = &[
    "rte_eth_conf",
    "rte_eth_dev_info",
    "rte_eth_stats",
    "rte_eth_xstat",
    "rte_eth_xstat_name",
    "rte_mempool",
    "shim_.*",
];

const CONSTANTS: &[&str] = &["SHIM_.*", "RTE_ETH_EVENT_INTR_LSC", "RTE_ETH_MQ_RX_RSS", "RTE_ETH_MQ_RX_NONE"];

/// Packed protocol headers that bindgen cannot lay out, structs that change with the release, and those that are only pointed at.
const OPAQUE: &str = "rte_arp_.*|rte_ether_.*|rte_l2tpv2.*|rte_gtp_psc.*|rte_mbuf.*|rte_mempool|rte_eth_link|rte_eth_vmdq.*|rte_eth_dcb.*";

/// The libraries that have those functions. With --as-needed the linker keeps only what is used; the PMDs
/// are no link-time dependency: EAL loads them from DPDK's plug-in directory when it starts.
const LIBRARIES: &[&str] = &["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"];

/// Split off from rte_eal in later releases.
const LATER_LIBRARIES: &[&str] = &["rte_log"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=wrapper.h");
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "LIBCLANG_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }

    let version = pkg_config(&["--modversion"]).join("");
    if version.split('.').next().and_then(|year| year.parse::<u32>().ok()).is_none_or(|year| year < 22) {
        fail(format!("DPDK {version} is installed, and Millrace needs 22.11 or newer"));
    }
    // A new DPDK comes with a new libdpdk.pc: that, and only that, makes the bindings anew.
    if let Some(folder) = pkg_config(&["--variable=pcfiledir"]).first() {
        println!("cargo:rerun-if-changed={folder}/libdpdk.pc");
    }
    // With them come "-include rte_config.h" and the -march that DPDK's inline functions must be compiled for.
    let cflags = pkg_config(&["--cflags"]);
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_else(|| fail("OUT_DIR is not set: run this by cargo")));

    generate(&cflags, &out);
    compile(&cflags, &out);
    link();
}

fn generate(cflags: &[String], out: &Path) {
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(cflags)
        .opaque_type(OPAQUE)
        .wrap_static_fns(true)
        .wrap_static_fns_path(out.join("inline"))
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .generate_comments(false)
        .layout_tests(false)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .wrap_unsafe_ops(true);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    // Where libclang cannot be loaded, bindgen panics.
    std::panic::set_hook(Box::new(|_| {}));
    let generated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.generate()));
    let _ = std::panic::take_hook();
    let bindings = match generated {
        Ok(Ok(bindings)) => bindings,
        Ok(Err(error)) => fail(format!("DPDK's headers could not be read: {error}")),
        Err(cause) => {
            let cause = cause.downcast_ref::<String>().map_or("", String::as_str);
            fail(format!("bindgen needs libclang: apt-get install clang libclang-dev\n{cause}"))
        }
    };
    if let Err(error) = bindings.write_to_file(out.join("bindings.rs")) {
        fail(format!("the bindings could not be written: {error}"));
    }
}

fn compile(cflags: &[String], out: &Path) {
    let mut build = cc::Build::new();
    build.file(out.join("inline.c")).include(".").warnings(false).opt_level(3);
    for flag in cflags {
        build.flag(flag);
    }
    if let Err(error) = build.try_compile("dpdk_inline") {
        fail(format!("DPDK's inline functions could not be compiled (apt-get install gcc libc6-dev): {error}"));
    }
}

fn link() {
    for path in pkg_config(&["--libs-only-L", "--keep-system-libs"]) {
        if let Some(path) = path.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={path}");
        }
    }
    let installed = pkg_config(&["--libs-only-l"]);
    for library in LIBRARIES {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    for library in LATER_LIBRARIES {
        if installed.contains(&format!("-l{library}")) {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
    }
}

fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let tool = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let output = match Command::new(&tool).args(arguments).arg("libdpdk").output() {
        Ok(output) => output,
        Err(error) => fail(format!("{tool} does not run ({error}): apt-get install pkg-config libdpdk-dev")),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        fail(format!("DPDK's development files are missing: apt-get install libdpdk-dev\n{}", said.trim()));
    }
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

/// One message, and no back-trace above it.
fn fail(message: impl Display) -> ! {
    for line in message.to_string().lines() {
        println!("cargo::error={line}");
    }
    exit(1);
}
