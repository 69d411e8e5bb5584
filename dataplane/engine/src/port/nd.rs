//! What an interface is in IPv6: a host that checks its addresses (RFC 4862 §5.4), resolves its neighbors' and answers for its own
//! (RFC 4861 §7), and that may learn of routers (RFC 4861 §6.3).
//!
//! Its addresses are the configured ones and one link-local one, made from the Ethernet address where none is configured. It makes no
//! others from advertised prefixes, and never advertises or redirects.

use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use arrayvec::ArrayVec;
use ipnet::{IpNet, Ipv6Net};
use pmd::{Frame, Lane, TxChecksum};
use tables::{CoreCounters, InterfaceSettings, Verdict};

use super::ethernet::{self, Label, Link};
use super::interface::{ANNOUNCEMENTS, Interface};
use super::ipv4::ETHERNET;
use super::ndp::{self, Outgoing};
use super::{icmpv6, ipv6};
use crate::clock::Instant;

/// Default routers that are remembered.
pub(super) const ROUTERS: usize = 4;

/// Advertised on-link prefixes that are remembered.
const PREFIXES: usize = 16;

/// Router solicitations sent without an answer (RFC 4861 §10: MAX_RTR_SOLICITATIONS), and from one to the next.
const SOLICITATIONS: u8 = 3;
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);

/// Groups in one listener report at most; further ones' switches have to flood.
const GROUPS: usize = 32;

/// What an interface is in IPv6.
#[derive(Debug)]
pub(super) struct Host {
    candidates: Vec<Candidate>,
    discovery: Option<Discovery>,
    /// Somebody asked which groups we listen to, or they have changed.
    report_due: bool,
}

/// An address that is ours unless somebody else has it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    address: Ipv6Addr,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody was asked yet.
    New,
    /// Asked for a moment ago: whoever has it may still say so.
    Tentative,
    /// Ours, and to be announced so many times.
    Assigned(u8),
    /// Somebody else's.
    Duplicate,
}

/// What routers said.
#[derive(Debug)]
struct Discovery {
    routers: ArrayVec<(Ipv6Addr, Instant), ROUTERS>,
    prefixes: ArrayVec<(Ipv6Net, Instant), PREFIXES>,
    mtu: Option<u16>,
    solicitations: u8,
    next_solicitation: Instant,
}

impl Host {
    /// `None` where no IPv6 is configured.
    pub(super) fn new(settings: &InterfaceSettings, mac: [u8; 6]) -> Option<Self> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for net in &settings.addresses {
            if let IpNet::V6(net) = net {
                candidates.push(Candidate { address: net.addr(), state: State::New });
            }
        }
        if candidates.is_empty() && !settings.router_discovery {
            return None;
        }
        if !candidates.iter().any(|own| ipv6::is_link_local(own.address)) {
            candidates.push(Candidate { address: ipv6::link_local(mac), state: State::New });
        }
        let discovery = settings.router_discovery.then(|| Discovery {
            routers: ArrayVec::new(),
            prefixes: ArrayVec::new(),
            mtu: None,
            solicitations: SOLICITATIONS,
            next_solicitation: Instant::default(),
        });
        Some(Self { candidates, discovery, report_due: true })
    }

    /// Addresses that are not known to be ours yet.
    pub(super) fn tentative(&self) -> usize {
        self.candidates.iter().filter(|own| matches!(own.state, State::New | State::Tentative)).count()
    }

    /// Addresses that somebody else has.
    pub(super) fn duplicates(&self) -> usize {
        self.candidates.iter().filter(|own| own.state == State::Duplicate).count()
    }

    /// Whether `address` needs no router: link-local, or under a prefix that a router says is on the link.
    pub(super) fn on_link(&self, address: Ipv6Addr) -> bool {
        let prefixes = self.discovery.iter().flat_map(|discovery| &discovery.prefixes);
        let routers = self.discovery.iter().flat_map(|discovery| &discovery.routers);
        ipv6::is_link_local(address)
            || prefixes.into_iter().any(|(prefix, _)| prefix.contains(&address))
            || routers.into_iter().any(|(router, _)| *router == address)
    }

    /// The default router to use: one that answers, where there is one.
    pub(super) fn default_router(&self, is_dead: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let routers = &self.discovery.as_ref()?.routers;
        let all = || routers.iter().map(|&(router, _)| IpAddr::V6(router));
        all().find(|&router| !is_dead(router)).or_else(|| all().next())
    }

    /// The link's MTU, if a router said so.
    pub(super) fn mtu(&self) -> Option<u16> {
        self.discovery.as_ref()?.mtu
    }

    /// Whether one of the addresses that we have, or want to have, makes us listen to `group`.
    pub(super) fn listens(&self, group: Ipv6Addr) -> bool {
        group == ipv6::ALL_NODES || self.candidates.iter().any(|own| ipv6::solicited_node(own.address) == group)
    }

    /// Somebody else has, or wants to have, `address`. Whether it is thereby lost to us.
    fn lose(&mut self, address: Ipv6Addr) -> bool {
        let wanted =
            |own: &&mut Candidate| own.address == address && matches!(own.state, State::New | State::Tentative);
        match self.candidates.iter_mut().find(wanted) {
            Some(own) => {
                own.state = State::Duplicate;
                true
            }
            None => false,
        }
    }
}

