//! Rules by which a device that tells no hash brings backends' replies to the core that asked: each core asks from an address of its own.

use std::net::IpAddr;

use ipnet::IpNet;

/// What a port's device was told: for each of these addresses, to which core's queue packets to it go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// One for each network that has addresses enough.
    groups: Box<[Group]>,
}

/// One network of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    network: IpNet,
    /// By core.
    addresses: Box<[IpAddr]>,
}

impl Rules {
    /// What there is to be told where the port has these addresses, each with its network: the first one of a network is core 0's. Clients of an address that is
    /// `listened` on would all be brought to one core, so those count for nothing. `None` where no network has an address for each core.
    #[must_use]
    pub fn plan(cores: u16, addresses: &[IpNet], listened: impl Fn(IpAddr) -> bool) -> Option<Self> {
        let mut networks: Vec<IpNet> = addresses.iter().map(IpNet::trunc).collect();
        networks.sort_unstable();
        networks.dedup();
        let group = |network: IpNet| {
            let free = addresses.iter().filter(|own| own.trunc() == network && !listened(own.addr())).map(IpNet::addr);
            let addresses: Box<[IpAddr]> = free.take(cores.into()).collect();
            (addresses.len() == usize::from(cores)).then_some(Group { network, addresses })
        };
        let groups: Box<[Group]> = networks.into_iter().filter_map(group).collect();
        (!groups.is_empty()).then_some(Self { groups })
    }

    /// Each address, and the queue that is its core's.
    pub fn queues(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.groups.iter().flat_map(|group| group.addresses.iter().copied().zip(0..))
    }

    /// The core that packets to this address arrive at, where there is a rule for it.
    #[inline]
    pub(super) fn core(&self, address: IpAddr) -> Option<u16> {
        self.queues().find(|(own, _)| *own == address).map(|(_, core)| core)
    }

    /// The core's address in the network of `address`, where there are rules for it.
    pub(super) fn address(&self, core: u16, address: IpAddr) -> Option<IpAddr> {
        let group = self.groups.iter().find(|group| group.network.contains(&address))?;
        group.addresses.get(usize::from(core)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_core_has_an_address_of_its_own_that_nobody_listens_on() {
        let own =
            ["10.9.1.1/24", "10.9.2.1/24", "10.9.2.2/24", "10.9.2.3/24", "10.9.2.4/24", "fd00::1/64", "fd00::2/64"]
                .map(|net| net.parse().unwrap());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let rules = Rules::plan(2, &own, |address| address == ip("10.9.2.2")).unwrap();
        let queues: Vec<_> = rules.queues().map(|(address, queue)| (address.to_string(), queue)).collect();
        let expected = [("10.9.2.1", 0), ("10.9.2.3", 1), ("fd00::1", 0), ("fd00::2", 1)];
        assert_eq!(queues, expected.map(|(address, queue)| (address.to_owned(), queue)));
        assert_eq!(rules.address(1, ip("10.9.2.4")), Some(ip("10.9.2.3")));
        assert_eq!(rules.address(1, ip("10.9.1.1")), None, "a network with one address for two cores");
        assert_eq!((rules.core(ip("fd00::2")), rules.core(ip("10.9.2.4"))), (Some(1), None));
        assert_eq!(Rules::plan(4, &own, |address| address == ip("10.9.2.2")), None);
    }
}
