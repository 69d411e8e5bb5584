//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

/// A userspace kernel-bypass gateway: DPDK, a TCP stack of its own, HTTP routing by the Kubernetes Gateway API.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit codes: 0 done; 1 failed; 2 the command line or the configuration was refused.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve until SIGTERM or SIGINT; a second signal stops at once. Files that change are taken while it runs; SIGHUP has them read again.
    Run {
        #[command(flatten)]
        files: Files,
        /// Where the last good configuration is kept, for a restart with bad files.
        #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/millrace", env = "MILLRACE_STATE")]
        state: PathBuf,
        /// What is logged to standard error.
        #[arg(long, value_enum, default_value_t = LogLevel::Info, env = "MILLRACE_LOG")]
        log: LogLevel,
    },
    /// Say everything that is wrong with a configuration, or how it would be attached.
    Validate {
        #[command(flatten)]
        files: Files,
        /// How to say it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Say whether this host is ready: privileges, DPDK, hugepages, CPUs, NUMA, IOMMU, and the devices of a configuration.
    Check {
        /// A configuration whose cores and devices are looked at: a file, a directory, or - for standard input.
        #[arg(short = 'f', long = "file", value_name = "PATH", num_args = 1..)]
        files: Vec<PathBuf>,
    },
    /// Ask a running Millrace how it is.
    Status {
        /// Its admin address.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9901", env = "MILLRACE_ADMIN")]
        admin: SocketAddr,
        /// How to say it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// List what a running Millrace has.
    Get {
        /// What to list.
        #[arg(value_enum)]
        what: Listing,
        /// Its admin address.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9901", env = "MILLRACE_ADMIN")]
        admin: SocketAddr,
        /// How to say it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Connections listed at most [default: 1000].
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
    },
    /// Say which rule a request would meet, why, and where it would go.
    Explain {
        #[command(flatten)]
        request: crate::explain::Request,
        #[command(flatten)]
        ask: Ask,
    },
    /// Have a running Millrace read its files again, and say what came of it.
    Reload {
        #[command(flatten)]
        ask: Ask,
    },
    /// Have a running Millrace accept nothing new, finish what runs, and end.
    Drain {
        /// Its admin address.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9901", env = "MILLRACE_ADMIN")]
        admin: SocketAddr,
    },
    /// Send every frame back to where it came from, until a signal: the far end of a benchmark by RFC 2544, or a look at a new wire. Needs no configuration.
    Reflect(Mirror),
    /// Change something of a running Millrace, until it is taken back or gone from the configuration, also over restarts. Routes stay as they are.
    Set {
        /// What to change.
        #[command(subcommand)]
        what: Settable,
    },
    /// Say which Millrace and which DPDK this is.
    Version,
}

/// What is to be reflected, and by whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Mirror {
    /// A device, as in spec.ports[].device. Each reflects its own frames.
    #[arg(long = "device", value_name = "DEVICE", required = true)]
    pub(crate) devices: Vec<String>,
    /// CPUs, one polling thread on each; each device needs as many queues.
    #[arg(long, value_name = "CPU,…", value_delimiter = ',', default_value = "1")]
    pub(crate) cores: Vec<u16>,
    /// Memory for frames, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub(crate) mebibytes: u32,
    /// Where that memory comes from.
    #[arg(long, value_enum, default_value_t = Pages::Auto)]
    pub(crate) hugepages: Pages,
    /// The largest IP packet, where it is not the device's own.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..=9600))]
    pub(crate) mtu: Option<u16>,
    /// How long, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: Option<f64>,
    /// How to say what was reflected.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// Where memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pages {
    /// Hugepages where enough are free.
    Auto,
    /// Hugepages, or no start.
    Required,
    /// Ordinary pages.
    Off,
}

/// Where a configuration is.
#[derive(Debug, clap::Args)]
pub(crate) struct Files {
    /// The configuration: a file, a directory of *.yaml, or - for standard input.
    #[arg(short = 'f', long = "file", value_name = "PATH", num_args = 1.., required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// Whom to ask, and how to say what it answers.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Ask {
    /// Its admin address.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9901", env = "MILLRACE_ADMIN")]
    pub(crate) admin: SocketAddr,
    /// How to say it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listing {
    /// The polling cores: their load, their connections, and how packets find them.
    Cores,
    /// What is listened for, and what came.
    Listeners,
    /// Routes: where they are attached, and what they served.
    Routes,
    /// Backends: their endpoints, and how they answered.
    Backends,
    /// Connections of both legs: who, in which state, doing what.
    Connections,
    /// Rate limits: whom they let pass, and whom not.
    Limits,
    /// Which core runs which epoch of the configuration, and how it came to.
    Epochs,
    /// The backends' endpoints: who takes requests, and what health checks say.
    Endpoints,
    /// The running configuration as it was given, without Secrets.
    Config,
    /// DNS names of endpoints: their addresses, how old the answer is, and what went wrong.
    Names,
}

/// What can be set.
#[derive(Debug, Subcommand)]
pub(crate) enum Settable {
    /// An endpoint of a backend.
    Endpoint {
        /// The backend: NAME, or NAMESPACE/NAME.
        backend: String,
        /// The endpoint: ADDRESS, or ADDRESS:PORT.
        address: String,
        /// Its admin address.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9901", env = "MILLRACE_ADMIN")]
        admin: SocketAddr,
        /// What it is to be.
        #[command(subcommand)]
        setting: EndpointSetting,
    },
}

/// What an endpoint can be set to.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum EndpointSetting {
    /// Its share of the requests, relative to the others', in place of the configured one; 0 takes none.
    Weight {
        /// 0 to 1000000.
        #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        weight: u32,
    },
    /// It takes no new requests; those under way end, and sessions stay.
    Drain,
    /// It is as the configuration says; what was set before is taken back.
    #[command(visible_alias = "reset")]
    Ready,
}

/// How a listing looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For machines.
    Json,
    /// For people.
    Table,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Nothing.
    Off,
    /// What went wrong.
    Error,
    /// And what may go wrong.
    Warn,
    /// And what happens once.
    Info,
    /// And what happens often.
    Debug,
    /// All.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
