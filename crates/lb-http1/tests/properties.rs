//! What must hold for any bytes, through the public API.

use lb_http1::{
    Chunk, ChunkedDecoder, Head, Limits, Parsed, connection_tokens, expects_continue, keep_alive,
    parse_request, parse_response, remove_hop_by_hop, request_framing, response_framing, wants_upgrade,
    write_chunk_start, write_last_chunk, write_request, write_response,
};
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_head_bytes: 4096, max_fields: 32 };

type Field = (String, Vec<u8>);

fn fields() -> impl Strategy<Value = Vec<Field>> {
    let name =
        "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,30}".prop_filter("one Host", |name| !name.eq_ignore_ascii_case("host"));
    let inner = prop_oneof![8 => 0x20_u8..0x7f, 1 => 0x80_u8..=0xff, 1 => Just(b'\t')];
    let value = vec(inner, 0..40).prop_map(|value| {
        let is_ows = |byte: &u8| *byte == b' ' || *byte == b'\t';
        let start = value.iter().position(|byte| !is_ows(byte)).unwrap_or(value.len());
        let end = value.iter().rposition(|byte| !is_ows(byte)).map_or(start, |last| last + 1);
        value[start..end].to_vec()
    });
    vec((name, value), 0..20)
}

fn collect(head: &Head) -> Vec<Field> {
    head.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

/// Parses `bytes` as they arrive in pieces that end at `cuts`; the number of bytes consumed.
fn parse_in_pieces(bytes: &[u8], cuts: &[prop::sample::Index], head: &mut Head) -> Result<Parsed, String> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    for end in ends {
        match parse_request(&bytes[..end], head, &LIMITS) {
            Ok(Parsed::Partial) => {}
            other => return other.map_err(|error| error.to_string()),
        }
    }
    Ok(Parsed::Partial)
}

/// Valid heads with a few bytes replaced, inserted or cut out: far deeper in the parser than random bytes get.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let valid = prop::sample::select(vec![
        &b"GET /a/b?c=d HTTP/1.1\r\nHost: example.com:80\r\nAccept: */*\r\nConnection: close, x\r\nX: y\r\n\r\n"[..],
        b"POST http://[::1]/ HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"\r\nOPTIONS * HTTP/1.0\r\nhost:\r\nContent-Length: 12\r\nUpgrade: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer:  a \r\nExpect: 100-continue\r\n\r\nhello",
        b"4;ext=1\r\nwiki\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer-A: 1\r\nHost: 2\r\n\r\n",
    ]);
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\r\n\0 \t:%#;,\x7f\xff0".to_vec())];
    let edits = vec((any::<prop::sample::Index>(), byte, 0..3_u8), 0..4);
    (valid, edits).prop_map(|(valid, edits)| {
        let mut bytes = valid.to_vec();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => {
                    bytes.remove(at);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    })
}

/// Calls everything there is on a head.
fn use_all(head: &mut Head) {
    let method = head.method().to_owned();
    let _ = (request_framing(head), response_framing(head, &method), format!("{head:?}"));
    let _ = (keep_alive(head), expects_continue(head), wants_upgrade(head).map(str::len));
    let _ = (head.path().len(), head.query().map(str::len), head.authority().map(str::len));
    let _ = (connection_tokens(head).count(), head.get_str("host").map(str::len));
    let mut out = Vec::new();
    head.make_origin_form();
    head.set("x", b"longer than before\r\n");
    head.set("host", b"b");
    remove_hop_by_hop(head);
    write_request(head, &mut out);
    write_response(head, &mut out);
}

