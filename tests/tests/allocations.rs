//! Heap allocations on the forwarding path, counted: a request over kept-alive connections takes one, and an idle
//! connection holds little.
//!
//! A binary of its own, because it replaces the allocator. The product runs inside, with client and origin on plain
//! threads that allocate nothing while requests are counted.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The counters are those of the whole process: one test at a time, also under `cargo test`.
static ALONE: Mutex<()> = Mutex::new(());

const WARM_UP: u64 = 200;
const REQUESTS: u64 = 2_000;
/// The future that serves the request, so that an idle connection is small.
const ALLOCATIONS: f64 = 1.0;
/// Of that one. The allocator has a short path for no more than so many bytes (docs/performance.md).
const REQUEST_BYTES: u64 = 1_024;
const IDLE: usize = 500;
/// What an idle connection may hold on the heap, as it was asked for.
const IDLE_BYTES: usize = 1_200;
/// The control plane goes on meanwhile; one allocation more per request would add one whole.
const NOISE: f64 = 0.25;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}";

/// Answers every request with [`ANSWER`]; requests have no body.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer_all(stream.unwrap()));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

/// Starts the product with these further lines of static and dynamic configuration; returns where it listens.
fn vigie(directory: &Path, statics: &str, router: &str, middlewares: &str) -> SocketAddr {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let dynamic = directory.join("dynamic.yml");
    std::fs::write(
        &dynamic,
        format!(
            "http:\n  routers:\n    app: {{rule: 'PathPrefix(`/`)', service: app{router}}}\n  services:\n    app:\n      \
             loadBalancer: {{servers: [{{url: 'http://{}'}}]}}\n{middlewares}",
            origin()
        ),
    )
    .unwrap();
    let config = directory.join("vigie.yml");
    let text = format!(
        "core: {{workers: 1}}\nentryPoints: {{web: {{address: '{port}'}}}}\nproviders: {{file: {{filename: '{}'}}}}\n{statics}",
        dynamic.display()
    );
    std::fs::write(&config, text).unwrap();
    let argument = OsString::from(format!("--configFile={}", config.display()));
    thread::spawn(move || vigie::main(std::iter::once(argument)));
    port
}

fn connect(address: SocketAddr) -> TcpStream {
    for _ in 0..600 {
        if let Ok(mut stream) = TcpStream::connect(address)
            && get(&mut stream)
        {
            return stream;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("nobody answers at {address}");
}

/// One request and its whole answer; false if that is not the origin's.
fn get(stream: &mut TcpStream) -> bool {
    let request =
        b"GET /api/v1/tasks?page=2 HTTP/1.1\r\nHost: app.example.com\r\nUser-Agent: allocations\r\nAccept: */*\r\n\r\n";
    let mut buffer = [0; 4096];
    let mut filled = 0;
    if stream.write_all(request).is_err() {
        return false;
    }
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        if buffer[..filled].ends_with(b"{\"status\":\"ok\"}") {
            return buffer.starts_with(b"HTTP/1.1 200 ");
        }
    }
    false
}

/// Allocations per request, and the bytes of the request that asked for the fewest: the control plane took no part
/// in it.
fn count(statics: &str, router: &str, middlewares: &str) -> (f64, u64) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut client = connect(vigie(directory.path(), statics, router, middlewares));
    (0..WARM_UP).for_each(|_| assert!(get(&mut client)));
    let first = dhat::HeapStats::get();
    let (mut last, mut fewest) = (first.total_bytes, u64::MAX);
    for _ in 0..REQUESTS {
        assert!(get(&mut client));
        let bytes = dhat::HeapStats::get().total_bytes;
        fewest = fewest.min(bytes - last);
        last = bytes;
    }
    let blocks = dhat::HeapStats::get().total_blocks - first.total_blocks;
    (blocks as f64 / REQUESTS as f64, fewest)
}

#[test]
fn a_request_takes_one() {
    let (each, bytes) = count("metrics: {prometheus: {addRoutersLabels: true}}\n", "", "");
    assert!(each < ALLOCATIONS + NOISE, "{each} allocations per request");
    assert!(bytes <= REQUEST_BYTES, "{bytes} bytes per request");
}

#[test]
fn an_idle_connection_holds_little() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let _profiler = dhat::Profiler::builder().testing().build();
    let address = vigie(directory.path(), "", "", "");
    let mut clients = Vec::with_capacity(1 + IDLE);
    clients.push(connect(address));
    let before = dhat::HeapStats::get().curr_bytes;
    clients.extend((0..IDLE).map(|_| connect(address)));
    let each = (dhat::HeapStats::get().curr_bytes - before) / IDLE;
    assert!(each <= IDLE_BYTES, "{each} bytes per idle connection");
}

#[test]
fn middlewares_and_the_access_log_take_none() {
    let middlewares = "  middlewares:
    named: {headers: {customRequestHeaders: {X-Request-By: vigie}, customResponseHeaders: {X-Answer-By: vigie}}}
    stripped: {stripPrefix: {prefixes: [/api]}}
    known: {ipAllowList: {sourceRange: [127.0.0.0/8]}}
    limited: {rateLimit: {average: 1000000, burst: 1000000}}
    broken: {circuitBreaker: {expression: 'NetworkErrorRatio() > 0.5'}}
";
    let (each, bytes) = count(
        "accessLog: {filePath: /dev/null, format: json}\n",
        ", middlewares: [named, stripped, known, limited, broken]",
        middlewares,
    );
    assert!(each < ALLOCATIONS + NOISE, "{each} allocations per request");
    assert!(bytes <= REQUEST_BYTES, "{bytes} bytes per request");
}
