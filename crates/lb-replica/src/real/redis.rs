//! Whether Redis answers.

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use redis::{Client, RedisResult};
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
        let answered = match kept {
            Some(connection) => match self.ping(connection).await {
                // Redis may have been started anew since: it is lost only if it cannot be reached now.
                Err(error) if error.is_connection_dropped() => self.ping_anew().await,
                answered => answered,
            },
            None => self.ping_anew().await,
        };
        answered.map_err(|error| in_full(&error))
    }

    async fn ping_anew(&self) -> RedisResult<()> {
        self.ping(self.client.get_multiplexed_async_connection().await?).await
    }

    /// Keeps the connection if it brings an answer.
    async fn ping(&self, mut connection: MultiplexedConnection) -> RedisResult<()> {
        let _: String = redis::cmd("PING").query_async(&mut connection).await?;
        *self.connection.lock().await = Some(connection);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one PING on each connection, and then ends it as a Redis does that is stopped.
    async fn restless(listener: TcpListener) {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut commands = [0; 4096];
            loop {
                let length = socket.read(&mut commands).await.unwrap();
                let asked = String::from_utf8_lossy(&commands[..length]).to_ascii_uppercase();
                if asked.contains("PING") {
                    socket.write_all(b"+PONG\r\n").await.unwrap();
                    break;
                }
                // What a client says of itself, each as an array of words.
                let answers = asked.matches('*').count();
                socket.write_all(&b"+OK\r\n".repeat(answers)).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_redis_that_was_started_anew_is_not_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redis = Redis::new(&format!("redis://{}/", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(restless(listener));
        for _ in 0..3 {
            assert_eq!(redis.ask().await, Ok(()));
        }
        server.abort();
    }
}
