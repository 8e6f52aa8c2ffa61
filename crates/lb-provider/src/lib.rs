//! Providers: each turns one outside world into configuration updates.

pub mod docker;
pub mod file;

pub use docker::DockerProvider;
pub use file::FileProvider;
