//! What the codec costs per message: `cargo bench -p lb-http1 --bench head`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lb_http1::{
    Chunk, ChunkedDecoder, Head, Limits, keep_alive, parse_request, parse_response, remove_hop_by_hop,
    request_framing, write_request,
};

/// What `curl` and `wrk` send.
const SMALL: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\r\n";

/// What a browser sends to an API.
const BROWSER: &[u8] = b"GET /api/v1/items/4711?page=2&sort=name HTTP/1.1\r\nHost: api.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: application/json, text/plain, */*\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://www.example.com/items\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nSec-Fetch-Dest: empty\r\n\
    Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-site\r\nConnection: keep-alive\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 04 Nov 2025 10:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\nETag: \"5f3b\"\r\n\r\n";

fn heads(c: &mut Criterion) {
    let limits = Limits::default();
    let mut head = Head::new();
    for (name, bytes) in [("small", SMALL), ("browser", BROWSER)] {
        let mut group = c.benchmark_group(format!("{name}, {} bytes", bytes.len()));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("parse", |b| b.iter(|| parse_request(black_box(bytes), &mut head, &limits)));
        let mut out = Vec::new();
        group.bench_function("write unchanged", |b| {
            b.iter(|| {
                out.clear();
                write_request(black_box(&head), &mut out);
            });
        });
        group.bench_function("absent names x 5", |b| {
            b.iter(|| {
                let head = black_box(&head);
                ["upgrade", "transfer-encoding", "content-length", "expect", "x-forwarded-for"]
                    .map(|name| head.contains(name))
            });
        });
        group.bench_function("as a proxy: parse, decide, change, write", |b| {
            b.iter(|| {
                let _ = parse_request(black_box(bytes), &mut head, &limits);
                black_box((request_framing(&mut head).is_ok(), keep_alive(&head)));
                remove_hop_by_hop(&mut head);
                for name in ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"] {
                    head.set(name, b"203.0.113.7");
                }
                out.clear();
                write_request(&head, &mut out);
            });
        });
        group.finish();
    }
    let mut group = c.benchmark_group(format!("response, {} bytes", RESPONSE.len()));
    group.bench_function("parse", |b| b.iter(|| parse_response(black_box(RESPONSE), &mut head, &limits)));
    group.finish();
}

/// A sender that trickles must not cost more than its bytes: all prefixes of one head.
fn trickle(c: &mut Criterion) {
    let limits = Limits::default();
    let mut head = Head::new();
    let long =
        [b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ", "x".repeat(60_000).as_bytes(), b"\r\n\r\n"].concat();
    for (name, bytes) in [("browser", BROWSER), ("60 kB cookie", &long)] {
        c.bench_function(&format!("byte by byte, {name}"), |b| {
            b.iter(|| {
                for end in 1..=bytes.len() {
                    let _ = black_box(parse_request(&bytes[..end], &mut head, &limits));
                }
            });
        });
    }
}

fn chunked(c: &mut Criterion) {
    let mut body = Vec::new();
    for _ in 0..100 {
        body.extend_from_slice(b"100\r\n");
        body.extend_from_slice(&[b'x'; 256]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    c.bench_function("100 chunks", |b| {
        b.iter(|| {
            let (mut decoder, mut at) = (ChunkedDecoder::new(4096), 0);
            while let Ok(Chunk::Data { consumed, .. }) = decoder.next(black_box(&body[at..])) {
                at += consumed;
            }
            decoder.is_done()
        });
    });
}

criterion_group!(benches, heads, trickle, chunked);
criterion_main!(benches);
