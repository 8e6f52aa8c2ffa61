//! Providers: each turns one outside world into configuration updates.

pub mod file;

pub use file::FileProvider;
