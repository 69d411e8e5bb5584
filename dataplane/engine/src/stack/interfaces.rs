//! The stack's interfaces: one for each kind of path, shared by all its connections.

use smoltcp::iface::Interface;

use super::connection::stack_time;
use super::device::Path;
use super::isn;
use crate::clock::Instant;

/// Kinds of paths at a time; of a further one, the MTU is rounded down to one of these. Twice the usual path MTUs, for ports that cut
/// segments and ports that do not.
const KINDS: usize = 32;

/// The interfaces of one core.
pub(super) struct Interfaces(Vec<(Path, Interface)>);

impl Interfaces {
    /// None yet.
    #[must_use]
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(KINDS))
    }

    /// The number of the interface for `path`, made when it is first needed, and its MTU.
    pub(super) fn on(&mut self, path: Path) -> (u8, u16) {
        let at = match self.0.iter().position(|(known, _)| *known == path) {
            Some(at) => at,
            None if self.0.len() < KINDS => {
                self.0.push((path, isn::interface(0, path, stack_time(Instant::default(), 1))));
                self.0.len() - 1
            }
            None => {
                // What a port is asked to cut, it must be able to.
                let fits = |known: &Path| known.mtu < path.mtu && known.largest <= path.largest;
                let smaller = self.0.iter().enumerate().filter(|(_, (known, _))| fits(known));
                let least = || self.0.iter().enumerate().min_by_key(|(_, (known, _))| (known.largest, known.mtu));
                smaller.max_by_key(|(_, (known, _))| known.mtu).or_else(least).map_or(0, |(at, _)| at)
            }
        };
        // KINDS fits.
        (at as u8, self.0.get(at).map_or(path.mtu, |(known, _)| known.mtu))
    }

    /// The interface of that number.
    #[inline]
    pub(super) fn get_mut(&mut self, number: u8) -> Option<&mut Interface> {
        self.0.get_mut(usize::from(number)).map(|(_, interface)| interface)
    }
}
