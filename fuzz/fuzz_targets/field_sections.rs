//! Field sections of HTTP/3 clients: QPACK, its Huffman code, and the head that a server gets of them.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The files as they stand, in a tree like theirs: lb-proxy as a whole would bring the C of a TLS library along.
#[path = "../../crates/lb-proxy/src/http"]
mod http {
    #[allow(dead_code, reason = "heads come from QPACK here")]
    pub(crate) mod h2_convert;

    pub(crate) const RESPONSE_LIMITS: lb_http1::Limits =
        lb_http1::Limits { max_head_bytes: 1024 * 1024, max_fields: 1024 };
    pub(crate) const MAX_REQUEST_FIELDS: usize = 256;

    pub(crate) mod local {
        pub(crate) fn decimal(number: u64, digits: &mut [u8; 20]) -> &[u8] {
            let text = number.to_string();
            digits[..text.len()].copy_from_slice(text.as_bytes());
            &digits[..text.len()]
        }
    }

    #[path = "h3"]
    pub(crate) mod h3 {
        mod convert;
        mod huffman;
        #[allow(dead_code, reason = "answers are written elsewhere")]
        mod qpack;
        mod static_table;

        use lb_http1::{Head, Limits, Parsed};
        use qpack::SectionError;

        /// More than an input can decode to.
        const ENOUGH: usize = 1 << 20;

        type Fields = Vec<(Vec<u8>, Vec<u8>)>;

        fn decoded(section: &[u8], most: usize) -> Result<Fields, SectionError> {
            let mut fields = Vec::new();
            qpack::decode(section, most, |name, value| fields.push((name.to_vec(), value.to_vec())))?;
            Ok(fields)
        }

        /// Bit by bit, as RFC 7541 section 5.2 has it.
        fn huffman_by_bits(coded: &[u8]) -> Option<Vec<u8>> {
            let (mut text, mut code, mut length) = (Vec::new(), 0_u32, 0_u8);
            for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)) {
                (code, length) = (code << 1 | u32::from(bit), length + 1);
                if let Some(byte) =
                    (0..=255_u8).find(|byte| huffman::CODES[usize::from(*byte)] == (code, length))
                {
                    text.push(byte);
                    (code, length) = (0, 0);
                } else if length == 30 {
                    return None;
                }
            }
            (length < 8 && code == (1 << length) - 1).then_some(text)
        }

        /// What HTTP/1.1 makes of it is the same request, and nothing besides.
        fn is_one_request(head: &Head) {
            let mut bytes = Vec::new();
            lb_http1::write_request(head, &mut bytes);
            let limits = Limits { max_head_bytes: ENOUGH, max_fields: usize::MAX };
            let mut again = Head::new();
            let parsed = lb_http1::parse_request(&bytes, &mut again, &limits);
            assert_eq!(parsed, Ok(Parsed::Complete(bytes.len())), "{head:?}");
            assert_eq!((again.method(), again.target()), (head.method(), head.target()));
            assert!(again.iter().eq(head.iter()), "{head:?} became {again:?}");
            assert!(!again.contains("transfer-encoding") && !again.contains("connection"), "{again:?}");
        }

        pub(crate) fn check(section: &[u8]) {
            let coded = &section[..section.len().min(64)];
            let mut text = Vec::new();
            assert_eq!(huffman::decode(coded, &mut text).then_some(text), huffman_by_bits(coded));

            if let Ok(fields) = decoded(section, ENOUGH) {
                let size = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
                assert_eq!(decoded(section, size).as_ref(), Ok(&fields));
                if size > 0 {
                    assert!(decoded(section, size - 1).is_err());
                }
                let mut written = Vec::new();
                qpack::begin(&mut written);
                let counted: usize =
                    fields.iter().map(|(name, value)| qpack::field(&mut written, name, value)).sum();
                assert_eq!((counted, decoded(&written, size)), (size, Ok(fields)));
            }
            let mut head = Head::new();
            if convert::request_head(section, ENOUGH, &mut head) == Ok(true)
                && lb_http1::validate_request(&head).is_ok()
            {
                is_one_request(&head);
            }
            if let Ok(Some(trailers)) = convert::trailers(section, ENOUGH) {
                assert!(trailers.iter().all(|(name, value)| {
                    lb_http1::is_allowed_trailer(name) && lb_http1::is_field_value(value)
                }));
            }
        }
    }
}

fuzz_target!(|section: &[u8]| crate::http::h3::check(section));