impl<F: Frame> Interface<F> {
    /// Takes a message of Neighbor Discovery, of type `kind`, whose ICMPv6 checksum is right.
    #[cold]
    pub(super) fn nd<L: Lane<Frame = F>>(
        &mut self,
        now: Instant,
        link: &mut Link<L>,
        frame: &[u8],
        ip: &ipv6::Header,
        kind: u8,
        counters: &CoreCounters,
    ) -> Result<(), Verdict> {
        let message = frame.get(ETHERNET + ip.len..ETHERNET + ip.total).ok_or(Verdict::Truncated)?;
        let sender = frame.get(6..12).and_then(|mac| mac.first_chunk::<6>()).ok_or(Verdict::Truncated)?;
        match kind {
            icmpv6::NEIGHBOR_SOLICITATION => {
                let solicitation = ndp::solicitation(message, ip)?;
                self.take_rate(now)?;
                self.solicitation(now, link, &solicitation, ip.source, *sender, counters)
            }
            icmpv6::NEIGHBOR_ADVERTISEMENT => {
                let advertisement = ndp::advertisement(message, ip)?;
                // What we asked for is bounded by our asking.
                if !(advertisement.solicited && self.neighbors.is_asked(advertisement.target.into())) {
                    self.take_rate(now)?;
                }
                self.advertisement(now, link, &advertisement, counters)
            }
            icmpv6::ROUTER_ADVERTISEMENT => {
                if self.host.as_ref().is_none_or(|host| host.discovery.is_none()) {
                    return Err(Verdict::IcmpUnrelated);
                }
                let advertisement = ndp::router_advertisement(message, ip)?;
                self.take_rate(now)?;
                self.router_advertisement(now, link, &advertisement, ip.source, counters);
                Ok(())
            }
            icmpv6::LISTENER_QUERY => {
                // RFC 3810 §5.1.14, §6.2: from the link, and from a router on it. Answered with the next tick.
                if ip.hop_limit != 1 || !ipv6::is_link_local(ip.source) {
                    return Err(Verdict::NdInvalid);
                }
                self.host.iter_mut().for_each(|host| host.report_due = true);
                Ok(())
            }
            _ => Err(Verdict::IcmpUnrelated),
        }
    }

    /// What is done once a second while the link is up.
    pub(super) fn tick_v6<L: Lane<Frame = F>>(
        &mut self,
        now: Instant,
        link: &mut Link<L>,
        came_up: bool,
        counters: &CoreCounters,
    ) {
        let Some(mut host) = self.host.take() else { return };
        if came_up {
            host.report_due = true;
            for own in &mut host.candidates {
                own.state = match own.state {
                    State::Assigned(_) => State::Assigned(ANNOUNCEMENTS),
                    State::Duplicate => State::New,
                    state => state,
                };
            }
        }
        if core::mem::take(&mut host.report_due) {
            self.report(link, &host);
        }
        for own in &mut host.candidates {
            own.state = self.check(link, *own, counters);
        }
        if let Some(discovery) = &mut host.discovery {
            self.discover(now, link, discovery, counters);
        }
        self.host = Some(host);
    }

