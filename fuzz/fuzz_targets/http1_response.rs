#![no_main]

use lb_http1::{Head, HeadError, Limits, Parsed, Version, parse_response, response_framing, write_response};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_head_bytes: 800, max_fields: 16 };

fn fields(head: &Head) -> Vec<(String, Vec<u8>)> {
    head.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

/// A parser that shares nothing with ours and repairs where ours refuses: what ours takes, it must read the same.
fn second_opinion(bytes: &[u8], length: usize, head: &Head) {
    let mut room = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut room);
    assert_eq!(response.parse(bytes), Ok(httparse::Status::Complete(length)));
    assert_eq!(response.code, Some(head.status()));
    assert_eq!(response.version, Some(u8::from(head.version() == Version::Http11)));
    assert!(response.headers.iter().map(|field| (field.name, field.value)).eq(head.iter()));
}

fuzz_target!(|bytes: &[u8]| {
    let mut head = Head::new();
    let whole = parse_response(bytes, &mut head, &LIMITS);

    let mut trickled = Head::new();
    let mut last = Ok(Parsed::Partial);
    for end in 0..=bytes.len() {
        last = parse_response(&bytes[..end], &mut trickled, &LIMITS);
        if last != Ok(Parsed::Partial) {
            break;
        }
    }
    // What spoils a line may be seen before the line ends, but only if it comes in one piece.
    let seen_earlier = whole.is_err() && matches!(last, Ok(Parsed::Partial) | Err(HeadError::TooLarge));
    assert!(last == whole || seen_earlier, "{whole:?} but {last:?}");

    if let Ok(Parsed::Complete(length)) = whole {
        assert_eq!(fields(&head), fields(&trickled));
        second_opinion(bytes, length, &head);
        head.set_version(Version::Http11);
        let mut out = Vec::new();
        write_response(&head, &mut out);
        let limits = Limits { max_head_bytes: out.len(), max_fields: 16 };
        assert_eq!(parse_response(&out, &mut trickled, &limits), Ok(Parsed::Complete(out.len())));
        assert_eq!(fields(&head), fields(&trickled));
        for method in ["GET", "HEAD", "CONNECT"] {
            assert_eq!(response_framing(&mut head, method), response_framing(&mut trickled, method));
        }
    }
});
