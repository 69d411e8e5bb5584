//! Why a packet went no further.

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $variant:ident = $token:literal,)+) => {
        /// Why a packet went no further. Every drop has one, and every one has a counter per core
        /// (`millrace_packets_dropped_total{reason="…"}`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Verdict { $($(#[doc = $doc])+ $variant,)+ }

        impl Verdict {
            /// All verdicts, in the order of their counters.
            pub const ALL: &'static [Verdict] = &[$(Verdict::$variant,)+];

            /// The reason as metrics and logs show it.
            #[must_use]
            pub const fn token(self) -> &'static str {
                match self { $(Verdict::$variant => $token,)+ }
            }
        }
    };
}

verdicts! {
    /// The frame is shorter than its headers say.
    Truncated = "truncated",
    /// An EtherType that nobody here speaks.
    EtherType = "ethertype",
    /// An Ethernet destination that is neither ours, nor broadcast, nor a group of ours.
    NotOurMac = "not_our_mac",
    /// A VLAN tag of no VLAN here, or more than one tag.
    Vlan = "vlan",
    /// An ARP packet that is malformed, spoofs one of our addresses or comes from no unicast sender.
    ArpInvalid = "arp_invalid",
    /// ARP above the port's rate.
    ArpRate = "arp_rate",
    /// A message of Neighbor Discovery that is malformed, came from beyond the link, spoofs one of our addresses, or that nobody asked for.
    NdInvalid = "nd_invalid",
    /// Neighbor Discovery above the port's rate.
    NdRate = "nd_rate",
    /// An IP header with a wrong version, a length beyond the frame, malformed options or, in IPv4, IHL below 5.
    IpHeader = "ip_header",
    /// A wrong IPv4 header checksum.
    IpChecksum = "ip_checksum",
    /// A source that is unspecified, broadcast, multicast, loopback (RFC 1122 §3.2.1.3) or ours, or embeds IPv4 in IPv6.
    IpSource = "ip_source",
    /// A destination address that is not ours.
    IpDestination = "ip_destination",
    /// Source and destination are the same (LAND).
    Land = "land",
    /// An IPv6 extension header that nobody here follows, or too many of them.
    IpExtension = "ip_extension",
    /// A fragment.
    Fragment = "fragment",
    /// An IP protocol that nobody here speaks.
    IpProtocol = "ip_protocol",
    /// IPv6 where there is no IPv6 address.
    Ipv6 = "ipv6",
    /// A malformed ICMP message.
    IcmpInvalid = "icmp_invalid",
    /// ICMP above the port's rate.
    IcmpRate = "icmp_rate",
    /// An ICMP error that belongs to no connection, or whose sequence number is outside its window (RFC 5927 §4).
    IcmpUnrelated = "icmp_unrelated",
    /// A TCP header with a data offset below 5 or beyond the packet, or a port of 0.
    TcpHeader = "tcp_header",
    /// A wrong TCP checksum.
    TcpChecksum = "tcp_checksum",
    /// A TCP option with length 0 or 1, or longer than the header.
    TcpOption = "tcp_option",
    /// A combination of flags that no TCP sends: SYN+FIN, SYN+RST, none, or all (Xmas).
    TcpFlags = "tcp_flags",
    /// A segment for which there is no connection and no listener.
    TcpNoConnection = "tcp_no_connection",
    /// A RST outside the receive window (RFC 5961 §3.2).
    RstOutsideWindow = "rst_outside_window",
    /// A RST in the window but not at RCV.NXT: answered with a challenge ACK (RFC 5961 §3.2).
    RstChallenged = "rst_challenged",
    /// A SYN in a synchronized state: answered with a challenge ACK (RFC 5961 §4.2).
    SynChallenged = "syn_challenged",
    /// An ACK beyond SND.NXT or below SND.UNA − MAX.WND: answered with a challenge ACK (RFC 5961 §5.2).
    AckChallenged = "ack_challenged",
    /// An old ACK that carries nothing.
    AckOld = "ack_old",
    /// A segment for a connection in TIME-WAIT that does not reopen it.
    TimeWait = "time_wait",
    /// A packet for a listener from a client that its SecurityPolicy keeps out.
    SourceDenied = "source_denied",
    /// A SYN from a source that opens connections faster than it may.
    SourceRate = "source_rate",
    /// A SYN while the half-open limit is reached and cookies are off.
    HalfOpenLimit = "half_open_limit",
    /// A SYN while the connection limit is reached.
    ConnectionLimit = "connection_limit",
    /// A SYN while this core drains.
    Draining = "draining",
    /// A SYN for which no memory was left.
    NoMemory = "no_memory",
    /// A packet for the host's kernel above the rate of the exception path.
    ExceptionRate = "exception_rate",
    /// A packet of ours whose next hop answered neither ARP nor Neighbor Discovery.
    NeighborUnresolved = "neighbor_unresolved",
    /// A packet of ours beyond those that wait for one neighbor's address.
    NeighborQueueFull = "neighbor_queue_full",
    /// A packet for another core, to which too many were on their way.
    RingFull = "ring_full",
    /// A packet of ours with no route to its destination.
    NoRoute = "no_route",
}

impl Verdict {
    /// How many verdicts there are.
    pub const COUNT: usize = Self::ALL.len();
}