    /// Asks the neighbor with `target`, at `to` or everybody who may be it (RFC 4861 §7.2.2).
    pub(super) fn solicit<L: Lane<Frame = F>>(
        &self,
        link: &mut Link<L>,
        target: Ipv6Addr,
        to: Option<[u8; 6]>,
        counters: &CoreCounters,
    ) {
        // While our addresses are being checked nobody is asked.
        let Some(IpAddr::V6(source)) = self.addresses.source_for(target.into(), target.into()) else { return };
        let group = ipv6::solicited_node(target);
        let (destination, to) = to.map_or((group, ipv6::group_mac(group)), |mac| (target, mac));
        let message = Outgoing::Solicitation { target, link_address: Some(link.mac) };
        if self.send_nd(link, message, source, destination, to) {
            counters.nd_solicitations.add(1);
        }
    }

    /// Brings one of our addresses a step further (RFC 4862 §5.4: one question, and a second for the answer).
    fn check<L: Lane<Frame = F>>(&mut self, link: &mut Link<L>, own: Candidate, counters: &CoreCounters) -> State {
        let target = own.address;
        match own.state {
            State::New => {
                let group = ipv6::solicited_node(target);
                let message = Outgoing::Solicitation { target, link_address: None };
                if !self.send_nd(link, message, Ipv6Addr::UNSPECIFIED, group, ipv6::group_mac(group)) {
                    return State::New;
                }
                counters.nd_solicitations.add(1);
                State::Tentative
            }
            State::Tentative => {
                self.addresses.assign(target);
                self.neighbors.age();
                State::Assigned(ANNOUNCEMENTS)
            }
            State::Assigned(left @ 1..) => {
                // Whoever knew another one's Ethernet address learns ours (RFC 4861 §7.2.6).
                self.advertise(link, target, None, counters);
                State::Assigned(left - 1)
            }
            state => state,
        }
    }

    /// Says that we have `target`: to the one who asked, or to everybody.
    fn advertise<L: Lane<Frame = F>>(
        &self,
        link: &mut Link<L>,
        target: Ipv6Addr,
        to: Option<(Ipv6Addr, [u8; 6])>,
        counters: &CoreCounters,
    ) {
        let message = Outgoing::Advertisement { target, link_address: link.mac, solicited: to.is_some() };
        let (destination, mac) = to.unwrap_or((ipv6::ALL_NODES, ipv6::group_mac(ipv6::ALL_NODES)));
        if self.send_nd(link, message, target, destination, mac) {
            counters.nd_advertisements.add(1);
        }
    }

    /// Somebody asks who has an address (RFC 4861 §7.2.3).
    fn solicitation<L: Lane<Frame = F>>(
        &mut self,
        now: Instant,
        link: &mut Link<L>,
        solicitation: &ndp::Solicitation,
        source: Ipv6Addr,
        sender: [u8; 6],
        counters: &CoreCounters,
    ) -> Result<(), Verdict> {
        let target = solicitation.target;
        if sender == link.mac {
            return Err(Verdict::NdInvalid);
        }
        if !self.addresses.owns_v6(target) {
            // Whoever asks from no address wants it, too (RFC 4862 §5.4.3).
            let lost = source.is_unspecified() && self.host.as_mut().is_some_and(|host| host.lose(target));
            return if lost { Ok(()) } else { Err(Verdict::IpDestination) };
        }
        if source.is_unspecified() {
            self.advertise(link, target, None, counters);
            return Ok(());
        }
        // Without the option the question came to us alone, and the frame says from whom.
        let mac = solicitation.link_address.unwrap_or(sender);
        let neighbor = IpAddr::V6(source);
        if solicitation.link_address.is_some() && self.on_link(neighbor) {
            self.neighbors.heard(now, neighbor, mac);
        }
        self.advertise(link, target, Some((source, mac)), counters);
        self.release_known(link, neighbor);
        Ok(())
    }

