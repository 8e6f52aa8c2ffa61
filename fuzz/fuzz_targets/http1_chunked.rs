#![no_main]

use lb_http1::{Chunk, ChunkError, ChunkedDecoder, write_chunk_start, write_last_chunk};
use libfuzzer_sys::fuzz_target;

/// Of trailers.
const MOST: usize = 200;

/// Data, bytes consumed and whether the body ended, reading pieces of `piece` bytes.
fn decode(
    bytes: &[u8],
    piece: usize,
    most: usize,
) -> (Vec<u8>, usize, Result<bool, ChunkError>, ChunkedDecoder) {
    let mut decoder = ChunkedDecoder::new(most);
    let (mut data, mut at) = (Vec::new(), 0);
    let mut end = piece.min(bytes.len());
    loop {
        match decoder.next(&bytes[at..end]) {
            Ok(Chunk::Data { consumed, start }) => {
                assert!(start < consumed);
                data.extend_from_slice(&bytes[at + start..at + consumed]);
                at += consumed;
            }
            Ok(Chunk::Partial { consumed }) => {
                at += consumed;
                assert_eq!(at, end);
                if end == bytes.len() {
                    return (data, at, Ok(false), decoder);
                }
                end = (end + piece).min(bytes.len());
            }
            Ok(Chunk::End { consumed }) => return (data, at + consumed, Ok(true), decoder),
            Err(error) => return (data, at, Err(error), decoder),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (data, consumed, result, decoder) = decode(bytes, usize::MAX, MOST);
    for piece in [1, 3, 64] {
        let (other_data, other_consumed, other_result, other) = decode(bytes, piece, MOST);
        assert_eq!(data, other_data);
        if result.is_ok() {
            assert_eq!((&result, consumed), (&other_result, other_consumed));
            assert!(decoder.trailers().iter().eq(other.trailers().iter()));
        }
    }
    if result == Ok(true) {
        // Written on, as one chunk, the body is the same again and ends where it ends.
        let mut out = Vec::new();
        if !data.is_empty() {
            write_chunk_start(data.len(), &mut out);
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
        }
        write_last_chunk(Some(decoder.trailers()), &mut out);
        // A space after each colon makes trailers a little longer.
        let (again, consumed, result, written) = decode(&out, usize::MAX, 2 * MOST);
        assert_eq!((again, consumed, result), (data, out.len(), Ok(true)));
        assert!(written.trailers().iter().eq(decoder.trailers().iter()));
    }
});
