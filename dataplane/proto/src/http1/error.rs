//! Why a message was refused. Each cause has a short token for logs and metric labels, and a sentence for people.

use core::fmt;

/// Declares an enum of causes: variant, status, token, sentence.
macro_rules! causes {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $status:literal, $detail:literal, $sentence:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = $sentence] $variant,)+
        }

        impl $name {
            /// Every cause, for tables of counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The status code that answers it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// A short token for logs and metrics.
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)+ }
            }

            const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.sentence())
            }
        }

        impl core::error::Error for $name {}
    };
}

causes! {
    /// A fault in a section of field lines, of whichever message.
    FieldFault {
        BareLf = 400, "bare_lf", "A line ends in LF without CR.";
        BareCr = 400, "bare_cr", "A CR is not followed by LF.";
        ObsFold = 400, "obs_fold", "A field line begins with whitespace.";
        EmptyName = 400, "empty_field_name", "A field has no name.";
        SpaceBeforeColon = 400, "space_before_colon", "Whitespace stands between a field name and its colon.";
        InvalidName = 400, "invalid_field_name", "A field name is not a token.";
        InvalidValue = 400, "invalid_field_value", "A field value contains a control character.";
        TooManyFields = 431, "too_many_fields", "The head has more field lines than allowed.";
        TooManyConnectionOptions = 400, "too_many_connection_options", "Connection names more options than allowed.";
    }
}

causes! {
    /// Why a request is answered here and never forwarded. The connection closes after the answer: where the next
    /// request would begin is not known, or not to be trusted.
    Rejection {
        MalformedRequestLine = 400, "malformed_request_line", "The request line is malformed.";
        InvalidTarget = 400, "invalid_target", "The request target is not one that a URI allows.";
        UserinfoInAuthority = 400, "userinfo_in_authority", "The authority carries user information.";
        BareLf = 400, "bare_lf", "A line ends in LF without CR.";
        BareCr = 400, "bare_cr", "A CR is not followed by LF.";
        ObsFold = 400, "obs_fold", "A field line begins with whitespace.";
        EmptyFieldName = 400, "empty_field_name", "A field has no name.";
        SpaceBeforeColon = 400, "space_before_colon", "Whitespace stands between a field name and its colon.";
        InvalidFieldName = 400, "invalid_field_name", "A field name is not a token.";
        InvalidFieldValue = 400, "invalid_field_value", "A field value contains a control character.";
        TooManyConnectionOptions = 400, "too_many_connection_options", "Connection names more options than allowed.";
        MissingHost = 400, "missing_host", "The request has no Host field.";
        RepeatedHost = 400, "repeated_host", "The request has more than one Host field.";
        InvalidHost = 400, "invalid_host", "The host is not a valid one.";
        InvalidContentLength = 400, "invalid_content_length", "Content-Length is not one decimal number that fits.";
        RepeatedContentLength = 400, "repeated_content_length", "The request has more than one Content-Length.";
        LengthAndTransferEncoding = 400, "length_and_transfer_encoding",
            "The request has both Content-Length and Transfer-Encoding.";
        InvalidTransferEncoding = 400, "invalid_transfer_encoding",
            "Transfer-Encoding does not end in exactly one chunked.";
        RepeatedTransferEncoding = 400, "repeated_transfer_encoding",
            "The request has more than one Transfer-Encoding field.";
        TransferEncodingInHttp10 = 400, "transfer_encoding_in_http10",
            "HTTP/1.0 does not know Transfer-Encoding.";
        MethodNotAllowed = 405, "method_not_allowed", "CONNECT and TRACE are not served.";
        TargetTooLong = 414, "target_too_long", "The request target is longer than allowed.";
        ExpectationFailed = 417, "expectation_failed", "The only expectation known is 100-continue.";
        HeadTooLarge = 431, "head_too_large", "The head is larger than allowed.";
        TooManyFields = 431, "too_many_fields", "The head has more field lines than allowed.";
        UnknownTransferCoding = 501, "unknown_transfer_coding", "The only transfer coding known is chunked.";
        UnsupportedVersion = 505, "unsupported_version", "The only versions known are HTTP/1.0 and HTTP/1.1.";
    }
}

