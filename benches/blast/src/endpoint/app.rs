//! What runs on connections, and what it and the host tell each other.

/// What the application wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    /// Nothing.
    Nothing,
    /// Send a message of this many bytes, and close behind it or not. Only when the last one is acknowledged.
    Send {
        /// Bytes; at least one.
        len: u32,
        /// With a FIN.
        close: bool,
    },
    /// Send a FIN.
    Close,
    /// Send an RST, and forget the connection.
    Abort,
}

/// What the application begins by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Connect: the slot has no connection.
    Open(u32),
    /// Call [`App::asked`] for an open connection.
    Ask(u32),
}

/// Why a connection is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Both sides closed it.
    Closed,
    /// The peer reset it.
    Reset,
    /// The peer did not accept it.
    Refused,
    /// The peer did not acknowledge in time.
    TimedOut,
    /// We reset it.
    Aborted,
}

/// What runs on the connections of a host. `id` is the connection's slot, and `State` what the application keeps for it.
pub trait App {
    /// Kept for each slot.
    type State: Default;

    /// What to begin next; asked until there is nothing.
    fn start(&mut self, now: u64) -> Option<Start>;

    /// The connection is about to be opened, as [`App::start`] wanted.
    fn opening(&mut self, now: u64, id: u32, state: &mut Self::State);

    /// What [`App::start`] wanted to do with an open connection.
    fn asked(&mut self, now: u64, id: u32, state: &mut Self::State) -> Do;

    /// The connection is established.
    fn opened(&mut self, now: u64, id: u32, state: &mut Self::State) -> Do;

    /// The next bytes of the stream.
    fn receive(&mut self, now: u64, id: u32, state: &mut Self::State, bytes: &[u8]) -> Do;

    /// Writes the part of the message that begins at `offset`. The same part is always the same.
    fn fill(&self, state: &Self::State, offset: u32, out: &mut [u8]);

    /// The peer sends no more.
    fn ended(&mut self, now: u64, id: u32, state: &mut Self::State) -> Do;

    /// The connection is no more.
    fn gone(&mut self, now: u64, id: u32, state: &mut Self::State, how: Gone);

    /// When the application has waited too long for something; [`u64::MAX`] where it waits for nothing.
    fn deadline(&self, state: &Self::State) -> u64;

    /// It has.
    fn expired(&mut self, now: u64, id: u32, state: &mut Self::State) -> Do;
}