proptest! {
    #[test]
    fn a_written_request_is_parsed_back_from_any_pieces(
        method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}".prop_filter("CONNECT has its own targets", |method| method != "CONNECT"),
        target in "/[a-zA-Z0-9/._~!$&'()*+,;=:@|{}\"-]{0,60}(\\?[!-\"$-~]{0,30})?",
        fields in fields(),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
        body in vec(any::<u8>(), 0..20),
    ) {
        let mut head = Head::new();
        head.set_method(&method);
        head.set_target(&target);
        head.append("Host", b"example.com");
        for (name, value) in &fields {
            head.append(name, value);
        }
        let mut bytes = Vec::new();
        write_request(&head, &mut bytes);
        let length = bytes.len();
        bytes.extend_from_slice(&body);

        let mut parsed = Head::new();
        prop_assert_eq!(parse_in_pieces(&bytes, &cuts, &mut parsed), Ok(Parsed::Complete(length)));
        prop_assert_eq!((parsed.method(), parsed.target()), (method.as_str(), target.as_str()));
        prop_assert_eq!(collect(&parsed), collect(&head));
        let mut again = Vec::new();
        write_request(&parsed, &mut again);
        prop_assert_eq!(&again[..], &bytes[..length]);
    }

    #[test]
    fn a_written_response_is_parsed_back(status in 100..=999_u16, fields in fields()) {
        let mut head = Head::new();
        head.set_status(status);
        for (name, value) in &fields {
            head.append(name, value);
        }
        let mut bytes = Vec::new();
        write_response(&head, &mut bytes);
        let mut parsed = Head::new();
        prop_assert_eq!(parse_response(&bytes, &mut parsed, &LIMITS), Ok(Parsed::Complete(bytes.len())));
        prop_assert_eq!((parsed.status(), parsed.reason()), (status, head.reason()));
        prop_assert_eq!(collect(&parsed), collect(&head));
    }

    /// The list behind `Head` behaves as a plain list of pairs would.
    #[test]
    fn changes_do_what_they_do_to_a_list(
        changes in vec((0..4_u8, "[abAB]{1,2}", vec(0x20_u8..0x7f, 0..4)), 0..30),
    ) {
        let (mut head, mut model) = (Head::new(), Vec::<Field>::new());
        for (what, name, value) in changes {
            let lower = name.to_ascii_lowercase();
            let same = |field: &Field| field.0.eq_ignore_ascii_case(&name);
            match what {
                0 => {
                    head.append(&name, &value);
                    model.push((name, value));
                }
                1 => {
                    head.set(&lower, &value);
                    match model.iter().position(same) {
                        Some(first) => {
                            model[first].1 = value;
                            let mut index = 0;
                            model.retain(|field| {
                                index += 1;
                                index <= first + 1 || !same(field)
                            });
                        }
                        None => model.push((lower, value)),
                    }
                }
                2 => {
                    prop_assert_eq!(head.remove(&lower), model.iter().any(same));
                    model.retain(|field| !same(field));
                }
                _ => {
                    let expected: Vec<&[u8]> = model.iter().filter(|field| same(field)).map(|field| &field.1[..]).collect();
                    prop_assert_eq!(head.get(&lower), expected.first().copied());
                    prop_assert_eq!(head.get_all(&lower).collect::<Vec<_>>(), expected);
                }
            }
            prop_assert_eq!(collect(&head), model.clone());
        }
    }

    #[test]
    fn pieces_never_change_the_answer(bytes in damaged(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        // With an end to the last line: what spoils a line may be seen before its end, but not in all pieces.
        let bytes = [&bytes[..], b"\r\n"].concat();
        let (mut whole, mut pieces) = (Head::new(), Head::new());
        let at_once = parse_request(&bytes, &mut whole, &LIMITS);
        let in_pieces = parse_in_pieces(&bytes, &cuts, &mut pieces);
        match at_once {
            Ok(parsed) => {
                prop_assert_eq!(in_pieces, Ok(parsed));
                prop_assert_eq!(collect(&whole), collect(&pieces));
            }
            Err(error) => prop_assert_eq!(in_pieces, Err(error.to_string())),
        }
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop_oneof![4 => damaged(), 1 => vec(any::<u8>(), 0..200)], second in damaged()) {
        let mut head = Head::new();
        for parser in [parse_request, parse_response] {
            let _ = parser(&bytes, &mut head, &LIMITS);
            use_all(&mut head);
            // A caller that goes on with other bytes, which it should not.
            head.clear();
            let _ = parser(&bytes[..bytes.len() / 2], &mut head, &LIMITS);
            let _ = parser(&second, &mut head, &LIMITS);
            use_all(&mut head);
        }
        let mut decoder = ChunkedDecoder::new(50);
        for bytes in [&bytes, &second] {
            let mut at = 0;
            while let Ok(Chunk::Data { consumed, .. }) = decoder.next(&bytes[at..]) {
                at += consumed;
            }
        }
        use_all(&mut decoder.trailers().clone());
    }

    /// What a parser accepts reaches the server as one message with the same fields.
    #[test]
    fn what_is_accepted_is_written_without_ambiguity(bytes in damaged()) {
        let mut head = Head::new();
        if let Ok(Parsed::Complete(_)) = parse_request(&bytes, &mut head, &LIMITS) {
            head.set_version(lb_http1::Version::Http11);
            head.make_origin_form();
            let mut out = Vec::new();
            write_request(&head, &mut out);
            if head.contains("host") {
                let mut again = Head::new();
                prop_assert_eq!(parse_request(&out, &mut again, &LIMITS), Ok(Parsed::Complete(out.len())));
                prop_assert_eq!(collect(&again), collect(&head));
            }
        }
    }

    #[test]
    fn a_chunked_body_survives_any_split(
        chunks in vec(vec(any::<u8>(), 1..300), 0..6),
        with_trailers in any::<bool>(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
        behind in vec(any::<u8>(), 0..8),
    ) {
        let mut trailers = Head::new();
        if with_trailers {
            trailers.append("grpc-status", b"0");
        }
        let mut bytes = Vec::new();
        for chunk in &chunks {
            write_chunk_start(chunk.len(), &mut bytes);
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        write_last_chunk(Some(&trailers), &mut bytes);
        let length = bytes.len();
        bytes.extend_from_slice(&behind);

        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let (mut decoder, mut data, mut at) = (ChunkedDecoder::new(100), Vec::new(), 0);
        'pieces: for end in ends {
            loop {
                match decoder.next(&bytes[at..end]) {
                    Ok(Chunk::Data { consumed, start }) => {
                        data.extend_from_slice(&bytes[at + start..at + consumed]);
                        at += consumed;
                    }
                    Ok(Chunk::Partial { consumed }) => {
                        at += consumed;
                        prop_assert_eq!(at, end);
                        break;
                    }
                    Ok(Chunk::End { consumed }) => {
                        at += consumed;
                        break 'pieces;
                    }
                    Err(error) => prop_assert!(false, "{}", error),
                }
            }
        }
        prop_assert!(decoder.is_done());
        prop_assert_eq!(at, length);
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!(decoder.trailers().contains("grpc-status"), with_trailers);
    }
}
