//! One call of `grpc.health.v1.Health/Check`, over HTTP/2 with prior knowledge: what is sent, and what the answer says.
//!
//! Enough of HTTP/2 (RFC 9113) to ask one question on a connection of its own and to take one answer: the answer is one byte in a
//! DATA frame, so that no header block need be decoded. Whoever calls it keeps the bytes received until the answer is there.

/// What a client sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
const FRAME_HEAD: usize = 9;

/// The largest frame that a peer may send as long as nobody said otherwise (RFC 9113 §4.2).
const LARGEST_FRAME: usize = 16_384;

/// Acknowledges the server's SETTINGS; to be sent once they came.
pub const SETTINGS_ACK: &[u8] = &[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Our only stream.
const STREAM: u32 = 1;

/// What has come of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The server's SETTINGS came.
    pub settings: bool,
    /// What the service says, once it is known.
    pub verdict: Option<Verdict>,
}

/// What the service says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// `HealthCheckResponse.status`: 0 UNKNOWN, 1 SERVING, 2 NOT_SERVING, 3 SERVICE_UNKNOWN.
    Status(u8),
    /// The call failed, and there is no status.
    NoStatus,
    /// This is no HTTP/2, or no gRPC.
    Invalid,
}

/// All that is sent for one check of `service` (empty for the server as a whole); `authority` is its Host. Both are cut at 126 bytes.
pub fn encode_request(authority: &str, service: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    frame(SETTINGS, 0, 0, out, |_| {});
    frame(HEADERS, END_HEADERS, STREAM, out, |block| {
        // Static table (RFC 7541 appendix A): 3 is `:method: POST`, 6 `:scheme: http`, 4 the name `:path`, 1 `:authority`.
        block.extend_from_slice(&[0x83, 0x86, 0x04]);
        string(b"/grpc.health.v1.Health/Check", block);
        block.push(0x01);
        string(authority.as_bytes(), block);
        for (name, value) in
            [("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "millrace-health")]
        {
            block.push(0x00);
            string(name.as_bytes(), block);
            string(value.as_bytes(), block);
        }
    });
    frame(DATA, END_STREAM, STREAM, out, |data| {
        let service = service.as_bytes();
        let length = service.len().min(STRING) as u8;
        // Not compressed, and the message's length; then field 1, a string.
        data.extend_from_slice(&[0, 0, 0, 0, if length == 0 { 0 } else { length + 2 }]);
        if length > 0 {
            data.push(0x0a);
            string(service, data);
        }
    });
}

/// Reads what came so far, from the connection's first byte on.
#[must_use]
pub fn read(bytes: &[u8]) -> Answer {
    let mut answer = Answer { settings: false, verdict: None };
    let mut message: Vec<u8> = Vec::new();
    let mut rest = bytes;
    // Each turn takes a frame's head at least.
    while let Some((head, after)) = rest.split_first_chunk::<FRAME_HEAD>() {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        // The first frame of a server is SETTINGS (RFC 9113 §3.4).
        if length > LARGEST_FRAME || (!answer.settings && (kind != SETTINGS || flags & ACK != 0)) {
            answer.verdict = Some(Verdict::Invalid);
            return answer;
        }
        let Some((payload, next)) = after.split_at_checked(length) else { break };
        rest = next;
        match (kind, stream) {
            (SETTINGS, _) => answer.settings = true,
            (DATA, STREAM) => {
                let padding = if flags & PADDED == 0 { None } else { payload.first() };
                let payload = match padding {
                    None => payload,
                    Some(&padding) => payload
                        .len()
                        .checked_sub(usize::from(padding))
                        .and_then(|end| payload.get(1..end))
                        .unwrap_or_default(),
                };
                message.extend(payload);
                if let Some(verdict) = status(&message) {
                    answer.verdict = Some(verdict);
                    return answer;
                }
                if flags & END_STREAM != 0 {
                    answer.verdict = Some(Verdict::NoStatus);
                    return answer;
                }
            }
            // Trailers without a message: the call failed.
            (HEADERS, STREAM) if flags & END_STREAM != 0 => {
                answer.verdict = Some(Verdict::NoStatus);
                return answer;
            }
            (RST_STREAM, STREAM) | (GOAWAY, _) => {
                answer.verdict = Some(Verdict::NoStatus);
                return answer;
            }
            _ => {}
        }
    }
    answer
}

/// The status in a message with its prefix, once it is whole.
fn status(message: &[u8]) -> Option<Verdict> {
    let (&[compressed, l0, l1, l2, l3], body) = message.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if compressed != 0 || length > 64 {
        return Some(Verdict::Invalid);
    }
    let body = body.get(..length)?;
    Some(match body {
        // A status of 0 is not written.
        [] => Verdict::Status(0),
        // Field 1, a number below 128. Nothing that follows is known to us.
        [0x08, status, ..] if *status < 128 => Verdict::Status(*status),
        _ => Verdict::Invalid,
    })
}

/// A frame whose payload `fill` appends.
fn frame(kind: u8, flags: u8, stream: u32, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let head = out.len();
    out.extend_from_slice(&[0, 0, 0, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    let payload = out.len();
    fill(out);
    let [_, length @ ..] = ((out.len() - payload) as u32).to_be_bytes();
    if let Some(place) = out.get_mut(head..head + 3) {
        place.copy_from_slice(&length);
    }
}

/// A string literal without Huffman coding (RFC 7541 §5.2), cut at what one byte of length says; protobuf writes short ones alike.
fn string(text: &[u8], out: &mut Vec<u8>) {
    let text = text.get(..text.len().min(STRING)).unwrap_or_default();
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

/// Bytes of a string at most.
const STRING: usize = 126;

#[cfg(test)]
mod tests {
    use super::*;

    fn served(frames: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, flags, stream, payload) in frames {
            frame(*kind, *flags, *stream, &mut out, |out| out.extend_from_slice(payload));
        }
        out
    }

    #[test]
    fn the_request_is_three_frames_behind_the_preface() {
        let mut sent = Vec::new();
        encode_request("10.9.2.2:50051", "shop", &mut sent);
        let rest = sent.strip_prefix(PREFACE).unwrap();
        let mut kinds = Vec::new();
        let mut rest = rest;
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            kinds.push((head[3], head[4], head[8]));
            rest = &after[length..];
        }
        assert_eq!(kinds, [(SETTINGS, 0, 0), (HEADERS, END_HEADERS, 1), (DATA, END_STREAM, 1)]);
        assert!(sent.ends_with(b"\x00\x00\x00\x00\x06\x0a\x04shop"));
    }

    #[test]
    fn a_status_is_read_wherever_the_bytes_are_cut() {
        let whole = served(&[
            (SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
            (SETTINGS, ACK, 0, &[]),
            (8, 0, 0, &[0, 0, 1, 0]),
            (HEADERS, END_HEADERS, 1, &[0x88]),
            (DATA, 0, 1, &[0, 0, 0, 0, 2, 8]),
            (DATA, PADDED, 1, &[2, 1, 0, 0]),
        ]);
        for cut in 0..whole.len() {
            let answer = read(&whole[..cut]);
            assert_eq!(answer, Answer { settings: cut >= 15, verdict: None }, "{cut}");
        }
        assert_eq!(read(&whole), Answer { settings: true, verdict: Some(Verdict::Status(1)) });
    }

    #[test]
    fn what_fails_has_no_status_and_what_is_no_grpc_is_invalid() {
        let settings = (SETTINGS, 0, 0, &[][..]);
        let verdict = |frames: &[(u8, u8, u32, &[u8])]| read(&served(frames)).verdict;
        assert_eq!(verdict(&[settings, (HEADERS, END_HEADERS | END_STREAM, 1, &[0x88])]), Some(Verdict::NoStatus));
        assert_eq!(verdict(&[settings, (GOAWAY, 0, 0, &[0; 8])]), Some(Verdict::NoStatus));
        assert_eq!(verdict(&[settings, (RST_STREAM, 0, 1, &[0; 4])]), Some(Verdict::NoStatus));
        assert_eq!(verdict(&[settings, (DATA, END_STREAM, 1, &[0, 0, 0])]), Some(Verdict::NoStatus));
        assert_eq!(verdict(&[settings, (DATA, 0, 1, &[0, 0, 0, 0, 0])]), Some(Verdict::Status(0)));
        assert_eq!(verdict(&[settings, (DATA, 0, 1, &[1, 0, 0, 0, 2, 8, 1])]), Some(Verdict::Invalid));
        assert_eq!(verdict(&[settings, (DATA, 0, 1, &[0, 9, 9, 9, 9, 8, 1])]), Some(Verdict::Invalid));
        assert_eq!(read(b"HTTP/1.1 400 Bad Request\r\n").verdict, Some(Verdict::Invalid));
    }

    #[test]
    fn padding_beyond_the_frame_says_nothing() {
        let frames = served(&[(SETTINGS, 0, 0, &[]), (DATA, PADDED | END_STREAM, 1, &[200, 0, 0, 0, 0, 2, 8, 1])]);
        assert_eq!(read(&frames).verdict, Some(Verdict::NoStatus));
    }
}