    /// Somebody says that it has an address (RFC 4861 §7.2.5). As with ARP, what nobody asked for changes nothing; where it says something
    /// new, it is asked for.
    fn advertisement<L: Lane<Frame = F>>(
        &mut self,
        now: Instant,
        link: &mut Link<L>,
        advertisement: &ndp::Advertisement,
        counters: &CoreCounters,
    ) -> Result<(), Verdict> {
        let target = advertisement.target;
        let neighbor = IpAddr::V6(target);
        if self.host.as_mut().is_some_and(|host| host.lose(target)) {
            return Ok(());
        }
        if self.owns(neighbor) {
            return Err(Verdict::NdInvalid);
        }
        if !advertisement.router {
            self.forget_router(now, target, counters);
        }
        let asked = self.neighbors.is_asked(neighbor);
        match (advertisement.link_address, self.neighbors.mac(neighbor)) {
            // To a question that went to it alone it need not say where it is.
            (None, Some(mac)) if advertisement.solicited && asked => {
                self.neighbors.answered(now, neighbor, mac);
            }
            (Some(mac), _) if advertisement.solicited && asked => {
                self.neighbors.answered(now, neighbor, mac);
            }
            // Told without being asked, while we wanted to know.
            (Some(mac), None) if asked => self.neighbors.heard(now, neighbor, mac),
            (Some(mac), Some(known)) if mac != known => {
                if let Some(question) = self.neighbors.hinted(now, neighbor, mac) {
                    self.ask(link, question, counters);
                }
                return Err(Verdict::NdInvalid);
            }
            (_, Some(_)) => {}
            _ => return Err(Verdict::NdInvalid),
        }
        self.release_known(link, neighbor);
        Ok(())
    }

    /// Sends what waited for a neighbor, if it is known now.
    fn release_known<L: Lane<Frame = F>>(&mut self, link: &mut Link<L>, neighbor: IpAddr) {
        if let Some(mac) = self.neighbors.mac(neighbor) {
            self.release(link, neighbor, mac);
        }
    }

    /// A router says what it is and what is on the link (RFC 4861 §6.3.4).
    fn router_advertisement<L: Lane<Frame = F>>(
        &mut self,
        now: Instant,
        link: &mut Link<L>,
        advertisement: &ndp::RouterAdvertisement,
        router: Ipv6Addr,
        counters: &CoreCounters,
    ) {
        let until = |seconds: u32| match seconds {
            u32::MAX => Instant::NEVER,
            seconds => now + Duration::from_secs(seconds.into()),
        };
        if advertisement.lifetime == 0 {
            self.forget_router(now, router, counters);
        }
        let largest = self.mtu;
        let Some(discovery) = self.host.as_mut().and_then(|host| host.discovery.as_mut()) else { return };
        if advertisement.lifetime > 0 {
            discovery.solicitations = 0;
            let end = until(advertisement.lifetime.into());
            if let Some((_, known_end)) = discovery.routers.iter_mut().find(|(known, _)| *known == router) {
                *known_end = end;
            } else if !discovery.routers.is_full() && self.neighbors.pin(router.into()) {
                discovery.routers.push((router, end));
                self.neighbors.age();
            }
        }
        for &(prefix, seconds) in &advertisement.prefixes {
            // Link-local destinations are on the link without anybody's saying so, and all of them would be nonsense.
            if ipv6::is_link_local(prefix.addr()) || prefix.addr().is_multicast() || prefix.prefix_len() < 3 {
                continue;
            }
            discovery.prefixes.retain(|(known, _)| *known != prefix);
            if seconds > 0 {
                // What is beyond the bound goes through the router.
                let _ = discovery.prefixes.try_push((prefix, until(seconds)));
            }
        }
        if let Some(mtu) = advertisement.mtu.and_then(|mtu| u16::try_from(mtu).ok())
            && (ipv6::LEAST_MTU..=largest).contains(&mtu)
        {
            discovery.mtu = Some(mtu);
        }
        if let Some(mac) = advertisement.link_address {
            self.neighbors.heard(now, router.into(), mac);
            self.release_known(link, router.into());
        }
    }

