//! Against failing parts: whatever breaks behind the proxy, no request is lost that could have been kept.

mod disk;
mod limits;
mod replicas;
mod retries;
