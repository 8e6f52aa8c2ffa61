//! Whether PostgreSQL answers.

use anyhow::Context as _;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls};

use super::in_full;

/// One connection, made when it is first needed and again whenever it has broken.
pub(super) struct Database {
    config: Config,
    client: Mutex<Option<Client>>,
}

impl Database {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let config = url.parse().ok().context("the URL of the database is none that PostgreSQL knows")?;
        Ok(Self { config, client: Mutex::new(None) })
    }

    /// One round trip and one query that needs no table.
    pub(super) async fn ask(&self) -> Result<(), String> {
        // Taken away while it is asked, so that one that does not answer is not kept; checks that come at the same
        // time open one more.
        let kept = self.client.lock().await.take().filter(|client| !client.is_closed());
        let client = match kept {
            Some(client) => client,
            None => self.connect().await?,
        };
        client.simple_query("SELECT 1").await.map_err(|error| in_full(&error))?;
        *self.client.lock().await = Some(client);
        Ok(())
    }

    async fn connect(&self) -> Result<Client, String> {
        let (client, connection) = self.config.connect(NoTls).await.map_err(|error| in_full(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = in_full(&error), "the connection to the database is lost");
            }
        });
        Ok(client)
    }
}