causes! {
    /// Why a response head from a backend is not used; the client gets 502, and the connection to the backend ends.
    InvalidResponse {
        MalformedStatusLine = 502, "malformed_status_line", "The status line is malformed.";
        UnsupportedVersion = 502, "unsupported_version", "The only versions known are HTTP/1.0 and HTTP/1.1.";
        BareLf = 502, "bare_lf", "A line ends in LF without CR.";
        BareCr = 502, "bare_cr", "A CR is not followed by LF.";
        ObsFold = 502, "obs_fold", "A field line begins with whitespace.";
        EmptyFieldName = 502, "empty_field_name", "A field has no name.";
        SpaceBeforeColon = 502, "space_before_colon", "Whitespace stands between a field name and its colon.";
        InvalidFieldName = 502, "invalid_field_name", "A field name is not a token.";
        InvalidFieldValue = 502, "invalid_field_value", "A field value contains a control character.";
        TooManyConnectionOptions = 502, "too_many_connection_options", "Connection names more options than allowed.";
        HeadTooLarge = 502, "head_too_large", "The head is larger than allowed.";
        TooManyFields = 502, "too_many_fields", "The head has more field lines than allowed.";
        InvalidContentLength = 502, "invalid_content_length", "Content-Length is not one decimal number that fits.";
        DifferingContentLengths = 502, "differing_content_lengths", "Two Content-Length fields differ.";
        LengthAndTransferEncoding = 502, "length_and_transfer_encoding",
            "The response has both Content-Length and Transfer-Encoding.";
        InvalidTransferEncoding = 502, "invalid_transfer_encoding", "Transfer-Encoding is not exactly one chunked.";
        TransferEncodingInHttp10 = 502, "transfer_encoding_in_http10",
            "HTTP/1.0 does not know Transfer-Encoding.";
        SwitchWithoutUpgrade = 502, "switch_without_upgrade", "101 does not say which protocol follows.";
    }
}

causes! {
    /// Why a body cannot be followed any further. From a client: 400 and close; from a backend: the response is cut.
    BodyError {
        InvalidChunkSize = 400, "invalid_chunk_size", "A chunk size is not a hexadecimal number that fits.";
        InvalidChunkExtension = 400, "invalid_chunk_extension", "A chunk extension is malformed.";
        ChunkExtensionTooLong = 400, "chunk_extension_too_long", "A chunk extension is longer than allowed.";
        InvalidChunkTerminator = 400, "invalid_chunk_terminator", "A chunk or its size line does not end in CRLF.";
        InvalidTrailers = 400, "invalid_trailers", "A trailer field is malformed.";
        TrailersTooLarge = 400, "trailers_too_large", "The trailer section is larger than allowed.";
        Truncated = 400, "truncated_body", "The connection ended before the body did.";
    }
}

impl From<FieldFault> for Rejection {
    fn from(fault: FieldFault) -> Self {
        match fault {
            FieldFault::BareLf => Self::BareLf,
            FieldFault::BareCr => Self::BareCr,
            FieldFault::ObsFold => Self::ObsFold,
            FieldFault::EmptyName => Self::EmptyFieldName,
            FieldFault::SpaceBeforeColon => Self::SpaceBeforeColon,
            FieldFault::InvalidName => Self::InvalidFieldName,
            FieldFault::InvalidValue => Self::InvalidFieldValue,
            FieldFault::TooManyFields => Self::TooManyFields,
            FieldFault::TooManyConnectionOptions => Self::TooManyConnectionOptions,
        }
    }
}

impl From<FieldFault> for InvalidResponse {
    fn from(fault: FieldFault) -> Self {
        match fault {
            FieldFault::BareLf => Self::BareLf,
            FieldFault::BareCr => Self::BareCr,
            FieldFault::ObsFold => Self::ObsFold,
            FieldFault::EmptyName => Self::EmptyFieldName,
            FieldFault::SpaceBeforeColon => Self::SpaceBeforeColon,
            FieldFault::InvalidName => Self::InvalidFieldName,
            FieldFault::InvalidValue => Self::InvalidFieldValue,
            FieldFault::TooManyFields => Self::TooManyFields,
            FieldFault::TooManyConnectionOptions => Self::TooManyConnectionOptions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_unique_and_fit_for_labels() {
        let mut tokens: Vec<_> = Rejection::ALL.iter().map(|cause| cause.detail()).collect();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), Rejection::ALL.len());
        assert!(
            tokens.iter().all(|token| token.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
    }
}
