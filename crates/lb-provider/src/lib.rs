//! Providers: each turns one outside world into configuration updates.

pub mod docker;
pub mod file;
pub mod remote;

pub use docker::DockerProvider;
pub use file::FileProvider;
pub use remote::Remote;
