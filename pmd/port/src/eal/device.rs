//! Device strings: what they name, and what can be said about them before DPDK is asked.

use std::path::Path;

use super::host;
use crate::error::EalError;

/// A device as configured: a DPDK virtual device or a PCI function, with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// The whole string, for EAL and for messages.
    pub(crate) text: String,
    /// What DPDK calls the port.
    pub(crate) name: String,
    /// On the PCI bus, and not virtual.
    pub(crate) pci: bool,
    /// The kernel's interface that the driver sits on.
    pub(crate) interface: Option<String>,
}

/// What DPDK calls the port of a device that is given by its whole string or by its name.
pub(super) fn name(text: &str) -> String {
    let name = text.split_once(',').map_or(text, |(name, _)| name);
    pci_address(name).unwrap_or_else(|| name.to_owned())
}

/// DPDK's limit for a device's name, with its final zero.
const NAME: usize = 64;

/// Drivers that open an interface of the kernel which must be there before.
const ON_INTERFACE: &[&str] = &["net_af_packet", "eth_af_packet", "net_af_xdp", "eth_af_xdp"];

impl Device {
    /// Reads a device string.
    pub(crate) fn parse(text: &str) -> Result<Self, EalError> {
        let unknown = |reason: String| EalError::UnknownDevice { device: text.to_owned(), reason };
        let (name, arguments) = text.split_once(',').unwrap_or((text, ""));
        if let Some(name) = pci_address(name) {
            return Ok(Self { text: text.to_owned(), name, pci: true, interface: None });
        }
        if name.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(unknown("it is empty or has white space in it".to_owned()));
        }
        if name.len() >= NAME {
            return Err(unknown(format!("its name is longer than {} bytes", NAME - 1)));
        }
        if !["net_", "eth_", "virtio_user"].iter().any(|prefix| name.starts_with(prefix)) {
            return Err(unknown("it is neither a PCI address nor the name of a virtual network device".to_owned()));
        }
        let interface = if ON_INTERFACE.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit())) {
            let interface = arguments.split(',').find_map(|pair| pair.strip_prefix("iface="));
            Some(interface.ok_or_else(|| unknown("it lacks the argument iface=".to_owned()))?.to_owned())
        } else {
            None
        };
        Ok(Self { text: text.to_owned(), name: name.to_owned(), pci: false, interface })
    }

    /// The socket that a virtio_user makes in server mode.
    pub(crate) fn server_socket(&self) -> Option<&str> {
        let (name, arguments) = self.text.split_once(',')?;
        let argument = |key: &str| arguments.split(',').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let virtio = name.starts_with("net_virtio_user") || name.starts_with("virtio_user");
        argument("path").filter(|_| virtio && argument("server") == Some("1"))
    }

    /// Finds the common reasons why the driver would refuse, so that they get a clear message.
    pub(super) fn precheck(&self) -> Result<(), EalError> {
        if self.pci && !Path::new("/sys/bus/pci/devices").join(&self.name).exists() {
            return Err(EalError::UnknownDevice {
                device: self.text.clone(),
                reason: "there is no such PCI device".to_owned(),
            });
        }
        if let Some(interface) = &self.interface {
            if !host::interface_exists(interface) {
                return Err(EalError::NoSuchInterface { device: self.text.clone(), interface: interface.clone() });
            }
            if !host::may_open_packet_sockets() {
                let needed = format!("opening a packet socket on {interface} needs root or CAP_NET_RAW");
                return Err(EalError::NoPermission { needed });
            }
        }
        Ok(())
    }
}

/// The PCI address in `text` in its full form, domain first, or `None`.
fn pci_address(text: &str) -> Option<String> {
    let mut parts = text.rsplit(':');
    let (device, function) = parts.next()?.split_once('.')?;
    let bus = parts.next()?;
    let domain = parts.next().unwrap_or("0000");
    let hexadecimal =
        |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let valid = parts.next().is_none()
        && hexadecimal(domain, 8)
        && hexadecimal(bus, 2)
        && hexadecimal(device, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7']);
    valid.then(|| format!("{domain:0>4}:{bus:0>2}:{device:0>2}.{function}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses() {
        for (text, name) in
            [("0000:03:00.0", "0000:03:00.0"), ("03:00.1", "0000:03:00.1"), ("0000:AF:1f.7,class=x", "0000:af:1f.7")]
        {
            let device = Device::parse(text).unwrap();
            assert_eq!((device.name.as_str(), device.pci), (name, true));
        }
        for text in ["03:00", "03:00.8", "0:0:0:0.0", "g3:00.0", ":.0", "03:00.00"] {
            assert_eq!(pci_address(text), None, "{text}");
        }
    }

    #[test]
    fn virtual_devices() {
        let device = Device::parse("net_af_packet0,iface=mr-north,qpairs=2").unwrap();
        assert_eq!(device.name, "net_af_packet0");
        assert_eq!(device.interface.as_deref(), Some("mr-north"));
        assert!(!device.pci);
        // What net_tap calls iface is made by it, and need not be there.
        assert_eq!(Device::parse("net_tap0,iface=foo").unwrap().interface, None);
        assert_eq!(Device::parse("virtio_user0,path=/tmp/x").unwrap().name, "virtio_user0");
        let server = Device::parse("net_virtio_user0,path=/tmp/x,server=1,queues=1").unwrap();
        assert_eq!(server.server_socket(), Some("/tmp/x"));
        assert_eq!(Device::parse("net_virtio_user0,path=/tmp/x,server=0").unwrap().server_socket(), None);
        assert_eq!(Device::parse("net_vhost0,iface=/tmp/x,path=/tmp/y,server=1").unwrap().server_socket(), None);
    }

    #[test]
    fn nonsense_is_named() {
        let long = format!("net_{}", "x".repeat(64));
        for text in ["", ",", "eth0", "net_ring 0", "net_af_packet0", "net_af_packet0,ifac=x", long.as_str()] {
            assert!(matches!(Device::parse(text), Err(EalError::UnknownDevice { .. })), "{text}");
        }
    }
}
