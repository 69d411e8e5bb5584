//! Ethernet and VLAN tags (IEEE 802.1Q), and the lane below them.

use core::num::NonZeroU16;

use pmd::{Frame, Lane, TxChecksum};

use super::ipv4::ETHERNET;

pub(super) const BROADCAST: [u8; 6] = [0xff; 6];

pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const VLAN: u16 = 0x8100;

/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// The lane and its Ethernet address.
#[derive(Debug)]
pub(super) struct Link<L: Lane> {
    pub(super) lane: L,
    pub(super) mac: [u8; 6],
}

/// What stands in a frame's Ethernet header beside the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    pub(super) to: [u8; 6],
    /// The VLAN; `None` for an untagged frame.
    pub(super) vlan: Option<NonZeroU16>,
    pub(super) ethertype: u16,
}

impl<L: Lane> Link<L> {
    /// A frame whose packet, of `len` bytes, begins at byte 14 and holds anything. `None` where the pool is empty,
    /// which the lane counts, or its buffers are too small.
    #[inline]
    pub(super) fn packet(&mut self, len: usize) -> Option<L::Frame> {
        let mut frame = self.lane.allocate()?;
        frame.set_len(ETHERNET + len).then_some(frame)
    }

    /// The same for a packet that carries no data, out of the lane's reserve where the pool is empty.
    #[inline]
    pub(super) fn bare_packet(&mut self, len: usize) -> Option<L::Frame> {
        self.packet(len).or_else(|| {
            let mut frame = self.lane.allocate_reserved()?;
            frame.set_len(ETHERNET + len).then_some(frame)
        })
    }

    /// Writes the Ethernet header of a frame whose packet begins at byte 14, and hands the frame to the lane. Whether it went.
    #[inline]
    pub(super) fn emit(&mut self, mut frame: L::Frame, label: Label, checksum: TxChecksum) -> bool {
        if let Some(vlan) = label.vlan {
            return self.emit_tagged(frame, label, vlan, checksum);
        }
        let Some(header) = frame.bytes_mut().first_chunk_mut::<ETHERNET>() else { return false };
        header[..6].copy_from_slice(&label.to);
        header[6..12].copy_from_slice(&self.mac);
        header[12..].copy_from_slice(&label.ethertype.to_be_bytes());
        self.lane.transmit(frame, checksum);
        true
    }

    fn emit_tagged(&mut self, mut frame: L::Frame, label: Label, vlan: NonZeroU16, checksum: TxChecksum) -> bool {
        if !frame.grow_front(TAG) {
            return false;
        }
        let Some(header) = frame.bytes_mut().first_chunk_mut::<{ ETHERNET + TAG }>() else { return false };
        header[..6].copy_from_slice(&label.to);
        header[6..12].copy_from_slice(&self.mac);
        header[12..14].copy_from_slice(&VLAN.to_be_bytes());
        header[14..16].copy_from_slice(&vlan.get().to_be_bytes());
        header[16..].copy_from_slice(&label.ethertype.to_be_bytes());
        let checksum = match checksum {
            TxChecksum::Complete => TxChecksum::Complete,
            TxChecksum::Tcp { l2_len, l3_len } => TxChecksum::Tcp { l2_len: l2_len + TAG as u8, l3_len },
            TxChecksum::TcpSegments { l2_len, l3_len, mss } => {
                TxChecksum::TcpSegments { l2_len: l2_len + TAG as u8, l3_len, mss }
            }
        };
        self.lane.transmit(frame, checksum);
        true
    }
}

/// Takes the tag off a tagged frame, so that what it carries begins at byte 14 as in any other. Returns the VLAN's identifier, 0 for a
/// tag that has only a priority; `None` where the frame ends before its packet.
pub(super) fn untag<F: Frame>(frame: &mut F) -> Option<u16> {
    let header = frame.bytes_mut().first_chunk_mut::<{ ETHERNET + TAG }>()?;
    let vlan = u16::from_be_bytes([header[14], header[15]]) & 0x0fff;
    header.copy_within(..12, TAG);
    frame.trim_front(TAG).then_some(vlan)
}
