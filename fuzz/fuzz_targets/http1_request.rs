#![no_main]

use lb_http1::{
    Head, HeadError, Limits, Parsed, Version, parse_request, remove_hop_by_hop, request_framing,
    write_request,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_head_bytes: 800, max_fields: 16 };

fn fields(head: &Head) -> Vec<(String, Vec<u8>)> {
    head.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

/// A parser that shares nothing with ours, and that repairs where ours refuses: what ours takes, it must read
/// the same, or two proxies in a row could be played against each other.
fn second_opinion(bytes: &[u8], length: usize, head: &Head) {
    let mut room = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut room);
    assert_eq!(request.parse(bytes), Ok(httparse::Status::Complete(length)));
    assert_eq!((request.method, request.path), (Some(head.method()), Some(head.target())));
    assert_eq!(request.version, Some(u8::from(head.version() == Version::Http11)));
    assert!(request.headers.iter().map(|field| (field.name, field.value)).eq(head.iter()));
}

fuzz_target!(|bytes: &[u8]| {
    let mut head = Head::new();
    let whole = parse_request(bytes, &mut head, &LIMITS);

    let mut trickled = Head::new();
    let mut last = Ok(Parsed::Partial);
    for end in 0..=bytes.len() {
        last = parse_request(&bytes[..end], &mut trickled, &LIMITS);
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
        let _ = (request_framing(&mut head), head.path().len(), head.query(), head.authority());
        head.make_origin_form();
        head.set("host", b"example.com");
        head.set_version(Version::Http11);
        if head.method() == "CONNECT" {
            head.set_method("GET");
            head.set_target("/");
        }
        let mut out = Vec::new();
        write_request(&head, &mut out);
        let limits = Limits { max_head_bytes: out.len(), max_fields: 17 };
        assert_eq!(parse_request(&out, &mut trickled, &limits), Ok(Parsed::Complete(out.len())));
        assert_eq!(fields(&head), fields(&trickled));
        assert_eq!(request_framing(&mut head), request_framing(&mut trickled));
        remove_hop_by_hop(&mut head);
        assert!(!head.contains("transfer-encoding") && !head.contains("connection"));
    }
});