    /// Looks for routers until one has answered, and forgets what has not been advertised for too long.
    fn discover<L: Lane<Frame = F>>(
        &mut self,
        now: Instant,
        link: &mut Link<L>,
        discovery: &mut Discovery,
        counters: &CoreCounters,
    ) {
        discovery.prefixes.retain(|(_, end)| *end > now);
        discovery.routers.retain(|(router, end)| {
            let lives = *end > now;
            if !lives {
                self.neighbors.unpin(now, (*router).into(), counters);
            }
            lives
        });
        let source = self.addresses.source_for(ipv6::ANY_LINK_LOCAL.into(), ipv6::ANY_LINK_LOCAL.into());
        if let Some(IpAddr::V6(source)) = source
            && discovery.solicitations > 0
            && now >= discovery.next_solicitation
        {
            let message = Outgoing::RouterSolicitation { link_address: link.mac };
            if self.send_nd(link, message, source, ipv6::ALL_ROUTERS, ipv6::group_mac(ipv6::ALL_ROUTERS)) {
                discovery.solicitations -= 1;
                discovery.next_solicitation = now + SOLICITATION_INTERVAL;
            }
        }
    }

    /// `router` is no default router any more.
    fn forget_router(&mut self, now: Instant, router: Ipv6Addr, counters: &CoreCounters) {
        let Some(discovery) = self.host.as_mut().and_then(|host| host.discovery.as_mut()) else { return };
        let before = discovery.routers.len();
        discovery.routers.retain(|(known, _)| *known != router);
        if discovery.routers.len() < before {
            self.neighbors.unpin(now, router.into(), counters);
        }
    }

    /// Tells switches and routers which groups we listen to (RFC 3810 §6.1); from no address while ours are being checked.
    fn report<L: Lane<Frame = F>>(&self, link: &mut Link<L>, host: &Host) {
        let mut groups = ArrayVec::<Ipv6Addr, GROUPS>::new();
        for own in &host.candidates {
            let group = ipv6::solicited_node(own.address);
            if !groups.contains(&group) && !groups.is_full() {
                groups.push(group);
            }
        }
        let source = match self.addresses.source_for(ipv6::ANY_LINK_LOCAL.into(), ipv6::ANY_LINK_LOCAL.into()) {
            Some(IpAddr::V6(source)) => source,
            _ => Ipv6Addr::UNSPECIFIED,
        };
        let Some(mut frame) = link.bare_packet(ndp::report_len(groups.len())) else { return };
        let packet = frame.bytes_mut().get_mut(ETHERNET..);
        if packet.and_then(|packet| ndp::write_report(packet, source, &groups)).is_some() {
            let to = [0x33, 0x33, 0, 0, 0, 0x16];
            link.emit(frame, Label { to, vlan: self.vlan, ethertype: ethernet::IPV6 }, TxChecksum::Complete);
        }
    }

    fn send_nd<L: Lane<Frame = F>>(
        &self,
        link: &mut Link<L>,
        message: Outgoing,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        to: [u8; 6],
    ) -> bool {
        let Some(mut frame) = link.bare_packet(message.len()) else {
            return false;
        };
        let packet = frame.bytes_mut().get_mut(ETHERNET..);
        let written = packet.and_then(|packet| message.write(packet, source, destination)).is_some();
        let label = Label { to, vlan: self.vlan, ethertype: ethernet::IPV6 };
        written && link.emit(frame, label, TxChecksum::Complete)
    }

    fn take_rate(&mut self, now: Instant) -> Result<(), Verdict> {
        if self.nd_rate.take(now) { Ok(()) } else { Err(Verdict::NdRate) }
    }
}
