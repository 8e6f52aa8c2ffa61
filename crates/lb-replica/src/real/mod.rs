//! A replica that needs a real PostgreSQL and a real Redis, and has a real memory and processor.

mod database;
mod process;
mod redis;

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Check, Condition, Dependency};
use database::Database;
use process::Process;
use redis::Redis;

/// A dependency that has not answered by then counts as unreachable. Chosen: above every threshold, and such that the
/// answer to a health check is out before the 3 s are over that the reference system gives it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the reference system's replicas depend on.
pub struct Real {
    database: Database,
    redis: Redis,
    process: Process,
}

impl Real {
    /// `database_url` as libpq takes it (`postgres://user:password@host/name`), `redis_url` as `redis://host:port/`.
    /// Neither need be there yet. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When one of them is no such URL. The error does not show it: there may be a password in it.
    pub fn new(database_url: &str, redis_url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            database: Database::new(database_url)?,
            redis: Redis::new(redis_url)?,
            process: Process::watch(),
        })
    }
}

impl Condition for Real {
    async fn checks(&self) -> Vec<Check> {
        let (database, redis) = tokio::join!(timed(self.database.ask()), timed(self.redis.ask()));
        let mut checks = vec![Dependency::database().judge(database), Dependency::redis().judge(redis)];
        checks.extend(self.process.vitals().judge());
        checks
    }
}

/// How long the dependency took, or why there was no answer.
async fn timed(ask: impl Future<Output = Result<(), String>>) -> Result<Duration, String> {
    let asked = Instant::now();
    match tokio::time::timeout(PATIENCE, ask).await {
        Ok(answered) => answered.map(|()| asked.elapsed()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// An error with all its causes: clients of databases put what an operator needs into the last one.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
