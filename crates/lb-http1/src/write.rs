//! Heads and chunks back to bytes. Lines that stand in the buffer as they should on the wire are copied as they are,
//! many at a time.

use crate::head::Head;

/// Appends the head as an HTTP/1.1 request.
pub fn write_request(head: &Head, out: &mut Vec<u8>) {
    let (method, target) = (head.method.of(&head.buffer), head.target.of(&head.buffer));
    out.reserve(head.buffer.len() + 16);
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(head, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head as an HTTP/1.1 response.
pub fn write_response(head: &Head, out: &mut Vec<u8>) {
    let status = head.status().min(999);
    let digit = |divisor: u16| b'0' + (status / divisor % 10) as u8;
    out.reserve(head.buffer.len() + 64);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    write_fields(head, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line before `len` bytes of data; the caller adds the data and CRLF. `len` is not zero, since that would
/// end the body.
pub fn write_chunk_start(len: usize, out: &mut Vec<u8>) {
    const DIGITS: usize = size_of::<usize>() * 2;
    let mut line = [0; DIGITS + 2];
    let mut start = DIGITS;
    let mut rest = len;
    loop {
        start -= 1;
        line[start] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    line[DIGITS..].copy_from_slice(b"\r\n");
    out.extend_from_slice(&line[start..]);
}

/// Appends the end of a chunked body: the last chunk, the trailers, the empty line.
pub fn write_last_chunk(trailers: Option<&Head>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        write_fields(trailers, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_fields(head: &Head, out: &mut Vec<u8>) {
    let buffer = head.buffer.as_slice();
    let mut run = 0..0;
    for field in &head.fields {
        match field.line() {
            Some(line) if line.start == run.end => run.end = line.end,
            Some(line) => {
                out.extend_from_slice(buffer.get(run).unwrap_or_default());
                run = line;
            }
            None => {
                out.extend_from_slice(buffer.get(run).unwrap_or_default());
                run = 0..0;
                out.extend_from_slice(field.name_of(buffer));
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value_of(buffer));
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    out.extend_from_slice(buffer.get(run).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, parse_request};

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn heads_are_written_with_all_changes_in_order() {
        let mut head = Head::new();
        let bytes =
            b"GET http://a/x HTTP/1.0\r\nHost: a\r\nB:1\r\nC:  2 \r\nD: 3\r\nE: 4\r\nF: 5\r\n\r\nbody";
        parse_request(bytes, &mut head, &Limits::default()).unwrap();
        let request = |head: &Head| written(|out| write_request(head, out));
        let all = "GET http://a/x HTTP/1.1\r\nHost: a\r\nB: 1\r\nC: 2\r\nD: 3\r\nE: 4\r\nF: 5\r\n\r\n";
        assert_eq!(request(&head), all);

        head.make_origin_form();
        head.set("host", b"other");
        head.set("d", b"6");
        head.remove("e");
        head.append("g", b"");
        assert_eq!(
            request(&head),
            "GET /x HTTP/1.1\r\nHost: other\r\nB: 1\r\nC: 2\r\nD: 6\r\nF: 5\r\ng: \r\n\r\n"
        );
        head.clear();
        head.set_status(204);
        assert_eq!(written(|out| write_response(&head, out)), "HTTP/1.1 204 No Content\r\n\r\n");
    }

    #[test]
    fn chunks_are_framed() {
        for (len, expected) in [(1, "1\r\n"), (16, "10\r\n"), (0xabcdef, "abcdef\r\n")] {
            assert_eq!(written(|out| write_chunk_start(len, out)), expected);
        }
        assert_eq!(written(|out| write_chunk_start(usize::MAX, out)).len(), usize::BITS as usize / 4 + 2);
        assert_eq!(written(|out| write_last_chunk(None, out)), "0\r\n\r\n");
        let mut trailers = Head::new();
        trailers.append("grpc-status", b"0");
        assert_eq!(written(|out| write_last_chunk(Some(&trailers), out)), "0\r\ngrpc-status: 0\r\n\r\n");
    }
}
