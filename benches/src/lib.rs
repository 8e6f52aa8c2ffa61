//! Benchmarks: criterion for lb-core (`benches/`), side by side with peers for the product
//! (`benches/compare`). The binaries here are the harness's own tools: an origin, the relay that
//! marks the floor, and clients for TLS handshakes, WebSockets and HTTP/3. They share only what this library holds.

use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;

/// What a tool reads from its command line: `name=value` words, nothing else.
pub struct Args(Vec<(String, String)>);

impl Args {
    /// # Errors
    /// When a word is not of the form `name=value`.
    pub fn from_env() -> anyhow::Result<Self> {
        std::env::args()
            .skip(1)
            .map(|word| {
                let (name, value) =
                    word.split_once('=').with_context(|| format!("{word}: not name=value"))?;
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// # Errors
    /// When the word is missing.
    pub fn text(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        found.with_context(|| format!("{name}=... is missing"))
    }

    /// # Errors
    /// When the word is missing or not of type `T`.
    pub fn parse<T>(&self, name: &str) -> anyhow::Result<T>
    where
        T: std::str::FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let text = self.text(name)?;
        text.parse().with_context(|| format!("{name}={text}"))
    }

    /// # Errors
    /// When the word is missing or not an `address:port`.
    pub fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        self.parse(name)
    }
}

/// Runs `main` on the one thread the tool is pinned to.
///
/// # Errors
/// When the runtime cannot start, and whatever `main` returns.
pub fn run(main: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let main: Pin<Box<dyn Future<Output = anyhow::Result<()>>>> = Box::pin(main);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(main)
}

/// What a load generator counts, and prints as the line of JSON that `benches/compare` reads.
#[derive(Default)]
pub struct Tally {
    latencies: Vec<Duration>,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    pub fn succeed(&mut self, latency: Duration) {
        self.latencies.push(latency);
    }

    pub fn fail(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    /// # Errors
    /// When standard output is closed.
    pub fn print(mut self, elapsed: Duration) -> std::io::Result<()> {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        let micros = |ratio: f64| {
            let rank = (last as f64 * ratio) as usize; // rounded down on purpose
            self.latencies.get(rank).map_or(0, Duration::as_micros)
        };
        let note = self.first_error.as_deref().unwrap_or_default().replace(['"', '\\', '\n'], " ");
        writeln!(
            std::io::stdout(),
            r#"{{"requests":{},"errors":{},"seconds":{},"p50_us":{},"p99_us":{},"p999_us":{},"note":"{note}"}}"#,
            self.latencies.len(),
            self.errors,
            elapsed.as_secs_f64(),
            micros(0.5),
            micros(0.99),
            micros(0.999),
        )
    }
}
