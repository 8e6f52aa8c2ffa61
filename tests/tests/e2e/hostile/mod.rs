//! Against hostile bytes: whatever arrives, nothing gets through that two parsers could read differently,
//! and nobody else notices.
