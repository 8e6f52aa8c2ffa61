//! Whether Redis answers.

use anyhow::Context as _;
use redis::Client;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use super::in_full;

/// One connection, made when it is first needed and again whenever it has broken.
pub(super) struct Redis {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let client = Client::open(url).ok().context("the URL of Redis is none that it knows")?;
        Ok(Self { client, connection: Mutex::new(None) })
    }

    pub(super) async fn ask(&self) -> Result<(), String> {
        // Taken away while it is asked, so that one that does not answer is not kept; checks that come at the same
        // time open one more.
        let kept = self.connection.lock().await.take();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                let connection = self.client.get_multiplexed_async_connection().await;
                connection.map_err(|error| in_full(&error))?
            }
        };
        let answered: redis::RedisResult<String> = redis::cmd("PING").query_async(&mut connection).await;
        answered.map_err(|error| in_full(&error))?;
        *self.connection.lock().await = Some(connection);
        Ok(())
    }
}
